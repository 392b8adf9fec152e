"""Copies of a network whose frozen weights take fewer bits: bf16, or linear layers quantised by a library.

The network itself stays as it came, on the CPU: it is what a LoRA is worked into, and what is written.
"""

import copy
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..support.errors import MissingExtra, UserError
from .files import reason_of
from .placing import kept_in_float32
from .protocol import BasePrecision
from .stages import Stages

PACKAGES: Mapping[str, str] = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
"""Number format -> the package that quantises to it."""


def check_base(stages: Stages) -> None:
    """Find out, before anything is drawn, whether weights can be frozen so here, on a small layer.

    Raises:
        MissingExtra: the package is not installed.
        UserError: it doesn't work on this device.
    """
    base, device = stages.base, stages.device
    if base not in PACKAGES:
        return
    package = PACKAGES[base]
    if find_spec(package) is None:
        raise MissingExtra(package, "quantised", f"training.base_precision {base!r}")
    try:
        layer = _quantised(nn.Linear(64, 64, dtype=torch.bfloat16), base, device)
        inputs = torch.ones(2, 64, device=device, requires_grad=True)
        with torch.autocast(device.type, torch.bfloat16):
            layer(inputs).float().sum().backward()
    except Exception as error:  # whatever a library says where it has no kernels for a device
        raise UserError(
            f"{package} can't hold weights in {base} on {device} ({reason_of(error)}). Set training.base_precision to "
            "'bf16', or use a CUDA device."
        ) from None


def frozen_copy(network: Any, trained: Collection[str], stages: Stages) -> Any:
    """A copy of a network that trains beside frozen weights.

    Args:
        network: as it came; its tensors are shared where they are in the wanted format and place already.
        trained: names of the parameters that train, which are in float32.
        stages: number format and place of the others.
    """
    held: dict[int, Any] = {}
    wide = kept_in_float32(network, torch.bfloat16)
    place = torch.device("cpu") if stages.base in PACKAGES else stages.rest
    for name, value in network.named_parameters():
        dtype = torch.float32 if name in trained or id(value) in wide else torch.bfloat16
        kept = value.detach().to(place, dtype, copy=name in trained)
        held[id(value)] = nn.Parameter(kept, requires_grad=name in trained)
    for value in network.buffers():
        rounded = value.is_floating_point() and id(value) not in wide
        held[id(value)] = value.detach().to(place, torch.bfloat16 if rounded else value.dtype)
    made = copy.deepcopy(network, held)
    if stages.base in PACKAGES:
        _replace(made, partial(_quantised, base=stages.base, device=stages.rest))  # one layer at a time
    return made.to(stages.rest)


def _replace(module: nn.Module, quantise: Callable[[nn.Linear], nn.Module]) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear and child.weight.dtype == torch.bfloat16:
            setattr(module, name, quantise(child))
        else:
            _replace(child, quantise)


def _quantised(layer: nn.Linear, base: BasePrecision, device: torch.device) -> nn.Module:
    made = _in_4_bits(layer, device) if base == "nf4" else _in_8_bits(layer, base, device)
    made.register_forward_pre_hook(_in_bf16)
    return made


def _in_bf16(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What autocast does for plain layers: else a float32 input makes everything after it float32."""
    return inputs[0].to(torch.bfloat16), *inputs[1:]


def _in_4_bits(layer: nn.Linear, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    sizes = layer.in_features, layer.out_features, layer.bias is not None
    made: Any = Linear4bit(*sizes, torch.bfloat16, quant_type="nf4", device="meta")
    made.weight = Params4bit(layer.weight.detach(), requires_grad=False, quant_type="nf4", module=made)
    made.bias = layer.bias
    made.support_avx512bf16_for_cpu = False  # it packs the weights anew between training and drawing, wide ones only
    moved: nn.Module = made.to(device)
    return moved


def _in_8_bits(layer: nn.Linear, base: BasePrecision, device: torch.device) -> nn.Module:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    quantize_(layer.to(device), Int8WeightOnlyConfig() if base == "int8" else Float8WeightOnlyConfig())
    layer.weight.requires_grad_(False)
    return layer


def merge(network: nn.Module, changes: Mapping[str, Tensor]) -> None:
    """Add changes to weights in float32; they stay in it, also where the network came in fewer bits.

    Args:
        network: as it came.
        changes: name of a weight -> what is added, float32.
    """
    for name, change in changes.items():
        weight = network.get_parameter(name)
        weight.data = weight.data.float() + change.to(weight.device)

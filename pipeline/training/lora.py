"""Training a LoRA instead of the weights themselves: peft's layers go in, train, and come out fused."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..models.registry import family_of
from ..schema.choices import AdapterTargets
from ..schema.results import LoraFit
from ..support.errors import MissingExtra, UserError
from ..weights.factors import Adapter, Factors

_NAME = "turpentine"


def inject(module: Any, rank: int, alpha: float | None, targets: AdapterTargets, seed: int) -> None:
    """Put a LoRA into a network and leave it there; `injected` tells of the arguments."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingExtra("peft", "lora", "training.parameters 'lora'") from None
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated")  # that it can't merge: it need not
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=layer_names(module, targets))
        module.add_adapter(config, adapter_name=_NAME)
    for layer in _layers(module).values():
        for factor in (layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight):
            if factor.dtype != torch.float32:  # beside weights in fewer bits
                factor.data = factor.data.float()


def _layers(module: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}


def factors_in(module: nn.Module) -> dict[str, Factors]:
    """The layers of the LoRA that `inject` put into a network, on the CPU; empty where there is none."""
    if not getattr(module, "peft_config", None):
        return {}
    layers = {}
    for name, layer in _layers(module).items():
        up, down = layer.lora_B[_NAME].state_dict()["weight"], layer.lora_A[_NAME].state_dict()["weight"]
        layers[name] = Factors(up.to("cpu", copy=True), down.to("cpu", copy=True), layer.lora_alpha[_NAME])
    return layers


@contextmanager
def injected(
    module: Any, rank: int, alpha: float | None, targets: AdapterTargets, seed: int, fused: bool = True
) -> Iterator[dict[str, Factors]]:
    """A network with a LoRA in it; afterwards it is plain again, the LoRA fused into its weights.

    Args:
        module: a diffusers UNet or transformer.
        rank: of every layer of the LoRA.
        alpha: its scale is alpha / rank; None for alpha = rank.
        targets: the attention's linear layers, or every linear and convolution layer.
        seed: of the first values; at first the LoRA changes nothing.
        fused: false leaves the LoRA in the network, whose weights in few bits could not hold it.

    Yields:
        A dictionary that is empty until the block ends, and then holds the layers of the LoRA.

    Raises:
        MissingExtra: peft is not installed.
    """
    trainable = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    layers: dict[str, Factors] = {}
    inject(module, rank, alpha, targets, seed)
    try:
        yield layers
    finally:
        layers |= factors_in(module)
        if fused:
            module.fuse_lora(adapter_names=[_NAME])
            module.unload_lora()
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(trainable[name])


def layer_names(module: nn.Module, targets: AdapterTargets) -> list[str]:
    """Names of the layers that a LoRA is put beside.

    Raises:
        UserError: a network without attention, or whose attention layers no family names.
    """
    kinds = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    if targets == "all":
        return list(kinds)
    family = family_of(module)
    if family is None:
        raise UserError(f"expected a network of a known family for a LoRA, got a {type(module).__name__}.")
    found = [name for name in kinds if name.endswith(tuple(f".{ending}" for ending in family.attention))]
    if not found:
        raise UserError(f"this {type(module).__name__} has no attention for a LoRA. Set adapter_targets to 'all'.")
    return found


def as_adapter(layers: dict[str, Factors]) -> Adapter:
    """A trained LoRA as the writers of weights take it: it is the whole change."""
    rank = max(factors.rank for factors in layers.values())
    return Adapter(layers, LoraFit(layers=len(layers), rank=rank, residual=0.0, left_out={}, left_out_share=0.0))

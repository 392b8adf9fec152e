"""What fits in how much memory: a run's peak while it trains, computed from the architecture alone.

Peak = weights + optimizer + two gradients (forget and retain) + what a forward pass keeps for its
backward pass. It is an upper bound: activations are let go of while the second gradient comes into
being. The network is built on fake tensors and run once under autograd, so no weights are needed and
nothing is allocated. Text encoders and VAE are not in memory while training. The CUDA context (about
0.5 GB), the kernels' workspaces and fragmentation come on top: leave a tenth free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..maths.parameters import select_parameters
from ..models.architectures import build_network, example_inputs, find_architecture, saved_bytes
from ..schema.recipe import TrainingSection
from ..training.lora import inject
from ..training.tuning import tuned

GB = 2**30
_BLOCK = 256  # weights that share a scale in bitsandbytes' 8-bit Adam
_SMALL = 4096  # tensors with fewer weights keep moments of 32 bits there

SETTINGS = tuple(
    TrainingSection(**options)
    for options in (
        {},
        {"gradient_checkpointing": True},
        {"precision": "bf16"},
        {"forget_gradient": "bf16"},
        {"forget_gradient": "cpu"},
        {"optimizer": "adam8bit"},
        {"optimizer": "adam8bit", "gradient_checkpointing": True, "precision": "bf16", "forget_gradient": "cpu"},
        {"parameters": "xattn", "precision": "bf16"},
        {"parameters": "xattn", "precision": "bf16", "gradient_checkpointing": True},
        {"parameters": "lora", "precision": "bf16"},
        {"parameters": "lora", "precision": "bf16", "gradient_checkpointing": True},
    )
)
"""What is worth trying: each option alone, and together."""


@dataclass(frozen=True)
class Plan:
    """Bytes of one setting."""

    setting: TrainingSection
    weights: int
    optimizer: int
    gradients: int
    activations: int

    @property
    def total(self) -> int:
        """The peak while training."""
        return self.weights + self.optimizer + self.gradients + self.activations

    @property
    def name(self) -> str:
        """The options that decide memory."""
        spec = self.setting
        said: list[str] = [spec.parameters, spec.precision]
        if spec.gradient_checkpointing:
            said.append("checkpointing")
        if spec.optimizer != "adam":
            said.append(spec.optimizer)
        if spec.forget_gradient != "whole":
            said.append(f"forget gradient {spec.forget_gradient}")
        return ", ".join(said)


def plan(
    model: str, settings: Sequence[TrainingSection] = SETTINGS, batch_size: int = 1, side: int | None = None
) -> list[Plan]:
    """Compute the memory of each setting that the model's architecture allows.

    Args:
        model: a diffusers folder or one of `architectures.KNOWN`.
        settings: the options to try.
        batch_size: pairs that pass at once (a batch divided by the accumulation steps).
        side: height and width of the latents; None for what the model was trained at.

    Raises:
        UserError: unknown model.
    """
    kind, config = find_architecture(model)
    with FakeTensorMode():
        plain = build_network(kind, config)
        plans = []
        for spec in settings:
            network = _with_lora(build_network(kind, config), spec) if spec.parameters == "lora" else plain
            plans.append(_plan(network.train(), example_inputs(network, batch_size, side), spec))
    return [each for each in plans if each]


def _with_lora(network: Any, spec: TrainingSection) -> nn.Module:
    """Put the recipe's LoRA into a network of fake tensors.

    peft moves layers, which fake parameters don't allow, so the network is of meta tensors meanwhile.
    """
    _replace_tensors(network, "meta")
    with torch.device("meta"):
        inject(network, spec.adapter_rank, spec.adapter_alpha, spec.adapter_targets, 0)
    _replace_tensors(network, "cpu")
    return network


def _replace_tensors(network: nn.Module, device: str) -> None:
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device=device)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty_like(buffer, device=device))


def _plan(network: nn.Module, inputs: dict[str, Any], spec: TrainingSection) -> Plan | None:
    try:
        trained = select_parameters(network, spec.parameters)
    except ValueError:  # a transformer without separate cross-attention
        return None
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=spec.precision == "bf16", cache_enabled=False)
    layout = spec.model_copy(update={"torch_compile": False, "channels_last": False})  # which take no memory
    with tuned(network, layout), autocast:
        activations = saved_bytes(network, inputs)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    gradient = sum(p.numel() * p.element_size() for p in trained.values())
    waiting = {"whole": gradient, "bf16": gradient // 2, "cpu": 0}[spec.forget_gradient]
    moments = sum(moment_bytes(p, spec) for p in trained.values())
    return Plan(spec, weights, moments, gradient + waiting, activations)


def moment_bytes(parameter: Tensor, spec: TrainingSection) -> int:
    """What the optimizer keeps of one parameter."""
    count = parameter.numel()
    if spec.optimizer == "adam8bit" and count >= _SMALL:
        return 2 * (count + 4 * -(-count // _BLOCK))
    return (1 if spec.metric == "adam" else 2) * 4 * count

"""What fits in how much memory: a run's peak while it trains, computed from the architecture alone.

Peak = weights + optimizer + two gradients (forget and retain) + what a forward pass keeps for its
backward pass. The network is built on fake tensors and run once under autograd, so no weights are
needed and nothing is allocated. Text encoders and VAE are not in memory while training. The CUDA
context (about 0.5 GB), the kernels' workspaces and fragmentation come on top: leave a tenth free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .models.architectures import build_network, example_inputs, find_architecture, saved_bytes
from .parameters import TrainableParameters, select_parameters

GB = 2**30


@dataclass(frozen=True)
class Setting:
    """The options of a recipe that decide memory."""

    parameters: TrainableParameters = "full"
    precision: str = "fp32"
    gradient_checkpointing: bool = False

    def __str__(self) -> str:
        return ", ".join([self.parameters, self.precision] + ["checkpointing"] * self.gradient_checkpointing)


SETTINGS = (
    Setting(),
    Setting(precision="bf16"),
    Setting(gradient_checkpointing=True),
    Setting(precision="bf16", gradient_checkpointing=True),
    Setting("xattn", "bf16"),
    Setting("xattn", "bf16", gradient_checkpointing=True),
)
"""What is worth trying, the least intrusive first."""


@dataclass(frozen=True)
class Plan:
    """Bytes of one setting."""

    setting: Setting
    weights: int
    optimizer: int
    gradients: int
    activations: int

    @property
    def total(self) -> int:
        """The peak while training."""
        return self.weights + self.optimizer + self.gradients + self.activations


def plan(
    model: str, settings: Sequence[Setting] = SETTINGS, batch_size: int = 1, side: int | None = None
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
        network = build_network(kind, config).train()
        inputs = example_inputs(network, batch_size, side)
        plans = [_plan(network, inputs, setting) for setting in settings]
    return [each for each in plans if each]


def _plan(network: nn.Module, inputs: dict[str, Any], setting: Setting) -> Plan | None:
    try:
        trained = select_parameters(network, setting.parameters)
    except ValueError:  # a transformer without separate cross-attention
        return None
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    if setting.gradient_checkpointing:
        network.enable_gradient_checkpointing()  # type: ignore[operator]
    else:
        network.disable_gradient_checkpointing()  # type: ignore[operator]
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16"):
        activations = saved_bytes(network, inputs)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    gradient = sum(p.numel() * p.element_size() for p in trained.values())
    return Plan(setting, weights, optimizer=2 * gradient, gradients=2 * gradient, activations=activations)

"""How a network computes while it trains: what it recomputes, compiles, and lays out in memory."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..schema.recipe import TrainingSection
from ..support.errors import UserError


def check_tuning(spec: TrainingSection, device: torch.device, module: Any = None) -> None:
    """Find out, before anything is drawn, whether a network can compute so here.

    Args:
        spec: `precision`, `torch_compile` and `gradient_checkpointing`.
        device: where it computes.
        module: the network, once it is loaded.

    Raises:
        UserError: it can't.
    """
    if spec.precision == "bf16":
        try:
            one = torch.ones(1, 1, device=device, dtype=torch.bfloat16)
            torch.matmul(one, one)
        except (RuntimeError, TypeError):
            raise UserError(f"the device {device} can't compute in bf16. Set training.precision to 'fp32'.") from None
    if spec.torch_compile and device.type == "cpu" and not _compiler():
        raise UserError(
            "training.torch_compile needs a C++ compiler on a CPU, and found none. Install one, name it in the "
            "environment variable CXX, or leave torch_compile."
        )
    if spec.gradient_checkpointing and not getattr(module, "_supports_gradient_checkpointing", True):
        raise UserError(f"a {type(module).__name__} can't recompute activations. Leave gradient_checkpointing.")


def _compiler() -> str | None:
    """The C++ compiler that torch would call."""
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [named] if named else ["g++", "clang++", "c++", "cl"])), None)


@contextmanager
def tuned(module: Any, spec: TrainingSection) -> Iterator[None]:
    """The network as the recipe wants it to compute; afterwards as it was.

    Args:
        module: a diffusers UNet or transformer.
        spec: `gradient_checkpointing`, `torch_compile`, `channels_last`.
    """
    if spec.gradient_checkpointing:
        module.enable_gradient_checkpointing()
    if spec.channels_last:
        module.to(memory_format=torch.channels_last)
    if spec.torch_compile:
        module.compile()  # in place: names of weights stay
    try:
        yield
    finally:
        if spec.torch_compile:
            module._compiled_call_impl = None
        if spec.channels_last:
            module.to(memory_format=torch.contiguous_format)
        if spec.gradient_checkpointing:
            module.disable_gradient_checkpointing()

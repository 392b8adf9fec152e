"""How a network computes while it trains: what it recomputes, compiles, and lays out in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..schema.recipe import TrainingSection


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

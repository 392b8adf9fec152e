"""Devices whose backends lack some of PyTorch's operations, as Apple's GPUs do.

Which ones they lack changes with PyTorch's version, so a model is tried once, as small as possible, before anything
is drawn. Where the device was left to us, the CPU takes its place; where it was named, one line says what is missing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..support.errors import UserError
from .files import reason_of
from .placing import on_device
from .protocol import Denoiser

_COMPLETE = ("cpu", "cuda")
_TRIED = 8
"""Side of the latents with which a network is tried."""


class DeviceLacks(UserError):
    """A device can't compute a model.

    Attributes:
        missing: what it lacks, in one sentence without a full stop.
    """

    def __init__(self, device: torch.device, error: Exception) -> None:
        self.missing = f"the device {device} lacks an operation that this model needs ({reason_of(error)})"
        super().__init__(
            f"{self.missing}. Choose the device 'cpu'. For Apple's GPUs, PYTORCH_ENABLE_MPS_FALLBACK=1 in the "
            "environment lets PyTorch compute on the CPU what they lack."
        )


@contextmanager
def lacks_told(device: torch.device) -> Iterator[None]:
    """Turn what a backend raises about an operation, or a number format, that it lacks into one line.

    Raises:
        DeviceLacks: on a device that may lack some.
    """
    try:
        yield
    except (NotImplementedError, TypeError) as error:
        lacks = isinstance(error, NotImplementedError) or "float64" in str(error)
        if lacks and device.type not in _COMPLETE:
            raise DeviceLacks(device, error) from None
        raise


def check_training(denoiser: Denoiser) -> None:
    """Try one pass of the network, forward and backward, on a device that may lack an operation.

    Raises:
        DeviceLacks: it does.
    """
    if denoiser.device.type not in _COMPLETE:
        with lacks_told(denoiser.device), on_device(denoiser):
            one_pass(denoiser)


def one_pass(denoiser: Denoiser) -> None:
    """One pass of the network, forward and backward to its inputs, as small as possible."""
    module: Any = denoiser.module
    moved: list[Tensor] = []

    def there(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: there(inner) for name, inner in value.items()}
        if not isinstance(value, Tensor):
            return value
        value = value.to(denoiser.device, module.dtype if value.is_floating_point() else value.dtype)
        if value.is_floating_point():
            moved.append(value.requires_grad_())
        return value

    inputs = there(denoiser.example_inputs(module.config, 1, _TRIED))
    with torch.enable_grad():
        output = module(**inputs, return_dict=False)[0]
        torch.autograd.grad(output.square().mean(), moved, allow_unused=True)

"""float64, which is the CPU's alone: Apple's GPUs and many of Intel's have none, and refuse even to be asked for it."""

from torch import Tensor


def double(tensor: Tensor) -> Tensor:
    """A tensor in float64 on the CPU, from whatever device and without its graph."""
    return tensor.detach().cpu().double()

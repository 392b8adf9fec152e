"""Unlearned weights as changes of a network, one tensor at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """One tensor's way from the base to the unlearned weights, at strength 1.

    Attributes:
        name: of the tensor in the network, diffusers' names.
        value: what is added, or where it leads to.
        absolute: whether `value` is where it leads to.
    """

    name: str
    value: Tensor
    absolute: bool = False

    def apply(self, current: Tensor, original: Tensor, strength: float) -> Tensor:
        """The tensor with this change, float32.

        Args:
            current: the tensor as it is.
            original: as it was in the base.
            strength: 0 = nothing, 1 = as unlearned.
        """
        current, value = current.float(), self.value.to(current.device, torch.float32)
        if not self.absolute:
            return current + strength * value
        before = original.to(current.device, torch.float32)
        return torch.lerp(before, value, strength) + (current - before)  # exact where nothing came before

"""Unlearned weights as changes of a network, one tensor at a time."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..support.errors import UserError


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


def check_fit(changes: Iterable[Change], module: nn.Module, name: str) -> None:
    """Refuse changes of another network than one has.

    Args:
        changes: of its tensors; all are looked at.
        module: the network.
        name: of what they are, for the message.

    Raises:
        UserError: the first that belongs to no tensor of it; see also `read_changes`.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    for each in changes:
        if shapes.get(each.name) != tuple(each.value.shape):
            raise UserError(
                f"{name} belongs to another network than this {type(module).__name__}: {each.name}: expected "
                f"{shapes.get(each.name, 'no such tensor')}, got {tuple(each.value.shape)}."
            )

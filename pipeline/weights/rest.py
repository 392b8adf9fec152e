"""What a difference in float32 can't take back: the few values of a base that `after - change` misses.

`after - before` is exact where both are within a factor of two of each other (Sterbenz 1974), and then `after -
(after - before)` is `before`, bit for bit. Elsewhere it is mostly so. A delta file also keeps the values for which it
is not, and their places among all values of the network, tensor by tensor in the order of their names.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

GAPS, VALUES = "turpentine.rest.gaps", "turpentine.rest.values"
"""Keys in a delta file: how far each place is from the one before it, int32 (N,), and what belongs there, (N,)."""


def rest_of(after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of `before` that `after - (after - before)` misses, as a file keeps them; empty where it misses none.

    Args:
        after: a network's tensors.
        before: the same earlier; whole numbers are left out.
    """
    places, values, start = [], [], 0
    for name in sorted(before):
        old = before[name].detach()
        if old.is_floating_point():
            old = old.float()  # what it is taken back to, where a base came in half precision
            new = after[name].detach().to(old.device, torch.float32)
            missed = _bits(new - (new - old)) != _bits(old)
            where = missed.nonzero().flatten()
            places.append(where + start)
            values.append(old.flatten()[where])
        start += old.numel()
    found = torch.cat(places) if places else torch.empty(0)
    if not found.numel():
        return {}
    gaps = torch.diff(found, prepend=found.new_zeros(1))
    return {GAPS: gaps.to(torch.int32), VALUES: torch.cat(values)}


@torch.no_grad()
def put_rest(state: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> None:
    """Put the values where they belong.

    Args:
        state: the network's tensors, from which the change was subtracted; changed in place.
        rest: from `rest_of` or `read_rest`.
    """
    if not rest:
        return
    places, start = rest[GAPS].long().cumsum(0), 0
    for name in sorted(state):
        tensor = state[name]
        first, last = torch.searchsorted(places, torch.tensor([start, start + tensor.numel()])).tolist()
        if last > first:
            flat = tensor.flatten()
            where = (places[first:last] - start).to(tensor.device)
            flat[where] = rest[VALUES][first:last].to(tensor.device, tensor.dtype)
            tensor.copy_(flat.view(tensor.shape))
        start += tensor.numel()


def read_rest(path: Path) -> dict[str, Tensor]:
    """The values that a delta file keeps; empty where it keeps none."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in (GAPS, VALUES) if name in file.keys()}


def _bits(tensor: Tensor) -> Tensor:
    """The bits of each value, so that 0 and -0 are two."""
    return tensor.flatten().view(torch.int32)

"""What a difference in float32 misses: the few values of a base that `after - change` is not, and of `before + change`.

`after - before` is exact where both are within a factor of two of each other (Sterbenz 1974), and then `after -
(after - before)` is `before`, bit for bit, and `before + (after - before)` is `after`. Elsewhere it is mostly so. A
delta file also keeps the values for which it is not, of either way, and their places among all values of the network,
tensor by tensor in the order of their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class Way:
    """The keys in a delta file of what one way misses.

    Attributes:
        gaps: how far each place is from the one before it, int32 (N,).
        values: what belongs there, (N,).
    """

    gaps: str
    values: str


BACK = Way("turpentine.rest.gaps", "turpentine.rest.values")
"""From the weights afterwards to those before, by subtracting the change."""

FORTH = Way("turpentine.rest.forth.gaps", "turpentine.rest.forth.values")
"""From the weights before to those afterwards, by adding it."""

REST = frozenset(key for way in (BACK, FORTH) for key in (way.gaps, way.values))


def rest_of(after: Mapping[str, Tensor], before: Mapping[str, Tensor], way: Way = BACK) -> dict[str, Tensor]:
    """The values that the change alone misses on a way, as a file keeps them; empty where it misses none.

    Args:
        after: a network's tensors.
        before: the same earlier, float32; tensors of other formats are left out.
        way: BACK: the values of `before` that `after - (after - before)` is not. FORTH: those of `after` that
            `before + (after - before)` is not.
    """
    places, values, start = [], [], 0
    for name in sorted(before):
        old = before[name].detach()
        if old.dtype == torch.float32:
            new = after[name].detach().to(old.device, torch.float32)
            wanted, found = (old, new - (new - old)) if way == BACK else (new, old + (new - old))
            where = (_bits(found) != _bits(wanted)).nonzero().flatten()
            places.append(where + start)
            values.append(wanted.flatten()[where])
        start += old.numel()
    missed = torch.cat(places) if places else torch.empty(0)
    if not missed.numel():
        return {}
    gaps = torch.diff(missed, prepend=missed.new_zeros(1))
    return {way.gaps: gaps.to(torch.int32), way.values: torch.cat(values)}


@torch.no_grad()
def put_rest(state: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> None:
    """Put the values where they belong.

    Args:
        state: the network's tensors, to which the change was added, or from which it was subtracted; changed in place.
        rest: from `rest_of` or `read_rest`, of the same way.
    """
    way = next((way for way in (BACK, FORTH) if way.gaps in rest), None)
    if way is None:
        return
    places, start = rest[way.gaps].long().cumsum(0), 0
    for name in sorted(state):
        tensor = state[name]
        first, last = torch.searchsorted(places, torch.tensor([start, start + tensor.numel()])).tolist()
        if last > first:
            flat = tensor.flatten()
            where = (places[first:last] - start).to(tensor.device)
            flat[where] = rest[way.values][first:last].to(tensor.device, tensor.dtype)
            tensor.copy_(flat.view(tensor.shape))
        start += tensor.numel()


def read_rest(path: Path, way: Way = BACK) -> dict[str, Tensor]:
    """The values that a delta file keeps for a way; empty where it keeps none."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in (way.gaps, way.values) if name in file.keys()}


def _bits(tensor: Tensor) -> Tensor:
    """The bits of each value, so that 0 and -0 are two."""
    return tensor.flatten().view(torch.int32)

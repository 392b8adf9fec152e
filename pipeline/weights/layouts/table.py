"""Tables that say how diffusers tensors are kept in an original checkpoint, and both directions of them.

A row is `(diffusers name, original name)` or `(diffusers name, original name, how)`. In names

- `*` stands for a number, `%` for `weight` or `bias`, `**` for any rest; they fill the original name in order;
- `{a,b,c}` lists diffusers tensors that the original stacks, in this order, along the first axis.

`how` is "swap" (the halves of the first axis change places: shift and scale), "transpose" (a matrix)
or "conv" (a matrix kept as a 1x1 convolution). Every one of these is linear, so a table serves
weights, differences of weights and, row by row, low-rank factors alike.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.family import How, Row

_WILDCARDS = {"**": "(.+)", "*": r"(\d+)", "%": "(weight|bias)"}
_WILDCARD = re.compile(r"\*\*|\*|%")


class Unmapped(ValueError):
    """A tensor for which no row is there."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the original layout.

    Attributes:
        sources: the diffusers tensors that it holds, stacked along the first axis.
        how: what happens to the stack, see the module's docstring.
    """

    sources: tuple[str, ...]
    how: How = "same"

    def to_original(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The original tensor, made of the diffusers ones; bit-exact."""
        parts = [tensors[name] for name in self.sources]
        stacked = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.how == "swap":
            return _swap(stacked)
        if self.how == "transpose":
            return stacked.T
        return stacked[:, :, None, None] if self.how == "conv" else stacked

    def to_diffusers(self, tensor: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The inverse of `to_original`; bit-exact.

        Args:
            tensor: in the original layout.
            shapes: of the diffusers tensors.

        Raises:
            ValueError: the tensor's shape is not the one that the shapes lead to.
        """
        if self.how == "swap":
            tensor = _swap(tensor)
        elif self.how == "transpose":
            tensor = tensor.T
        elif self.how == "conv":
            tensor = tensor.flatten(1)
        rows = [shapes[name][0] for name in self.sources]
        expected = (sum(rows), *shapes[self.sources[0]][1:])
        if tuple(tensor.shape) != expected:
            raise ValueError(f"expected the shape {expected}, got {tuple(tensor.shape)}")
        return dict(zip(self.sources, tensor.split(rows), strict=True))

    def factors_to_original(self, factors: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Low-rank factors of the original tensor from those of its sources, exactly.

        Args:
            factors: (up, down) of each source: (rows, rank, …) and (rank, columns, …).
        """
        if len(factors) == 1:
            up, down = factors[0]
        else:
            ups, downs = zip(*factors, strict=True)
            up = torch.block_diag(*(part.flatten(1) for part in ups)).reshape(
                sum(part.shape[0] for part in ups), -1, *ups[0].shape[2:]
            )
            down = torch.cat(downs)
        return (_swap(up) if self.how == "swap" else up), down


Layout = dict[str, Entry]
"""Original name -> what it holds."""


def _swap(tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1])


def build_layout(names: Iterable[str], rows: Iterable[Row]) -> Layout:
    """Find the place of every tensor in the original layout.

    Args:
        names: of the diffusers tensors.
        rows: the table; the first row that fits decides.

    Raises:
        Unmapped: a name that no row fits, or a stack that is not complete.
    """
    rules = [rule for row in rows for rule in _rules(*row)]
    found: dict[str, dict[int, str]] = {}
    about: dict[str, tuple[int, How]] = {}
    for name in names:
        for pattern, original, slot, slots, how in rules:
            match = pattern.fullmatch(name)
            if match:
                parts = iter(match.groups())
                place = _WILDCARD.sub(lambda _: next(parts), original)  # noqa: B023 - used at once
                found.setdefault(place, {})[slot] = name
                about[place] = (slots, how)
                break
        else:
            raise Unmapped(name)
    for place, sources in found.items():
        if len(sources) != about[place][0]:
            raise Unmapped(next(iter(sources.values())))
    return {
        place: Entry(tuple(sources[slot] for slot in sorted(sources)), about[place][1])
        for place, sources in found.items()
    }


def _rules(name: str, original: str, how: How = "same") -> Iterable[tuple[re.Pattern[str], str, int, int, How]]:
    stacked = re.search(r"\{(.*)\}", name)
    options = stacked[1].split(",") if stacked else [""]
    for slot, option in enumerate(options):
        chosen = name.replace(stacked[0], option) if stacked else name
        yield re.compile(_pattern(chosen)), original, slot, len(options), how


def _pattern(name: str) -> str:
    parts = re.split(r"(\*\*|\*|%)", name)
    return "".join(_WILDCARDS.get(part, re.escape(part)) for part in parts)

"""Inner products of gradients and their linear combination, over lists of tensors.

`forget` is g_f, the gradient of L_f; `retain` is g_r, the gradient of L_r = denoising loss on D_r. Both
objectives are to go *down*, so an update U is good when U . g_f <= 0 and U . g_r <= 0. `rules` makes
directions of the two.

Nothing is flattened: three inner products decide almost every rule. They are taken per tensor and
added in float64, which stays exact where the norm of one long float32 vector does not.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from .double import double

_CPU_BLOCK = 32_768  # entries whose products are taken at one time: they stay in the processor's cache
_BLOCK = 4_194_304  # on an accelerator, where calls are dear: so much and no more is held besides the gradients


class Tensors(Protocol):
    """Tensors that are asked for one at a time: a list, or something that computes them."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Tensor:
        """Tensor `index`."""
        ...


class Gradient(Tensors, Protocol):
    """Tensors that can be freed one by one as they are used up."""

    def __setitem__(self, index: int, tensor: Tensor, /) -> None:
        """Replace tensor `index`."""
        ...


Reduce = Callable[[Tensor], Tensor]
"""Adds a table of sums over the processes, each of which holds a part of every tensor."""


def gram(
    lists: Sequence[Tensors], weights: Tensors | None = None, reduce: Reduce | None = None, rows: int | None = None
) -> Tensor:
    """The Gram matrix of k lists of tensors, for every tensor by itself; their sum is that of the whole lists.

    All products are taken of one block before the next one, so memory is read once for each list and
    not once for each pair, and there is one transfer from the device. A block's products are at least
    float32 and added by torch, in a tree on every device; a BLAS's dot product loses digits, how many
    depends on the processor. Blocks are added in float64.

    Args:
        lists: k lists of n tensors, of the same shapes and devices.
        weights: the diagonal P of the metric <a, b>_P = sum P a b, same shapes, >= 0 (None: P = 1).
        reduce: adds the products over the processes (None: each tensor is whole here).
        rows: how many of the lists to take products of, with all of them (None: all).

    Returns:
        <a_i, b_i> for each tensor i, row a and list b, (n, rows, k), float64 on the CPU.

    Raises:
        ValueError: lists of different lengths or shapes.

    >>> gram([[torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -1.0])]]).tolist()
    [[[5.0, 1.0], [1.0, 10.0]]]
    """
    lengths = {len(each) for each in lists}
    if len(lengths) != 1:
        raise ValueError(f"gram expected lists of one length, got {sorted(lengths)} tensors.")
    count, rows = len(lists), len(lists) if rows is None else rows
    pairs = [(a, b) for a in range(rows) for b in range(a, count)]
    products: list[Tensor] = []
    blocks: list[int] = []
    for index in range(lengths.pop()):
        tensors = [each[index] for each in lists]
        shapes = {tensor.shape for tensor in tensors}
        if len(shapes) > 1:
            raise ValueError(f"gram expected equal shapes at {index}, got {' and '.join(str([*s]) for s in shapes)}.")
        begun = len(products)
        for left, right in _blocks(tensors, None if weights is None else weights[index]):
            products += [(left[a] * right[b]).sum() for a, b in pairs]
        blocks.append((len(products) - begun) // len(pairs))
    if not products:
        return torch.zeros(0, rows, count, dtype=torch.float64)
    sums = double(torch.stack(products)).view(-1, len(pairs))
    whole = torch.stack([part.sum(0) for part in sums.split(blocks)])
    places = [[pairs.index((min(a, b), max(a, b))) for b in range(count)] for a in range(rows)]
    table = whole[:, torch.tensor(places)]
    return table if reduce is None else reduce(table)


def _blocks(tensors: Sequence[Tensor], weight: Tensor | None) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Tensors as vectors, block by block: weighted ones and plain ones."""
    together = [*tensors] if weight is None else [*tensors, weight]
    size = _CPU_BLOCK if together[0].device.type == "cpu" else _BLOCK
    for parts in zip(*(tensor.reshape(-1).split(size) for tensor in together), strict=True):
        plain = [at_least_float(part) for part in parts]
        if weight is None:
            yield plain, plain
        else:
            scale = plain.pop()
            yield [part * scale for part in plain], plain


def at_least_float(tensor: Tensor) -> Tensor:
    """A tensor for arithmetic: one of half precision as float32, any other as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@dataclass(frozen=True)
class Gram:
    """The three inner products of a forget and a retain gradient.

    Attributes:
        ff: <g_f, g_f>, >= 0.
        rr: <g_r, g_r>, >= 0.
        fr: <g_f, g_r>.
    """

    ff: float
    rr: float
    fr: float

    @classmethod
    def of(cls, table: Tensor) -> "Gram":
        """From the Gram matrix of [g_f, g_r], (2, 2)."""
        (ff, fr), (_, rr) = table.tolist()
        return cls(ff, rr, fr)

    @property
    def conflict(self) -> bool:
        """True if the objectives pull against each other, g_f . g_r < 0."""
        return self.fr < 0

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the gradients, in [-1, 1]; 0 when either is zero."""
        scale = (self.ff * self.rr) ** 0.5
        return max(-1.0, min(1.0, self.fr / scale)) if scale > 0 else 0.0


def plain_coefficients(terms: Iterable[str], retain_weight: float) -> dict[str, float]:
    """Those of g_f + lambda g_r; a term that is alone counts whole."""
    both = {"forget", "retain"} <= {*terms}
    return {term: retain_weight if term == "retain" and both else 1.0 for term in terms}


def guard_coefficients(gram: Gram, change_forget: float, change_retain: float) -> tuple[float, float]:
    """The smallest correction that makes an update harm neither objective to first order.

    The projection of an update U onto {U : U . g_f <= 0, U . g_r <= 0} is
    U - mu g_f - nu g_r with mu, nu >= 0 (the multipliers of a quadratic program with two
    constraints, solved here by cases).

    Args:
        gram: inner products of g_f and g_r (Euclidean).
        change_forget: U . g_f.
        change_retain: U . g_r.

    Returns:
        (mu, nu).
    """
    if change_forget <= 0 and change_retain <= 0:
        return 0.0, 0.0
    if change_forget > 0 and gram.ff > 0:
        mu = change_forget / gram.ff
        if change_retain - mu * gram.fr <= 0:
            return mu, 0.0
    if change_retain > 0 and gram.rr > 0:
        nu = change_retain / gram.rr
        if change_forget - nu * gram.fr <= 0:
            return 0.0, nu
    determinant = gram.ff * gram.rr - gram.fr * gram.fr
    if determinant <= 1e-12 * gram.ff * gram.rr:  # parallel: one constraint says what the other does
        return (change_forget / gram.ff, 0.0) if gram.ff > 0 else (0.0, change_retain / gram.rr)
    mu = (gram.rr * change_forget - gram.fr * change_retain) / determinant
    nu = (gram.ff * change_retain - gram.fr * change_forget) / determinant
    return max(mu, 0.0), max(nu, 0.0)


class Waiting:
    """A gradient that waits for another one in less room, and is given back one tensor at a time.

    Args:
        tensors: the gradient, taken over: the list holds empty tensors afterwards.
        keeping: "bf16", rounded to bfloat16 (relative error up to 2^-9), or "cpu", exact and off the device.
    """

    def __init__(self, tensors: list[Tensor], keeping: Literal["bf16", "cpu"]) -> None:
        self.likes = [(tensor.device, tensor.dtype) for tensor in tensors]
        self.held: list[Tensor] = []
        for index, tensor in enumerate(tensors):
            self.held.append(tensor.to(torch.bfloat16) if keeping == "bf16" else tensor.cpu())
            tensors[index] = torch.empty(0)

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Tensor:
        device, dtype = self.likes[index]
        return self.held[index].to(device, dtype)

    def __setitem__(self, index: int, tensor: Tensor) -> None:
        self.held[index] = tensor


class Combination:
    """The update direction: a linear combination of gradients, evaluated one tensor at a time.

    Args:
        grads: term -> gradient; taken over, as `release` empties it.
        coefficients: term -> one number per tensor, or one for all.
        gram: global inner products (Euclidean); None unless there are a forget and a retain term.
        mask: the entries that may move, booleans shaped like the gradients, which are taken as zero elsewhere
            (None: all).
    """

    def __init__(
        self,
        grads: Mapping[str, Gradient],
        coefficients: Mapping[str, float | Sequence[float]],
        gram: Gram | None = None,
        mask: Tensors | None = None,
    ) -> None:
        length = len(next(iter(grads.values())))
        self.grads = dict(grads)
        self.coefficients = {
            term: [value] * length if isinstance(value, int | float) else list(value)
            for term, value in coefficients.items()
        }
        self.gram = gram
        self.mask = mask

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that are combined."""
        return tuple(self.grads)

    def __len__(self) -> int:
        return len(next(iter(self.coefficients.values())))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        """Tensor `index` of the direction, in the gradients' dtype."""
        first, *others = self.grads
        part = self.grads[first][index]
        total = at_least_float(part) * self.coefficients[first][index]
        for term in others:
            total.add_(at_least_float(self.grads[term][index]), alpha=self.coefficients[term][index])
        return (total if self.mask is None else total * self.mask[index]).to(part.dtype)

    def gradient(self, term: str, index: int) -> Tensor:
        """Tensor `index` of one term's gradient."""
        part = self.grads[term][index]
        return part if self.mask is None else part * self.mask[index]

    def release(self, index: int) -> None:
        """Free the gradients of one tensor, which is not asked for again."""
        for gradient in self.grads.values():
            gradient[index] = torch.empty(0)

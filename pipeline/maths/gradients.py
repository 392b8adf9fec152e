"""Inner products, the restricted gradient and its combination, over lists of tensors.

Conventions, stated once. `forget` is g_f, the gradient of L_f = -(denoising loss on D_f);
`retain` is g_r, the gradient of L_r = denoising loss on D_r. Both objectives are to go *down*, so
an update U is good when U . g_f <= 0 and U . g_r <= 0. lambda (`retain_weight`) multiplies the
retain direction.

Nothing is flattened: every combination here is linear in g_f and g_r, so three inner products
decide it. They are taken per tensor and added in float64, which stays exact where the norm of one
long float32 vector does not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


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

    @property
    def conflict(self) -> bool:
        """Whether the objectives pull against each other, g_f . g_r < 0."""
        return self.fr < 0

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the gradients, in [-1, 1]; 0 when either is zero."""
        scale = (self.ff * self.rr) ** 0.5
        return max(-1.0, min(1.0, self.fr / scale)) if scale > 0 else 0.0

    def __add__(self, other: "Gram") -> "Gram":
        return Gram(self.ff + other.ff, self.rr + other.rr, self.fr + other.fr)


_BLOCK = 32_768  # float32 sums of many more terms than this lose digits, those of fewer are mostly calls


def inner_products(pairs: Sequence[tuple[Tensors, Tensors]]) -> list[list[float]]:
    """Inner products per tensor of several pairs of lists, with one transfer from the device.

    All pairs are taken of one block before the next one, so memory is read once for each list and
    not once for each pair. A block's sum is at least float32; blocks are added in float64.

    Args:
        pairs: (a, b) lists of tensors, all of the same lengths, shapes and devices. A list that
            stands in several pairs should be the same object; a lazy one is asked once a tensor.

    Returns:
        For each pair, <a_i, b_i> for every i.

    Raises:
        ValueError: lists of different lengths or shapes.
    """
    lists = {id(each): each for pair in pairs for each in pair}
    lengths = {len(each) for each in lists.values()}
    if len(lengths) > 1:
        raise ValueError(f"inner_products expected lists of one length, got {sorted(lengths)} tensors.")
    dots: list[Tensor] = []
    counts: list[int] = []
    for index in range(max(lengths, default=0)):
        tensors = {key: each[index] for key, each in lists.items()}
        shapes = {tensor.shape for tensor in tensors.values()}
        if len(shapes) > 1:
            shown = " and ".join(str([*shape]) for shape in shapes)
            raise ValueError(f"inner_products expected equal shapes at {index}, got {shown}.")
        blocks = {key: _blocks(tensor) for key, tensor in tensors.items()}
        counts.append(len(next(iter(blocks.values()))))
        dots += [torch.dot(blocks[id(a)][place], blocks[id(b)][place]) for place in range(counts[-1]) for a, b in pairs]
    if not dots:
        return [[] for _ in pairs]
    table = torch.stack(dots).cpu().double().view(-1, len(pairs))
    return torch.stack([rows.sum(0) for rows in table.split(counts)], 1).tolist()


def _blocks(tensor: Tensor) -> Sequence[Tensor]:
    """A tensor as vectors of which float32 sums can be taken: an accelerator's sums are trees, which lose nothing."""
    flat = tensor.reshape(-1)
    if flat.dtype in (torch.float16, torch.bfloat16):
        flat = flat.float()
    return flat.split(_BLOCK) if flat.device.type == "cpu" and flat.numel() > _BLOCK else (flat,)


class Shards(list[Tensor]):
    """Tensors of which this process holds a part; what is summed over them must be summed over processes.

    Args:
        tensors: the parts held here.
        total: adds each of several numbers over the processes, in one exchange.
    """

    def __init__(self, tensors: Tensors, total: Callable[[list[float]], list[float]]) -> None:
        super().__init__(tensors)
        self.total = total


class Weighted(Sequence[Tensor]):
    """P_i * a_i, computed one tensor at a time."""

    def __init__(self, tensors: Tensors, weights: Tensors) -> None:
        self.tensors, self.weights = tensors, weights

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.tensors[index] * self.weights[index]


class Waiting(Sequence[Tensor]):
    """A gradient that waits for another one in less room, and is given back one tensor at a time.

    Args:
        tensors: the gradient, taken over: where it is a list, that holds empty tensors afterwards.
        keeping: "bf16", rounded to bfloat16 (relative error up to 2^-9), or "cpu", exact and off the device.
    """

    def __init__(self, tensors: Tensors, keeping: Literal["bf16", "cpu"]) -> None:
        self.likes = [(tensor.device, tensor.dtype) for tensor in tensors]
        self.held: list[Tensor] = []
        for index, tensor in enumerate(tensors):
            self.held.append(tensor.to(torch.bfloat16) if keeping == "bf16" else tensor.cpu())
            if isinstance(tensors, list):
                tensors[index] = torch.empty(0)

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        device, dtype = self.likes[index]
        return self.held[index].to(device, dtype)

    def __setitem__(self, index: int, tensor: Tensor) -> None:
        self.held[index] = tensor


def gram_per_tensor(forget: Tensors, retain: Tensors, weights: Tensors | None = None) -> list[Gram]:
    """The three inner products of every tensor; their sum is the global one.

    Args:
        forget: g_f as a list of tensors.
        retain: g_r, same shapes; `Shards` where each process holds a part of every tensor.
        weights: the diagonal P of the metric <a, b>_P = sum P a b, same shapes, >= 0 (None: P = 1).
            May be a lazy sequence: each tensor is asked for when it is needed.
    """
    left_f: Tensors = forget if weights is None else Weighted(forget, weights)
    left_r: Tensors = retain if weights is None else Weighted(retain, weights)
    ff, rr, fr = inner_products([(left_f, forget), (left_r, retain), (left_f, retain)])
    if isinstance(retain, Shards):
        total = retain.total([*ff, *rr, *fr])
        ff, rr, fr = (total[start : start + len(ff)] for start in range(0, len(total), len(ff)))
    return [Gram(*values) for values in zip(ff, rr, fr, strict=True)]


def restricted_coefficients(gram: Gram, retain_weight: float) -> tuple[float, float]:
    """Coefficients (a, b) with delta_f + lambda * delta_r = a g_f + b g_r (Ko et al. 2024, Eq. 4).

    Where c = g_f . g_r < 0 each gradient loses its component along the other:

        delta_f = g_f - c / ||g_r||^2 g_r,    delta_r = g_r - c / ||g_f||^2 g_f,

    so a = 1 - lambda c / ||g_f||^2 and b = lambda - c / ||g_r||^2. Elsewhere delta = g. When one
    gradient is zero the other is taken alone.
    """
    if not gram.conflict or gram.ff <= 0 or gram.rr <= 0:
        return 1.0, retain_weight
    return 1.0 - retain_weight * gram.fr / gram.ff, retain_weight - gram.fr / gram.rr


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


class Combination(Sequence[Tensor]):
    """The update direction: a linear combination of gradients, evaluated one tensor at a time.

    Attributes:
        grads: term -> list of tensors.
        coefficients: term -> one number per tensor.
        gram: global inner products (Euclidean); None unless there are a forget and a retain term.
    """

    def __init__(
        self,
        grads: Mapping[str, Tensors],
        coefficients: Mapping[str, float | Sequence[float]],
        gram: Gram | None = None,
    ) -> None:
        length = len(next(iter(grads.values())))
        self.grads = {
            term: tensors if isinstance(tensors, Waiting) else list(tensors) for term, tensors in grads.items()
        }
        self.coefficients = {
            term: [value] * length if isinstance(value, int | float) else list(value)
            for term, value in coefficients.items()
        }
        self.gram = gram

    def __len__(self) -> int:
        return len(next(iter(self.coefficients.values())))

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Tensor `index` of the direction, in the gradients' dtype."""
        total: Tensor | None = None
        for term, tensors in self.grads.items():
            part = tensors[index]
            wide = part.float() if part.dtype in (torch.float16, torch.bfloat16) else part
            factor = self.coefficients[term][index]
            total = wide * factor if total is None else total.add_(wide, alpha=factor)
        assert total is not None  # noqa: S101 - a combination has at least one term
        return total.to(next(iter(self.grads.values()))[index].dtype)

    def release(self, index: int) -> None:
        """Let go of the gradients of one tensor, which is not asked for again."""
        for tensors in self.grads.values():
            tensors[index] = torch.empty(0)


def weighted_sum(grads: Mapping[str, Tensors], retain_weight: float) -> Combination:
    """g_f + lambda g_r, of whatever terms there are; the plain combination of GradDiff."""
    factors = {term: retain_weight if term == "retain" and "forget" in grads else 1.0 for term in grads}
    return Combination(grads, factors, _euclidean(grads))


def restricted_gradient(
    grads: Mapping[str, Tensors],
    retain_weight: float = 1.0,
    per_layer: bool = False,
    weights: Tensors | None = None,
) -> Combination:
    """delta_f + lambda delta_r of a forget and a retain gradient (Ko et al. 2024, Eq. 4).

    Args:
        grads: {"forget": g_f, "retain": g_r}, lists of tensors of the same shapes.
        retain_weight: lambda, >= 0.
        per_layer: project each tensor by its own inner products instead of the global ones.
        weights: diagonal metric of the projection, see `gram_per_tensor`.

    Returns:
        The direction, to be stepped against. Its inner product with each projected-upon gradient
        is >= 0 for the metric in use (Theorem 4).
    """
    forget, retain = grads["forget"], grads["retain"]
    euclidean = gram_per_tensor(forget, retain)
    metric = euclidean if weights is None else gram_per_tensor(forget, retain, weights)
    total = sum(metric, Gram(0.0, 0.0, 0.0))
    chosen = metric if per_layer else [total] * len(metric)
    pairs = [restricted_coefficients(gram, retain_weight) for gram in chosen]
    return Combination(
        {"forget": forget, "retain": retain},
        {"forget": [a for a, _ in pairs], "retain": [b for _, b in pairs]},
        sum(euclidean, Gram(0.0, 0.0, 0.0)),
    )


def _euclidean(grads: Mapping[str, Tensors]) -> Gram | None:
    if "forget" not in grads or "retain" not in grads:
        return None
    return sum(gram_per_tensor(grads["forget"], grads["retain"]), Gram(0.0, 0.0, 0.0))

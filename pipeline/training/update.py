"""From a direction to new weights: the optimizer's update, and the first-order change of both objectives.

The direction and the update exist for one bucket of weights at a time, so that memory beyond weights and
optimizer is the gradients alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..maths.gradients import Combination, Gram, Reduce, gram, guard_coefficients
from ..schema.recipe import TrainingSection

_BUCKET = 1_000_000  # weights whose direction and update exist at one time
_ROUNDING = 1e-6  # a first-order change this small beside ||update|| ||g|| is not a violation


@dataclass(frozen=True)
class Update:
    """An update U that the weights took, as the objectives see it.

    Attributes:
        changes: term -> U . g, the first-order change of its objective; negative is good.
        norms: term -> ||g||; empty unless there are two gradients.
        size: ||U||, before the guard.
    """

    changes: dict[str, float]
    norms: dict[str, float]
    size: float

    def violates(self, term: str) -> bool:
        """True if an objective got worse by more than rounding."""
        return self.changes.get(term, 0.0) > _ROUNDING * self.size * self.norms.get(term, 0.0)


@torch.no_grad()
def take_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    direction: Combination,
    spec: TrainingSection,
    reduce: Reduce,
) -> Update:
    """Step against a direction, bucket by bucket.

    Args:
        optimizer: makes the update of what lies in `.grad`.
        parameters: the weights that it holds, in the direction's order.
        direction: used up, unless the guard needs its gradients once more.
        spec: `max_grad_norm` and `guard`.
        reduce: adds products over the processes.
    """
    scale, terms = _clip_scale(direction, spec.max_grad_norm, reduce), direction.terms
    products = torch.zeros(1, 1 + len(terms), dtype=torch.float64)
    for bucket in _buckets(parameters):
        held = [parameters[index] for index in bucket]
        update = [parameter.detach().clone() for parameter in held]
        for index, parameter in zip(bucket, held, strict=True):
            parameter.grad = direction[index] if scale is None else direction[index] * scale
        optimizer.step()
        for parameter in held:
            parameter.grad = None
        for old, parameter in zip(update, held, strict=True):
            torch.sub(parameter.detach(), old, out=old)
        gradients = ([direction.gradient(term, index) for index in bucket] for term in terms)
        products += gram([update, *gradients], rows=1).sum(0)
        if not spec.guard:
            for index in bucket:
                direction.release(index)
    squared, *values = reduce(products)[0].tolist()
    changes, known = dict(zip(terms, values, strict=True)), direction.gram
    if known is None:
        return Update(changes, {}, squared**0.5)
    if spec.guard:
        changes = _guard(parameters, direction, known, changes)
    return Update(changes, {"forget": known.ff**0.5, "retain": known.rr**0.5}, squared**0.5)


def _guard(
    parameters: Sequence[nn.Parameter], direction: Combination, known: Gram, changes: dict[str, float]
) -> dict[str, float]:
    """Take out of the step what raises an objective; gives the changes that remain."""
    mu, nu = guard_coefficients(known, changes["forget"], changes["retain"])
    if mu or nu:
        for index, parameter in enumerate(parameters):
            for term, factor in (("forget", mu), ("retain", nu)):
                parameter.add_(direction.gradient(term, index), alpha=-factor)
    return {
        "forget": changes["forget"] - mu * known.ff - nu * known.fr,
        "retain": changes["retain"] - mu * known.fr - nu * known.rr,
    }


def _clip_scale(direction: Combination, largest: float | None, reduce: Reduce) -> float | None:
    if largest is None:
        return None
    norm = gram([direction], reduce=reduce).sum().item() ** 0.5
    return min(1.0, largest / max(norm, 1e-12))


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[int]]:
    """Indices of parameters, small ones first: the largest come when most gradients have been freed."""
    bucket: list[int] = []
    size = 0
    for index in sorted(range(len(parameters)), key=lambda index: parameters[index].numel()):
        count = parameters[index].numel()
        if bucket and size + count > _BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(index)
        size += count
    yield bucket

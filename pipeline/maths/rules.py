"""Rules that make one direction of a forget and a retain gradient.

A rule for two objectives is decided by three inner products, ||g_f||^2, ||g_r||^2 and c = g_f . g_r: it gives two
numbers a and b, and the direction is a g_f + b g_r. Only `sago` looks at single entries.

Conventions, stated once.

- Signs: both objectives go down, and the weights step *against* the direction d. To first order a step does not
  raise an objective if d . g >= 0. "Raises neither" is said of plain gradient steps; Adam rescales and remembers.
- lambda (`retain_weight`) is a preference: the weight of L_r in L_f + lambda L_r. Rules with a place for a preference
  take (1, lambda) there. `bisector` and `mgda` have none, because they balance the two by themselves.
- Length: that of the sum, so that one learning rate serves. Two equal gradients and lambda = 1 give g_f + g_r; with
  CAGrad, which goes on from there, 1 + c times that, and with `sago` g_f. Where a publication's weights add up to 1
  (IMTL-G, MGDA, CAGrad), they are doubled here. Adam doesn't notice a factor that never changes, but its moments
  average over steps, so it does notice lengths that change from step to step.
- Zero: where one gradient is zero, as that of a truncated ascent is, the other is taken alone, with the weight that
  it has in the sum (`bisector` and `mgda`: 1). No rule divides by zero.
"""

from collections.abc import Callable, Mapping
from math import sqrt

import torch
from torch import Tensor

from .gradients import Combination, Gradient, Gram, Reduce, Tensors, at_least_float, gram

CAGRAD_RADIUS = 0.5
"""c of CAGrad: how far the direction may lie from the sum, as a share of the sum's length."""

_PARALLEL = 1e-12  # gradients with so small a sine squared have one direction
_RANK = 2 * torch.finfo(torch.float64).eps  # eigenvalues that are smaller, beside the largest, are zero

Coefficients = tuple[float, float]
"""(a, b) of a direction a g_f + b g_r."""


def plain(gram: Gram, retain_weight: float) -> Coefficients:
    """g_f + lambda g_r, the gradient of L_f + lambda L_r (GradDiff, Liu et al. 2022). May raise either of both."""
    return 1.0, retain_weight


def restricted(gram: Gram, retain_weight: float) -> Coefficients:
    """delta_f + lambda delta_r (Ko et al. 2024, Eq. 4). Raises neither objective.

    Where c = g_f . g_r < 0 each gradient loses its component along the other:

        delta_f = g_f - c / ||g_r||^2 g_r,    delta_r = g_r - c / ||g_f||^2 g_f,

    so a = 1 - lambda c / ||g_f||^2 and b = lambda - c / ||g_r||^2. Elsewhere delta = g.

    With lambda = 1 this is PCGrad (Yu et al. 2020), whose random order two gradients don't notice. With any lambda it
    is UPGrad (Quinton and Rey 2024) with the preference (1, lambda), so twice UPGrad with equal ones.
    """
    if not gram.conflict or gram.ff <= 0 or gram.rr <= 0:
        return 1.0, retain_weight
    return 1.0 - retain_weight * gram.fr / gram.ff, retain_weight - gram.fr / gram.rr


def bisector(gram: Gram, retain_weight: float) -> Coefficients:
    """H (g_f / ||g_f|| + g_r / ||g_r||), h the harmonic mean of both lengths. Raises neither objective.

    For two objectives this is the direction of IMTL-G (Liu et al. 2021, equal projections on both gradients), of
    Nash-MTL (Navon et al. 2022, whose solution of G a = 1 / a has a_i proportional to 1 / ||g_i||), and of MUNBa
    (Wu and Harandi 2024). The length is twice that of IMTL-G, whose weights add up to 1: a gradient that explodes can't
    make the step longer than four times the other one, and doesn't turn it. lambda has no effect.
    """
    if gram.ff <= 0 or gram.rr <= 0:
        return 1.0, 1.0
    forget, retain = sqrt(gram.ff), sqrt(gram.rr)
    return 2 * retain / (forget + retain), 2 * forget / (forget + retain)


def mgda(gram: Gram, retain_weight: float) -> Coefficients:
    """2 (w g_f + (1 - w) g_r), the shortest of all mixtures, doubled (Désidéri 2012; Sener and Koltun 2018).

        w = clip((||g_r||^2 - c) / ||g_f - g_r||^2, 0, 1)

    Lowers both objectives at the same rate, or by the shorter gradient alone if that lowers the other one more. Raises
    neither. Where no step lowers both it is zero. The shorter gradient dominates; lambda has no effect.
    """
    if gram.ff <= 0 or gram.rr <= 0:
        return 1.0, 1.0
    between = gram.ff + gram.rr - 2 * gram.fr  # ||g_f - g_r||^2
    share = _clip((gram.rr - gram.fr) / between) if between > _PARALLEL * (gram.ff + gram.rr) else 0.5
    return 2 * share, 2 * (1 - share)


def cagrad(gram: Gram, retain_weight: float) -> Coefficients:
    """The direction near the sum that helps the worse-off objective most (Liu et al. 2021, "CAGrad").

    With g_0 = g_f + lambda g_r and g_w = w g_f + (1 - w) g_r,

        d = g_0 + c ||g_0|| / ||g_w|| g_w,    w = argmin over [0, 1] of g_w . g_0 + c ||g_0|| ||g_w||,

    which maximises min(d . g_f, d . g_r) over the ball ||d - g_0|| <= c ||g_0||, c = `CAGRAD_RADIUS`. The function of w
    is convex, and its derivative has a root in closed form. With c < 1 it may still raise an objective.
    """
    if gram.ff <= 0 or gram.rr <= 0:
        return 1.0, retain_weight
    radius = CAGRAD_RADIUS * sqrt(_squared(gram, 1.0, retain_weight))
    slope = (gram.ff - gram.fr) + retain_weight * (gram.fr - gram.rr)  # of g_w . g_0
    between = gram.ff + gram.rr - 2 * gram.fr
    # ||g_w||^2 = (u^2 + determinant) / between with u = between w - (||g_r||^2 - c)
    determinant = max(0.0, gram.ff * gram.rr - gram.fr * gram.fr)
    if between <= _PARALLEL * (gram.ff + gram.rr):
        share = 0.5
    elif slope * slope >= between * radius * radius:
        share = 0.0 if slope > 0 else 1.0
    else:
        sine = -slope / (radius * sqrt(between))
        share = _clip((sine * sqrt(determinant / (1 - sine * sine)) + gram.rr - gram.fr) / between)
    shortest = _squared(gram, share, 1 - share)
    if shortest <= 0:
        return 1.0, retain_weight
    pull = radius / sqrt(shortest)
    return 1.0 + pull * share, retain_weight + pull * (1 - share)


def aligned(gram: Gram, retain_weight: float) -> Coefficients:
    """The sum of the two gradients after they were made orthogonal and of one length (Senushkin et al. 2023).

        (a, b) = s M^(-1/2) (1, lambda),    M the Gram matrix, s^2 its smallest eigenvalue,

    which replaces the singular values of the pair by the smaller one ("Aligned-MTL" with its minimum scale). For two
    objectives M^(1/2) has a closed form. May raise an objective whose weight is small. Between nearly parallel or
    opposite gradients the common length goes to 0; those that are exactly so have one singular value, which stays.
    """
    trace, determinant = gram.ff + gram.rr, gram.ff * gram.rr - gram.fr * gram.fr
    if gram.ff <= 0 or gram.rr <= 0:
        return 1.0, retain_weight
    largest = (trace + sqrt((gram.ff - gram.rr) ** 2 + 4 * gram.fr * gram.fr)) / 2
    if determinant <= _RANK * largest * largest:
        table, scale = (gram.ff, gram.fr, gram.rr), trace
    else:
        root = sqrt(determinant)
        table, scale = (gram.rr + root, -gram.fr, gram.ff + root), sqrt((trace + 2 * root) * largest)
    return (table[0] + retain_weight * table[1]) / scale, (table[1] + retain_weight * table[2]) / scale


def retain_first(gram: Gram, retain_weight: float) -> Coefficients:
    """(g_f - min(c, 0) / ||g_r||^2 g_r) + lambda g_r: only the forget gradient gives way. Never raises L_r.

    The one-sided PCGrad of Xiao et al. 2026 ("Modeling LLM unlearning as an asymmetric two-task problem"), and the
    rectified gradient of GRU (Wang et al. 2025) beside the retain gradient. L_f rises where lambda g_r outweighs what
    is left of g_f.
    """
    if not gram.conflict or gram.rr <= 0:
        return 1.0, retain_weight
    return 1.0, retain_weight - gram.fr / gram.rr


Rule = Callable[[Gram, float], Coefficients]
"""The three inner products and lambda in, the coefficients of g_f and g_r out."""

BY_GRAM: Mapping[str, Rule] = {
    "sum": plain,
    "restricted": restricted,
    "bisector": bisector,
    "mgda": mgda,
    "cagrad": cagrad,
    "aligned": aligned,
    "retain_first": retain_first,
}
"""Name -> the rule; `combine` takes it for all weights together or for each tensor."""

MEASURING = frozenset(BY_GRAM) - {"sum"}
"""Names of the rules that read inner products, which may be those of another metric."""


def combine(
    grads: Mapping[str, Gradient],
    rule: Rule = plain,
    retain_weight: float = 1.0,
    *,
    per_layer: bool = False,
    weights: Tensors | None = None,
    mask: Tensors | None = None,
    reduce: Reduce | None = None,
) -> Combination:
    """The direction of a rule, to be stepped against.

    Args:
        grads: {"forget": g_f, "retain": g_r}, of the same shapes.
        rule: of `BY_GRAM`.
        retain_weight: lambda, >= 0.
        per_layer: apply the rule to each tensor by its own inner products instead of the global ones.
        weights: diagonal metric of the rule's inner products, see `gram`. What a rule promises then holds for the
            step that this metric scales.
        mask: see `Combination`; not beside `weights`.
        reduce: see `gram`.
    """
    both = [grads["forget"], grads["retain"]]
    euclidean = gram(both, mask, reduce)
    metric = euclidean if weights is None else gram(both, weights, reduce)
    tables = metric if per_layer else metric.sum(0, keepdim=True)
    pairs = [rule(Gram.of(table), retain_weight) for table in tables]
    pairs = pairs if per_layer else pairs * len(metric)
    return Combination(
        {"forget": grads["forget"], "retain": grads["retain"]},
        {"forget": [a for a, _ in pairs], "retain": [b for _, b in pairs]},
        Gram.of(euclidean.sum(0)),
        mask,
    )


class SignGated(Combination):
    """SAGO (Xiao et al. 2026): entry by entry, g_f where it has the sign of g_r, else lambda g_r.

    An entry of g_r that is zero objects to nothing. One of g_f that is zero asks for nothing, so lambda g_r stands
    there, and a truncated ascent is a step of the retain gradient. (Their code leaves such entries at zero.) Never
    raises L_r: each entry of the direction has the sign of g_r or meets a zero.
    """

    def __getitem__(self, index: int) -> Tensor:
        """Tensor `index` of the direction, in the gradients' dtype."""
        part = self.grads["forget"][index]
        forget, retain = at_least_float(part), at_least_float(self.grads["retain"][index])
        agree = ((forget > 0) & (retain >= 0)) | ((forget < 0) & (retain <= 0))
        return torch.where(agree, forget, retain * self.coefficients["retain"][index]).to(part.dtype)


def sign_gated(grads: Mapping[str, Gradient], retain_weight: float, reduce: Reduce | None = None) -> SignGated:
    """`sago`, with the inner products that records and the guard ask for."""
    known = Gram.of(gram([grads["forget"], grads["retain"]], reduce=reduce).sum(0))
    return SignGated(grads, {"forget": 1.0, "retain": retain_weight}, known)


def _squared(gram: Gram, a: float, b: float) -> float:
    """||a g_f + b g_r||^2, not below 0."""
    return max(0.0, a * a * gram.ff + 2 * a * b * gram.fr + b * b * gram.rr)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)

"""Edits of linear layers in closed form: what W reads of some inputs is replaced, what it reads of others stays.

All of them work on mean second moments of the inputs, D the width of an input:

    F = E[f f^T],  A = E[a f^T],  P = E[p p^T]

f an input to be replaced, a what stands for it (its anchor), p one to be preserved. Every formula here is of inputs
with a mean square of 1 an entry over the preserved ones, so that a weight of regularisation means the same for every
text encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .double import double

KEPT_ROWS, _KEPT_AT_ONCE = 4096, 256
"""Preserved inputs of which `Moments` keeps a copy, in all and of a batch: SPEED chooses among them."""

INVARIANT_SHARE = 0.99
"""Of the invariants, the principal directions with this share of their squared length are held."""


@dataclass
class Moments:
    """Second moments of the inputs of layers that read the same, gathered batch by batch, in float64 on the CPU.

    Attributes:
        forget: sum of f f^T, (D, D).
        anchor: sum of a f^T, (D, D).
        aims: sum of a a^T, (D, D).
        preserved: sum of p p^T, (D, D).
        pairs: how many f were seen.
        others: how many p were seen.
        kept: some of the p, parts of (n, D).
        invariants: inputs that SPEED holds fixed, (n, D).
    """

    forget: Tensor
    anchor: Tensor
    aims: Tensor
    preserved: Tensor
    pairs: int = 0
    others: float = 0
    kept: list[Tensor] = field(default_factory=list)
    invariants: Tensor | None = None

    @classmethod
    def of_width(cls, width: int) -> "Moments":
        """Nothing seen yet, of inputs with `width` entries."""
        forget, anchor, aims, preserved = torch.zeros(4, width, width, dtype=torch.float64)
        return cls(forget, anchor, aims, preserved)

    def see_pairs(self, forget: Tensor, anchor: Tensor) -> None:
        """Take in what is to be replaced and what stands for it, both (..., D), row by row."""
        f, a = _rows(forget), _rows(anchor)
        self.forget += f.T @ f
        self.anchor += a.T @ f
        self.aims += a.T @ a
        self.pairs += len(f)

    def see_preserved(self, inputs: Tensor, weight: float = 1.0) -> None:
        """Take in what is to stay, (..., D), each counted `weight` times."""
        p = _rows(inputs)
        self.preserved += weight * (p.T @ p)
        self.others += weight * len(p)
        self.kept.append(p[:: max(1, len(p) // _KEPT_AT_ONCE)])

    def scaled(self) -> "Moments":
        """Means instead of sums, of inputs whose preserved ones have a mean square of 1 an entry.

        Raises:
            ValueError: nothing was seen, or nothing but zeros.
        """
        if not self.pairs or not self.others or not self.preserved.trace() > 0:
            raise ValueError("moments need pairs and preserved inputs that are not zero.")
        square = (self.preserved.trace() / self.others / len(self.preserved)).item()
        rows = torch.cat(self.kept)
        rows = rows[:: max(1, -(-len(rows) // KEPT_ROWS))]
        return Moments(
            self.forget / self.pairs / square,
            self.anchor / self.pairs / square,
            self.aims / self.pairs / square,
            self.preserved / self.others / square,
            1,
            1,
            [rows / square**0.5],
            None if self.invariants is None else self.invariants / square**0.5,
        )

    def seen_as(self, by: Tensor, hold: float = 0.0) -> "Moments":
        """The moments if every f were B f, B (D, D), and the f as they are were preserved too, `hold` times."""
        preserved = self.preserved + hold * self.forget
        return Moments(by @ self.forget @ by.T, self.anchor @ by.T, self.aims, preserved, 1, 1, self.kept)

    def distance(self, after: Tensor, before: Tensor) -> float:
        """E ||W' f - W a||^2, the distance of what W' reads of f from what W reads of a.

        Args:
            after: W', (O, D).
            before: W, (O, D).
        """
        cross = ((after @ self.anchor.T) * before).sum()
        return (((after @ self.forget) * after).sum() - 2 * cross + ((before @ self.aims) * before).sum()).item()


def _rows(inputs: Tensor) -> Tensor:
    return double(inputs).flatten(0, -2)


def moved_share(before: Sequence[Tensor], after: Sequence[Tensor], moments: Moments) -> tuple[float, float]:
    """How far layers went from what they read of f towards what they read of its anchor.

    Args:
        before: W of each layer, (O, D).
        after: W' of each layer.
        moments: scaled.

    Returns:
        The distance that was covered, and the whole distance, both E ||.||^2 summed over the layers. Where pairs
        with the same f have different anchors, no layer can cover all of it.
    """
    whole = sum(moments.distance(w, w) for w in before)
    left = sum(moments.distance(new, w) for new, w in zip(after, before, strict=True))
    return whole - left, whole


def uce_map(moments: Moments, erase_scale: float, preserve_scale: float, lamb: float) -> Tensor:
    """T of the edit W' = W T of UCE (Gandikota et al. 2024, Eq. 7), the same for every W that reads these inputs.

    W' is the minimiser of

        e E ||W' f - W a||^2 + s E ||W' p - W p||^2 + lamb ||W' - W||^2,

    which is W' = W (e A + s P + lamb I) (e F + s P + lamb I)^-1.

    Args:
        moments: scaled.
        erase_scale: e.
        preserve_scale: s.
        lamb: the weight of the regularisation, above 0.

    Returns:
        T, (D, D).
    """
    identity = torch.eye(len(moments.forget), dtype=torch.float64)
    held = preserve_scale * moments.preserved + lamb * identity
    # X M^-1 = (M^-1 X^T)^T, as M is symmetric
    return torch.linalg.solve(erase_scale * moments.forget + held, (erase_scale * moments.anchor + held).T).T


def revived_map(gram: Tensor, edit: Tensor, regularisation: float) -> Tensor:
    """R that gives, of an input c, the input R c that the edited layers read as the original ones read c.

    RECE's search for the embedding that still draws the concept (Gong et al. 2024, Eqs. 7 and 8): the minimiser of
    sum_l ||W_l T c' - W_l c||^2 + lambda ||c'||^2 over the layers l, which is linear in c. Its weight is of layers
    whose gram matrix has a mean of 1 on its diagonal.

    Args:
        gram: sum_l W_l^T W_l, (D, D).
        edit: T, (D, D).
        regularisation: lambda, above 0.
    """
    gram = gram / (gram.trace() / len(gram))
    identity = torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve(edit.T @ gram @ edit + regularisation * identity, edit.T @ gram)


def rece_map(
    moments: Moments,
    gram: Tensor,
    erase_scale: float,
    preserve_scale: float,
    lamb: float,
    rounds: int,
    regularisation: float,
) -> Tensor:
    """T of RECE: UCE, then `rounds` times UCE again on the embeddings that still draw the concept.

    Each round preserves what the forget prompts already read as, as much as what is to be kept: without that, a round
    on the new embeddings undoes those before.

    Args:
        moments: scaled.
        gram: see `revived_map`.
        erase_scale: see `uce_map`, with `preserve_scale` and `lamb`.
        preserve_scale: see there.
        lamb: see there.
        rounds: how often the concept is looked for again.
        regularisation: see `revived_map`.
    """
    edit = uce_map(moments, erase_scale, preserve_scale, lamb)
    for _ in range(rounds):
        revived = moments.seen_as(revived_map(gram, edit, regularisation), hold=1.0)
        edit = edit @ uce_map(revived, erase_scale, preserve_scale, lamb)
    return edit


@dataclass(frozen=True)
class Speed:
    """The options of SPEED (Li et al. 2026) for one layer.

    Attributes:
        threshold: eigenvalues of the preserved inputs' second moment below it count as zero.
        retain_scale: weight of the change's size.
        lamb: how much the invariants may move; 0 holds them exactly.
        aug_num: copies of each preserved input with noise along what the layer reads least.
    """

    threshold: float
    retain_scale: float
    lamb: float
    aug_num: int

    def edited(self, weight: Tensor, moments: Moments, generator: torch.Generator) -> Tensor:
        """W' of one layer.

        W' = W + D P' with D P' zero on what is preserved: the minimiser of

            E ||(W + D P) f - W a||^2 + retain_scale ||D P||^2   with   D P c = 0 for the invariants c,

        P the projection on the null space of the preserved inputs. They are those that the plain edit would move
        more than the mean (influence-based prior filtering), and copies of them (directed prior augmentation).
        With lambda above 0 the invariants are held by a penalty.

        Args:
            weight: W, (O, D), float64.
            moments: scaled.
            generator: of the augmentation's noise.
        """
        identity = torch.eye(weight.shape[1], dtype=torch.float64)
        towards = moments.anchor - moments.forget
        plain = weight @ torch.linalg.solve(identity + moments.forget, towards.T).T
        kept = self._kept(weight, plain, torch.cat(moments.kept), generator)
        values, vectors = torch.linalg.eigh(kept)
        null = vectors[:, values < self.threshold]
        # in coordinates of the null space the formula with P becomes one of small symmetric matrices
        inside = null.T @ moments.forget @ null + self.retain_scale * torch.eye(null.shape[1], dtype=torch.float64)
        step = torch.linalg.solve(inside, (weight @ towards @ null).T).T
        if moments.invariants is not None and null.shape[1]:
            step = self._held(step, inside, null.T @ moments.invariants.T)
        return weight + step @ null.T

    def _kept(self, weight: Tensor, plain: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The second moment of the refined preserved inputs, (D, D).

        A copy is c + z v, z standard normal and v the direction that the layer reads least, so its share of the
        moment follows from that of c, without the copy itself.
        """
        read = rows @ plain.T
        chosen = _above_mean(read.square().sum(1))
        rows, read = rows[chosen], read[chosen]
        least = torch.linalg.eigh(weight.T @ weight).eigenvectors[:, 0]
        moved = plain @ least
        noise = torch.randn(self.aug_num, len(rows), generator=generator, dtype=torch.float64)
        lengths = read.square().sum(1) + 2 * noise * (read @ moved) + noise.square() * moved.square().sum()
        noise, copied = noise * _above_mean(lengths), _above_mean(lengths).sum(0)
        count, cross = 1.0 + copied, torch.outer(rows.T @ noise.sum(0), least)
        total = (rows * count[:, None]).T @ rows + cross + cross.T + noise.square().sum() * torch.outer(least, least)
        return total / count.sum()

    def _held(self, step: Tensor, inside: Tensor, invariants: Tensor) -> Tensor:
        """The step with the invariants, (k, n) in the null space's coordinates, held: Lagrange, or a penalty."""
        basis, sizes, _ = torch.linalg.svd(invariants, full_matrices=False)
        share = (sizes**2).cumsum(0) / (sizes**2).sum().clamp(min=1e-30)
        basis = basis[:, : int((share < INVARIANT_SHARE).sum()) + 1]
        across = torch.linalg.solve(inside, basis)
        small = basis.T @ across + self.lamb * torch.eye(basis.shape[1], dtype=torch.float64)
        return step - (step @ basis) @ torch.linalg.solve(small, across.T)


def _above_mean(squares: Tensor) -> Tensor:
    """Which lengths, given as their squares, are above their mean; all where none is."""
    lengths = squares.clamp(min=0).sqrt()
    above = lengths > lengths.mean() if lengths.numel() else lengths > 0
    return above if above.any() else torch.ones_like(above)

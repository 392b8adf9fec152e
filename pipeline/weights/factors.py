"""Low-rank factors: from a difference of weights by singular values, and back."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..maths.double import double
from ..schema.results import LoraFit
from ..support.errors import UserError
from ..support.progress import Progress


@dataclass(frozen=True)
class Factors:
    """One layer of a LoRA: W + (alpha / rank) up down (Hu et al. 2021, section 4.1).

    Attributes:
        up: (out, rank), or (out, rank, 1, 1) for a convolution.
        down: (rank, in), or (rank, in, height, width).
        alpha: scale; `alpha / rank` multiplies the product.
    """

    up: Tensor
    down: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return self.down.shape[0]

    def product(self) -> Tensor:
        """(alpha / rank) up down, float32, (out, in, …)."""
        flat = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return (flat * (self.alpha / self.rank)).reshape(self.up.shape[0], *self.down.shape[1:])


@dataclass(frozen=True)
class Adapter:
    """A LoRA of a whole network: layer name (diffusers) -> factors, and how well it fits."""

    layers: dict[str, Factors]
    fit: LoraFit


def low_rank(matrix: Tensor, rank: int, energy: float | None = None) -> tuple[Tensor, Tensor]:
    """The closest factors of a rank (Eckart and Young 1936), the singular values shared between them.

    Args:
        matrix: (out, in).
        rank: at most this many singular values are kept.
        energy: in (0, 1]; as many as hold this share of the sum of squares, instead of `rank`.

    Returns:
        up (out, r) and down (r, in) with up @ down ~ matrix, r >= 1.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    if energy is not None:
        squares = double(values).square()
        share = squares.cumsum(0) / squares.sum()
        rank = int((share < energy * (1 - 1e-12)).sum()) + 1
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    return left[:, :kept] * root, root[:, None] * right[:kept]


def extract(
    module: nn.Module, difference: Mapping[str, Tensor], rank: int, energy: float | None, progress: Progress
) -> Adapter:
    """A LoRA for every Linear and Conv2d whose weight changed; alpha is each layer's rank.

    Args:
        module: the network, for the kinds of its layers.
        difference: weight name -> change; what has no place in a LoRA is reported, see `LoraFit`.
        rank: see `low_rank`.
        energy: see `low_rank`.
        progress: told of every layer.

    Raises:
        UserError: nothing that a LoRA can hold has changed.
    """
    places = {
        f"{name}.weight": name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    layers: dict[str, Factors] = {}
    left_out: dict[str, int] = {}
    inside, missed, outside = 0.0, 0.0, 0.0
    with progress.stage("extracting the LoRA", len(difference)) as advance:
        for name, change in difference.items():
            size = double(change).square().sum().item()
            if size and name in places:
                up, down = low_rank(change.flatten(1), rank, energy)
                inside += size
                missed += double(change.flatten(1) - up @ down).square().sum().item()
                layers[places[name]] = _shaped(up, down, change.shape)
            elif size:
                outside += size
                kind = "biases" if name.endswith(".bias") and f"{name[:-5]}.weight" in places else "norms and others"
                left_out[kind] = left_out.get(kind, 0) + 1
            advance(1)
    if not layers:
        raise UserError("a LoRA needs a changed Linear or Conv2d weight, and none differs from the base's.")
    fit = LoraFit(
        layers=len(layers),
        rank=max(factors.rank for factors in layers.values()),
        residual=(missed / inside) ** 0.5,
        left_out=left_out,
        left_out_share=outside / (inside + outside),
    )
    return Adapter(layers, fit)


def _shaped(up: Tensor, down: Tensor, shape: torch.Size) -> Factors:
    rank = down.shape[0]
    if len(shape) == 4:
        up, down = up[:, :, None, None], down.reshape(rank, *shape[1:])
    return Factors(up, down, float(rank))

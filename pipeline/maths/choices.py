"""Choices that the formulas offer by name. Nothing is imported here, so that a schema can name them."""

from typing import TYPE_CHECKING, Literal

TrainableParameters = Literal["full", "xattn", "noxattn", "lora"]
"""Which weights train; see `parameters.select_parameters`."""

GradientKeeping = Literal["whole", "bf16", "cpu"]
"""How the forget gradient waits for the retain one: as it is, rounded to bf16, or on the CPU."""

RULES = {
    "sum": "the plain sum",
    "restricted": "each loses its part against the other, Eq. 4",
    "bisector": "both count alike, however long (Nash-MTL, MUNBa)",
    "mgda": "the shortest vector between them",
    "cagrad": "near the sum, but minding the worse-off",
    "aligned": "as if they were orthogonal and of one length",
    "retain_first": "only the forget gradient loses its part",
    "sago": "entry by entry, the retain gradient where signs differ",
    "budget": "hold the retain loss to `budget` percent above what it was",
    "famo": "weights from the losses of successive steps, one gradient in memory",
}
"""Rules that combine a forget and a retain gradient, and what each does; `rules` has the formulas."""

if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = Literal[tuple(RULES)]

"""Fig. 2: the plain sum of the two gradients and the restricted gradient, in the plane that they span."""

from collections.abc import Mapping, Sequence
from math import acos, degrees, hypot, sqrt
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ...pipeline.maths.gradients import Gram
from ...pipeline.maths.rules import restricted
from ...pipeline.schema.defaults import stored_recipe
from ..canvas import bench, settings_of
from ..show import figure
from ..table import Cell, Figures, Options, Record, Table

CONCEPT = "astronaut"
STEPS = 60

Vector = tuple[float, float]


def cells(options: Options) -> list[Cell]:
    """One run of RGD, its gradients' norms and angle at every step."""
    changes = {} if options.quick else {"training": {"steps": STEPS}}
    return [_cell(settings_of("rgd", CONCEPT, seed, options, changes), seed) for seed in options.seeds]


def _cell(settings: dict[str, Any], seed: int) -> Cell:
    return Cell(f"rgd/{CONCEPT}/seed {seed}", {"row": "rgd"}, seed, settings, lambda progress: _measure(settings))


def _measure(settings: Mapping[str, Any]) -> Figures:
    recipe = stored_recipe(settings)
    trainer = bench(recipe.model).trainer(recipe)
    trainer.train()
    fields = ("step", "norm_forget", "norm_retain", "cosine", "truncated")
    return {"steps": [{field: getattr(event, field) for field in fields} for event in trainer.events]}


def plane(norm_forget: float, norm_retain: float, cosine: float, retain_weight: float) -> dict[str, Vector]:
    """Return vectors in the plane of two gradients, with the retain gradient on the first axis.

    Three inner products determine all angles and lengths, so this is a true picture of the long vectors.

    Args:
        norm_forget: ||g_f||.
        norm_retain: ||g_r||.
        cosine: of the angle between them.
        retain_weight: lambda.

    Returns:
        forget (g_f), retain (g_r), delta_forget and delta_retain (Eq. 4), sum (g_f + lambda g_r), restricted
        (delta_f + lambda delta_r). An update goes *against* the last two.
    """
    gram = Gram(norm_forget**2, norm_retain**2, cosine * norm_forget * norm_retain)
    forget = (norm_forget * cosine, norm_forget * sqrt(max(0.0, 1 - cosine**2)))
    retain = (norm_retain, 0.0)

    def combine(a: float, b: float) -> Vector:
        return a * forget[0] + b * retain[0], a * forget[1] + b * retain[1]

    one, weight = restricted(gram, 0.0), restricted(gram, retain_weight)
    projected = combine(*one)  # lambda = 0 leaves delta_f alone
    whole = combine(*weight)
    rest = (
        tuple((x - y) / retain_weight for x, y in zip(whole, projected, strict=True)) if retain_weight else (0.0, 0.0)
    )
    return {
        "forget": forget,
        "retain": retain,
        "delta_forget": projected,
        "delta_retain": (rest[0], rest[1]),
        "sum": combine(1.0, retain_weight),
        "restricted": whole,
    }


def raises(vectors: Mapping[str, Vector], direction: str) -> list[str]:
    """Name the losses that a step against `direction` raises to first order."""
    return [
        name
        for name in ("forget", "retain")
        if _dot(vectors[direction], vectors[name]) < -1e-9 * hypot(*vectors[direction]) * hypot(*vectors[name])
    ]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Draw one step, and write the effect that the plain sum would have had over all steps."""
    record = next(iter(records.values()))
    weight = record.settings["method"]["retain_weight"]
    steps = [step for one in records.values() for step in one.figures["steps"]]
    usable = [step for step in steps if not step["truncated"]]
    ranked = sorted((step for step in usable if step["cosine"] < 0), key=lambda step: step["cosine"])
    shown = ranked[len(ranked) // 2] if ranked else steps[0]
    vectors = _plane(shown, weight)

    def draw(axes: Sequence[Axes]) -> None:
        for axis, title, parts, whole in (
            (axes[0], "(a) plain sum", ("forget", "retain"), "sum"),
            (axes[1], "(b) restricted gradient", ("delta_forget", "delta_retain"), "restricted"),
        ):
            _arrows(axis, vectors, parts, whole)
            axis.set_title(title)

    image = figure(folder / "update.svg", draw, columns=2, size=(8, 4))
    angles = {
        direction: {name: _angle(vectors[direction], vectors[name]) for name in ("forget", "retain")}
        for direction in ("sum", "restricted")
    }
    return (
        f"The drawing shows the gradients of one step of RGD on {CONCEPT!r}, with λ = {weight:g}, in the plane that "
        "they span. Of the steps in which they conflict and nothing is truncated, it is the one with the median angle "
        f"(step {shown['step'] + 1}, cosine {shown['cosine']:+.3f}, norms {shown['norm_forget']:.3g} and "
        f"{shown['norm_retain']:.3g}). Every vector is divided by the length of its own gradient, or drawn at length "
        "1, so that angles can be seen. The update is gray, as in the paper's Fig. 2, and points in the direction that "
        "the step goes against.\n\n"
        f"![The plane of the update]({image})\n\n"
        f"The plain sum makes {angles['sum']['forget']:.1f}° with the forget gradient and "
        f"{angles['sum']['retain']:.1f}° with the retain gradient, the restricted gradient "
        f"{angles['restricted']['forget']:.1f}° and {angles['restricted']['retain']:.1f}°. Beyond 90° a loss "
        "rises.\n\n"
        f"{verdict([_plane(step, weight) for step in steps], [step['cosine'] < 0 for step in steps])}"
    )


def verdict(planes: Sequence[Mapping[str, Vector]], conflicts: Sequence[bool]) -> str:
    """Count the steps in conflict in which each direction would raise a loss."""
    conflicting = [vectors for vectors, conflict in zip(planes, conflicts, strict=True) if conflict]
    if not conflicting:
        return f"The gradients conflict in none of {len(planes)} steps, so both directions are the same."
    counts = {
        direction: {
            loss: sum(loss in raises(vectors, direction) for vectors in conflicting) for loss in ("forget", "retain")
        }
        for direction in ("sum", "restricted")
    }
    told = "; ".join(
        f"{name} raises the forget loss in {counts[key]['forget']} and the retain loss in {counts[key]['retain']}"
        for key, name in (("sum", "the plain sum"), ("restricted", "the restricted gradient"))
    )
    holds = not any(counts["restricted"].values()) and any(counts["sum"].values())
    return (
        f"The gradients conflict in {len(conflicting)} of {len(planes)} steps. Of these, {told} (to first order, "
        f"before Adam). The difference that the paper's Fig. 2 shows {'holds' if holds else 'does not hold'} here."
    )


def _plane(step: Mapping[str, Any], weight: float) -> dict[str, Vector]:
    return plane(step["norm_forget"], step["norm_retain"], step["cosine"], weight)


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1]


def _angle(a: Vector, b: Vector) -> float:
    size = hypot(*a) * hypot(*b)
    return degrees(acos(max(-1.0, min(1.0, _dot(a, b) / size)))) if size else 0.0


def _arrows(axis: Axes, vectors: Mapping[str, Vector], parts: Sequence[str], whole: str) -> None:
    sizes = {name: hypot(*vectors[name]) or 1.0 for name in ("forget", "retain", whole)}
    unit = {name: (vectors[name][0] / size, vectors[name][1] / size) for name, size in sizes.items()}
    _arrow(axis, unit[whole], "gray", "update", width=3.5)
    for name, gradient, colour in (("L_f", "forget", "C3"), ("L_r", "retain", "C0")):
        _arrow(axis, unit[gradient], colour, f"∇{name}", alpha=1.0 if gradient in parts else 0.3)
    for part, gradient, colour, label in zip(parts, ("forget", "retain"), ("C3", "C0"), ("δ_f", "δ_r"), strict=True):
        if part != gradient:
            scaled = vectors[part][0] / sizes[gradient], vectors[part][1] / sizes[gradient]
            _arrow(axis, scaled, colour, label)
    axis.set_aspect("equal")
    axis.set_xlim(-1.25, 1.25)
    axis.set_ylim(-0.35, 1.2)
    axis.axis("off")


def _arrow(axis: Axes, to: Vector, colour: str, label: str, alpha: float = 1.0, width: float = 1.5) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "alpha": alpha, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", xy=to, xytext=(0, 0), arrowprops=style)
    axis.text(1.12 * to[0], 1.12 * to[1], label, color=colour, alpha=alpha, ha="center", va="center")


TABLE = Table("Directions of the update (Fig. 2)", cells, page)

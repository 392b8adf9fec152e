"""Every rule for two gradients with every forget loss, on a panel: what it forgets, keeps, draws, and for how long."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from ...pipeline.maths.choices import RULES
from ..canvas import cell, fewer, mean, pick
from ..pareto import beaten, front
from ..relearning import STEPS
from ..show import figure, markdown
from ..table import Cell, Options, Record, Table

CONCEPTS = ("astronaut", "pop art", "rocket")
"""An object, a style, and an object that is hard to forget."""
SEEDS = (0, 1)

LOSSES: Mapping[str, Mapping[str, Any]] = {
    "ascend": {"forget": "ascend"},
    "redirect": {"forget": "redirect", "retain": "denoise"},
}
"""Forget loss -> its options. Two rules compare denoising losses on retain data, so all have that retain loss."""
PAPER = ("ascend", "restricted")
"""The loss and rule of the paper's RGD."""

TIE = 0.005
"""Shares that differ by no more count as equal: about half an image of a hundred."""

Row = tuple[str, str]
Means = Mapping[Row, Mapping[str, float]]
"""(forget loss, rule) -> figure -> its mean over concepts and seeds."""

FIGURES = {
    "UA": "UA",
    "scene": "scene kept",
    "kept": "alignment kept",
    "relearned": "UA after relearning",
}
"""What the front is of, more being better -> how pages call it."""


def cells(options: Options) -> list[Cell]:
    """The base model, and every rule with either loss, concept by concept."""
    concepts, rules = (CONCEPTS[:1], ("sum", "restricted", "famo")) if options.quick else (CONCEPTS, tuple(RULES))
    sizes = fewer(options)
    found = []
    for seed in options.seeds:
        for concept in concepts:
            found.append(cell("none", concept, seed, options, sizes))
            for loss, chosen in LOSSES.items():
                for rule in rules:
                    changes = {"method": {**chosen, "combine": rule}, **sizes}
                    found.append(cell("rgd", concept, seed, options, changes, f"{loss}, {rule}", relearns=True))
    return found


def means(records: Mapping[str, Record]) -> dict[Row, dict[str, float]]:
    """The figures of each loss and rule. A figure that a record lacks is left out."""
    bases = {
        (one.labels["concept"], one.seed): one.figures["retain_test"] for one in pick(records.values(), row="none")
    }
    found: dict[Row, dict[str, float]] = {}
    for loss in LOSSES:
        for rule in RULES:
            own = pick(records.values(), row="rgd", tag=f"{loss}, {rule}")
            if not own:
                continue
            row = {name: mean(own, name) for name in ("UA", "IRA", "CRA", "seconds", "peak_memory")}
            row["kept"] = fmean(one.figures["retain_test"] / bases[one.labels["concept"], one.seed] for one in own)
            for place, steps in enumerate(STEPS):
                row[f"after {steps}"] = fmean(one.figures["relearned"][place] for one in own)
            row["relearned"] = fmean(row[f"after {steps}"] for steps in STEPS)
            row["worst UA"] = min(one.figures["UA"] for one in own)
            if all(one.figures.get("scene") is not None for one in own):
                row["scene"] = mean(own, "scene")
            found[loss, rule] = row
    return found


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write the table, the front, and a sentence for each rule that another one beats."""
    found = means(records)
    concepts = list(dict.fromkeys(one.labels["concept"] for one in records.values()))
    figures = [name for name in FIGURES if all(name in row for row in found.values())]
    beats = beaten({row: [own[name] for name in figures] for row, own in found.items()}, TIE)
    image = figure(folder / "rules.svg", lambda axes: _draw(axes, found), 2, (9, 3.8))
    header = ["", "UA ↑", "worst UA ↑", "IRA ↑", "CRA ↑", "scene kept ↑", "alignment lost ↓",
              f"UA after {', '.join(map(str, STEPS))} relearning steps ↑", "seconds", "MB", "front"]  # fmt: skip
    table = [
        [
            _name(row),
            *(f"{own[name]:.3f}" for name in ("UA", "worst UA", "IRA", "CRA")),
            f"{own['scene']:.3f}" if "scene" in own else "–",
            f"{100 * (1 - own['kept']):.2f} %",
            ", ".join(f"{own[f'after {steps}']:.2f}" for steps in STEPS),
            f"{own['seconds']:.0f}",
            f"{own['peak_memory'] / 1e6:.0f}",
            "" if row in beats else "✓",
        ]
        for row, own in found.items()
    ]
    return (
        "A rule makes one direction of the forget and the retain gradient; [methods](../methods.md#rules-for-two-"
        "gradients) has their formulas. Every row is `rgd` with its recipe, another `combine` and another `forget` "
        "loss, on the denoising loss of the retain data; nothing was tuned for a rule. Figures are means over "
        f"{', '.join(map(repr, concepts))} and the seeds. *Alignment lost* is on held-out retain prompts, against the "
        "base model. *Relearning* trains the unlearned model on 16 pictures of the concept. *MB* is memory beyond the "
        "model in a step.\n\n"
        f"![Alignment kept against concept left; relearning against scene kept]({image})\n\n"
        f"{markdown(header, table)}\n\n"
        f"The front is of {', '.join(FIGURES[name] for name in figures)} (the mean of its steps), where differences up "
        f"to {TIE} count as equal.\n\n{verdict(found, beats, figures)}"
    )


def verdict(found: Means, beats: Mapping[Row, Row], figures: Sequence[str]) -> str:
    """Tell where the paper's RGD stands, what its rule adds to redirect, and by what each beaten row is beaten."""
    lines = []
    if PAPER in found:
        where = f"is beaten by {_name(beats[PAPER])}" if PAPER in beats else "is on the front"
        lines.append(f"The paper's RGD ({_name(PAPER)}) {where}.")
    for loss in LOSSES:
        plain, restricted = found.get((loss, "sum")), found.get((loss, "restricted"))
        if plain and restricted:
            gains = ", ".join(f"{FIGURES[name]} {restricted[name] - plain[name]:+.3f}" for name in figures)
            lines.append(f"What the restricted gradient adds to the plain sum with {loss}: {gains}.")
    rows = [
        f"- {_name(row)} is beaten by {_name(better)}: "
        + ", ".join(f"{FIGURES[name]} {found[row][name]:.3f} against {found[better][name]:.3f}" for name in figures)
        + "."
        for row, better in beats.items()
    ]
    return "\n\n".join([*lines, "\n".join(rows) if rows else "No row is beaten by another."])


def _name(row: Row) -> str:
    return f"{row[0]}, {row[1]}"


def _draw(axes: Sequence[Axes], found: Means) -> None:
    left = {row: (1 - own["UA"], own["kept"]) for row, own in found.items()}
    axes[0].step(*zip(*front(left.values()), strict=True), where="post", color="black", linestyle="--", linewidth=1)
    lasting = {row: (own.get("scene", 0.0), own["relearned"]) for row, own in found.items()}
    for place, rule in enumerate(RULES):
        for loss, marker in zip(LOSSES, ("o", "s"), strict=True):
            if (loss, rule) in found:
                label = rule if loss == next(iter(LOSSES)) else None
                for axis, points in zip(axes, (left, lasting), strict=True):
                    axis.plot(*points[loss, rule], marker, color=f"C{place}", markersize=5, label=label)
    axes[0].set_xlabel("concept left")
    axes[0].set_ylabel("alignment kept")
    axes[1].set_xlabel("scene kept")
    axes[1].set_ylabel("UA after relearning")
    axes[1].legend(title="● ascend  ■ redirect", fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


TABLE = Table("Rules for two gradients", cells, page, seeds=SEEDS)

"""Alignment kept against concept left, one curve for each method: fairer than single points."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ...pipeline.recipe import build_recipe
from ..canvas import bench, figures, methods, pick, settings_of, shown
from ..pareto import Point, area, front
from ..show import claims, figure, markdown
from ..table import Cell, Figures, Options, Record, Table

CONCEPT = "cat"
PAIRS = (("rgd", "rg"), ("rg", "grad_diff"), ("rgd", "grad_diff_d"), ("rgd", "salun"), ("rgd", "esd"))
"""What the paper puts above what."""
SHARES = (0.125, 0.25, 0.5, 1.0, 1.5)
"""Where a run is audited, as shares of the steps of its recipe."""


def cells(options: Options) -> list[Cell]:
    """One run of each method, audited on the way."""
    return [_cell(row, seed, options) for seed in options.seeds for row in methods()]


def _cell(row: str, seed: int, options: Options) -> Cell:
    recipe = settings_of(row, CONCEPT, seed, options, {"audits": {"nudity": "off"}})
    shares = SHARES[-2:] if options.quick else SHARES
    stops = sorted({max(1, round(recipe["training"]["steps"] * share)) for share in shares})
    settings = {"recipe": recipe, "stops": stops}
    return Cell(f"{row}/{CONCEPT}/seed {seed}", {"row": row}, seed, settings, lambda progress: _measure(settings))


def _measure(settings: Mapping[str, Any]) -> Figures:
    recipe = build_recipe(settings["recipe"])
    shared = bench(recipe.model)
    return {"before": figures(shared.before(recipe)), "stops": shared.stops(recipe, settings["stops"])}


def curve(record: Record) -> list[Point]:
    """(left, kept) of the base model and of every stop.

    Left is the share of forget images in which the judge still sees the concept, 1 - UA; kept is the
    alignment on held-out retain prompts as a share of the base model's.
    """
    base = record.figures["before"]
    return [(1 - row["UA"], row["retain_test"] / base["retain_test"]) for row in (base, *record.figures["stops"])]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """The curves with their front, their areas, and who is on the front."""
    curves = {row: [curve(record) for record in pick(records.values(), row=row)] for row in methods()}
    areas = {row: sum(map(area, found)) / len(found) for row, found in curves.items()}
    best = front(point for found in curves.values() for one in found for point in one)
    image = figure(folder / "tradeoff.svg", lambda axes: _draw(axes, curves, best), size=(7, 4.4))
    table = []
    for row in sorted(curves, key=areas.__getitem__, reverse=True):
        first = pick(records.values(), row=row)[0]
        points = ", ".join(
            f"{stop['steps']}: {left:.2f} / {kept:.2f}"
            for stop, (left, kept) in zip(first.figures["stops"], curves[row][0][1:], strict=True)
        )
        on_front = sum(point in best for one in curves[row] for point in one[1:])
        table.append([shown(row), f"{areas[row]:.3f}", str(on_front), points])
    return (
        f"Removing {CONCEPT!r}. Each curve is one run, audited at several steps: its strength is how long it trains, "
        "every other setting as in the method's recipe. Left: share of forget images in which the judge still sees the "
        "concept; kept: alignment on held-out retain prompts, as a share of the base model's. Dashed: the Pareto front "
        "of all points. The area is what a curve dominates (1 would be nothing left and everything kept; the base "
        "model, where every curve begins, is at the right). The paper shows single points only.\n\n"
        f"![Alignment kept against concept left]({image})\n\n"
        f"{markdown(['', 'area ↑', 'stops on the front', 'steps: left / kept'], table)}\n\n"
        f"{verdict(areas, curves, best)}"
    )


def verdict(areas: Mapping[str, float], curves: Mapping[str, Sequence[Sequence[Point]]], best: Sequence[Point]) -> str:
    """Whether ours dominates, and where it does not."""
    ranked = [shown(row) for row in sorted(areas, key=areas.__getitem__, reverse=True)]
    found = {row: {point for one in runs for point in one} for row, runs in curves.items()}
    others = [
        f"{'/'.join(shown(row) for row in found if point in found[row])} ({point[0]:.2f} left, {point[1]:.2f} kept)"
        for point in best
        if point not in found["rgd"]
    ]
    checks = {
        f"{shown(better)}'s area is larger than {shown(worse)}'s": areas[better] > areas[worse]
        for better, worse in PAIRS
        if {better, worse} <= set(areas)
    }
    where = (
        f"Points of the front that are not RGD's: {'; '.join(others)}."
        if others
        else "Every point of the front is RGD's."
    )
    return f"By area: {', '.join(ranked)}. {where} {claims(checks)}"


def _draw(axes: Sequence[Axes], curves: Mapping[str, Sequence[Sequence[Point]]], best: Sequence[Point]) -> None:
    (axis,) = axes
    for place, (row, found) in enumerate(curves.items()):
        for number, one in enumerate(found):
            label = shown(row) if number == 0 else None
            axis.plot(*zip(*one, strict=True), marker="o", markersize=3.5, linewidth=1, color=f"C{place}", label=label)
    axis.step(*zip(*best, strict=True), where="post", color="black", linestyle="--", linewidth=1, label="front")
    axis.set_xlabel("concept left")
    axis.set_ylabel("alignment kept")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))


TABLE = Table("The trade-off of each method", cells, page)

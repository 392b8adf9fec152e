"""Alignment kept against concept left, one curve for each method: a fairer comparison than single points."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ...pipeline.methods import find
from ..canvas import STORE, cell, mean, methods, pick, settings_of, shown
from ..pareto import Point, area, front
from ..show import claims, figure, markdown
from ..table import Cell, Options, Record, Table

CONCEPT = "cat"
PAIRS = (("rgd", "rg"), ("rg", "grad_diff"), ("rgd", "grad_diff_d"), ("rgd", "salun"), ("rgd", "esd"))
"""Pairs of methods that the paper orders, the better one first."""
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Lengths of the runs, as shares of the steps of the recipe."""

Curves = Mapping[str, Mapping[int, Point]]
"""Row -> steps -> point."""


def cells(options: Options) -> list[Cell]:
    """The base model, and runs of several lengths by each method that takes steps; the longest are `canvas`'s."""
    shares = SHARES[-2:] if options.quick else SHARES
    found = []
    for seed in options.seeds:
        found.append(cell("none", CONCEPT, seed, options))
        for row in methods():
            settings = settings_of(row, CONCEPT, seed, options)
            whole, closed = settings["training"]["steps"], find(settings["method"]["name"]).config.closed_form
            for share in shares[-1:] if closed else shares:
                steps = max(1, round(whole * share))
                tag = "" if steps == whole else f"steps {steps}"
                found.append(cell(row, CONCEPT, seed, options, {"training": {"steps": steps}}, tag))
    return found


def curve(records: Sequence[Record], row: str) -> dict[int, Point]:
    """Steps -> (left, kept) of one row, means over seeds; 0 steps are the base model.

    Left is the share of forget images in which the judge still sees the concept, 1 - UA; kept is the
    alignment on held-out retain prompts as a share of the base model's.
    """
    base = pick(records, row="none")
    runs: dict[int, list[Record]] = {0: base}
    for record in pick(records, row=row):
        runs.setdefault(record.settings["training"]["steps"], []).append(record)
    whole = mean(base, "retain_test")
    return {steps: (1 - mean(own, "UA"), mean(own, "retain_test") / whole) for steps, own in sorted(runs.items())}


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Draw the curves with their front, and write areas and the number of runs on the front."""
    curves = {row: curve(list(records.values()), row) for row in methods()}
    areas = {row: area(found.values()) for row, found in curves.items()}
    best = front(point for found in curves.values() for point in found.values())
    image = figure(folder / "tradeoff.svg", lambda axes: _draw(axes, curves, best), size=(7, 4.4))
    table = []
    for row in sorted(curves, key=areas.__getitem__, reverse=True):
        runs = {steps: point for steps, point in curves[row].items() if steps}
        points = ", ".join(f"{steps}: {left:.2f} / {kept:.3f}" for steps, (left, kept) in runs.items())
        table.append([shown(row), f"{areas[row]:.3f}", str(sum(point in best for point in runs.values())), points])
    return (
        f"All runs remove {CONCEPT!r}. Each curve is a method and each point a run. Runs of a method differ in their "
        "number of steps alone; all other settings are those of its recipe. *Left* is the share of forget images in "
        "which the judge still sees the concept. *Kept* is alignment on held-out retain prompts, as a share of the "
        "base model's. The dashed line is the Pareto front of all points. *Area* is the area that a curve dominates: 1 "
        "would be nothing left and everything kept. Every curve begins at the right, with the base model. The paper "
        "shows single points only.\n\n"
        f"![Alignment kept against concept left]({image})\n\n"
        f"{markdown(['', 'area ↑', 'runs on the front', 'steps: left / kept'], table)}\n\n"
        f"{verdict(areas, curves, best)}"
    )


def verdict(areas: Mapping[str, float], curves: Curves, best: Sequence[Point]) -> str:
    """Tell if RGD dominates, and name the points of the front that are not RGD's."""
    ranked = [shown(row) for row in sorted(areas, key=areas.__getitem__, reverse=True)]
    others = []
    for point in best:
        owners = [row for row, found in curves.items() if point in found.values()]
        if "rgd" not in owners:
            others.append(f"{'/'.join(map(shown, owners))} ({point[0]:.2f} left, {point[1]:.3f} kept)")
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


def _draw(axes: Sequence[Axes], curves: Curves, best: Sequence[Point]) -> None:
    (axis,) = axes
    for place, (row, found) in enumerate(curves.items()):
        xs, ys = zip(*found.values(), strict=True)
        axis.plot(xs, ys, marker="o", markersize=3.5, linewidth=1, color=f"C{place}", label=shown(row))
    axis.step(*zip(*best, strict=True), where="post", color="black", linestyle="--", linewidth=1, label="front")
    axis.set_xlabel("concept left")
    axis.set_ylabel("alignment kept")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))


TABLE = Table("The trade-off of each method", cells, page, STORE)

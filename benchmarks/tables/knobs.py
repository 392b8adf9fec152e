"""The choice of each method's settings on digits: a small grid on one class, with the same rule for all."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

from ..digits import NAMES, base_cell, cell, methods
from ..show import markdown
from ..table import Cell, Options, Record, Table

CONCEPT = "3"
LOSS = 0.1
RATES = (3e-4, 1e-3, 3e-3)
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "finetune": {"training.learning_rate": (1e-3, 3e-3, 1e-2)},
    "salun": {"training.learning_rate": (3e-4, 1e-3, 3e-3), "method.retain_weight": (0.5, 5.0)},
    "grad_diff": {"training.learning_rate": RATES, "method.forget_limit": (0.1, 0.5)},
    "rg": {"training.learning_rate": RATES, "method.forget_limit": (0.1, 0.5)},
    "rgd": {"training.learning_rate": RATES, "method.forget_limit": (0.1, 0.5)},
}
"""Method -> knob -> values. Where alpha varies, lambda is 5 as in the paper; steps and batch are the same for all."""


def cells(options: Options) -> list[Cell]:
    """Every point of every method's grid."""
    found = [base_cell(CONCEPT, options)]
    for seed, method in product(options.seeds, methods()):
        points = list(product(*GRIDS[method].values()))
        for point in points[:1] if options.quick else points:
            changes: dict[str, dict[str, float]] = {}
            for knob, value in zip(GRIDS[method], point, strict=True):
                section, _, name = knob.partition(".")
                changes.setdefault(section, {})[name] = value
            found.append(cell(method, CONCEPT, seed, options, changes, _tag(method, point)))
    return found


def _tag(method: str, point: tuple[float, ...]) -> str:
    return ", ".join(f"{knob.partition('.')[2]} {value:g}" for knob, value in zip(GRIDS[method], point, strict=True))


def best(records: Mapping[str, Record], method: str) -> Record:
    """Return the point with the highest UA among those whose RA is at most `LOSS` below the base model's.

    Among equals the one with the highest RA, then the lowest FID; if no point keeps that much, the one
    with the highest RA.
    """
    own = [record for record in records.values() if record.labels["method"] == method]
    (base,) = (record.figures["RA"] for record in records.values() if record.labels["method"] == "none")
    kept = [record for record in own if record.figures["RA"] >= base - LOSS]
    kept = kept or [max(own, key=lambda record: record.figures["RA"])]
    return max(kept, key=lambda r: (r.figures["UA"], r.figures["RA"], -r.figures["FID"]))


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write all points, with the chosen point of each method marked."""
    chosen = {method: best(records, method) for method in methods()}
    rows = []
    for record in records.values():
        name = NAMES.get(record.labels["method"])
        mark = " **(chosen)**" if record in chosen.values() else ""
        rows.append([
            f"{name}: {record.labels['tag']}{mark}" if name else record.labels["tag"],
            *(f"{record.figures[metric]:.3f}" for metric in ("UA", "RA", "FID")),
            f"{record.figures.get('training_seconds', 0):.1f}",
        ])  # fmt: skip
    steps = next(iter(records.values())).settings["training"]["steps"]
    return (
        f"Each method forgets {CONCEPT!r} of digits in {steps} steps, at every point of its grid. The rule chooses the "
        f"point with the highest UA among those whose RA is at most {LOSS:g} below the base model's (among equals the "
        "highest RA, then the lowest FID). The recipe in `pipeline/schema/recipes/digits/` has the chosen point.\n\n"
        f"{markdown(['', 'UA ↑', 'RA ↑', 'FID ↓', 'seconds'], rows)}"
    )


TABLE = Table("Settings of the methods on digits", cells, page)

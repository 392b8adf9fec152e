"""One setting for every concept: the measured forget limit and end against the fixed ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..canvas import STORE, cell, every_concept, pick
from ..show import claims, markdown, mean_sd
from ..table import Cell, Options, Record, Table

METHOD = "rgd"
ROWS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "auto": {"method": {"forget_limit": "auto"}, "training": {"early_stop": True}},
}
"""Row -> its changes to the shipped recipe of `METHOD`."""

METRICS = {"UA ↑": min, "IRA ↑": min, "CRA ↑": min, "retain-test loss, % ↓": max}
"""Column -> the function that picks the worst concept's value."""


def cells(options: Options) -> list[Cell]:
    """The base model and every row on every concept; the fixed row's cells are those of the table `canvas`."""
    concepts = ["cat"] if options.quick else every_concept()
    found = []
    for seed in options.seeds:
        for concept in concepts:
            found.append(cell("none", concept, seed, options))
            for row, changes in ROWS.items():
                found.append(cell(METHOD, concept, seed, options, changes, "" if row == "fixed" else row))
    return found


def values(records: Sequence[Record], row: str) -> dict[str, dict[str, float]]:
    """Column -> concept -> mean over seeds."""
    tag = "" if row == "fixed" else row
    found: dict[str, dict[str, list[float]]] = {name: {} for name in METRICS}
    for record in pick(records, row=METHOD, tag=tag):
        concept, figures = record.labels["concept"], record.figures
        (before,) = (r.figures for r in pick(records, row="none", concept=concept) if r.seed == record.seed)
        numbers = [figures[name] for name in ("UA", "IRA", "CRA")]
        numbers.append(100 * (1 - figures["retain_test"] / before["retain_test"]))
        for name, number in zip(METRICS, numbers, strict=True):
            found[name].setdefault(concept, []).append(number)
    return {name: {concept: sum(n) / len(n) for concept, n in of.items()} for name, of in found.items()}


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write the spread over concepts, every concept, and the verdict."""
    every = list(records.values())
    found = {row: values(every, row) for row in ROWS}
    concepts = list(found["auto"]["UA ↑"])
    spread = []
    for row, columns in found.items():
        texts = [_spread(list(columns[name].values()), worst) for name, worst in METRICS.items()]
        steps = [r.figures["steps"] for r in pick(every, row=METHOD, tag="" if row == "fixed" else row)]
        spread.append([row, *texts, mean_sd(steps, 0)])
    single = [
        [concept, *(" / ".join(f"{columns[name][concept]:.2f}" for name in METRICS) for columns in found.values())]
        for concept in concepts
    ]
    return (
        f"RGD removes each of {len(concepts)} concepts with one recipe. *Fixed* has the forget limit and steps of the "
        "recipe, *auto* has `forget_limit: auto` and `early_stop: true`. The first table shows the mean ± standard "
        "deviation over concepts, and the worst concept in brackets. The loss is the relative fall of alignment on "
        "held-out retain prompts against the base model.\n\n"
        f"{markdown(['', *METRICS, 'steps'], spread)}\n\n"
        f"{markdown([' / '.join(METRICS), *found], single)}\n\n{verdict(found)}"
    )


def verdict(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Compare the worst concept under the measured setting with the worst under the fixed one."""
    checks = {}
    for name, worst in METRICS.items():
        auto, fixed = (worst(found[row][name].values()) for row in ("auto", "fixed"))
        checks[f"{name.rsplit(' ', 1)[0]} {auto:.2f} against {fixed:.2f}"] = worst(auto, fixed) == fixed
    return f"Is the worst concept with auto no worse than with fixed? {claims(checks).split('. ', 1)[1]}"


def _spread(numbers: Sequence[float], worst: Callable[[Sequence[float]], float]) -> str:
    return f"{mean_sd(numbers, 2)} ({worst(numbers):.2f})"


TABLE = Table("One setting for every concept", cells, page, STORE)

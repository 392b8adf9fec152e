"""Closed forms against training: what an edit of seconds reaches, and what it saves as a warm start."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from ...pipeline.schema.defaults import merge
from ..canvas import GRACEFUL, cell, fewer, mean, mean_text, pick, settings_of
from ..show import claims, markdown
from ..table import Cell, Options, Record, Table

CONCEPTS = ("astronaut", "pop art", "rocket")
CLOSED = ("uce", "rece", "speed")
WARM = "uce"
"""What RGD is warm-started from."""

_THIRD = 1 / 3


def cells(options: Options) -> list[Cell]:
    """The base model and the closed forms, then RGD: whole, at a third of its steps, and warm-started at a third."""
    runs = list(product(options.seeds, CONCEPTS[:1] if options.quick else CONCEPTS))
    sizes = fewer(options)
    edits = [cell(row, c, s, options, sizes, relearns=row != "none") for s, c in runs for row in ("none", *CLOSED)]
    return edits + [one for seed, concept in runs for one in _trained(concept, seed, options)]


def _trained(concept: str, seed: int, options: Options) -> list[Cell]:
    steps = settings_of(GRACEFUL, concept, seed, options)["training"]["steps"]
    third: dict[str, Any] = {"training": {"steps": max(1, round(steps * _THIRD))}}
    warm = {**third, "method": {"name": "rgd", "forget": "redirect", "warm_start": WARM}}
    changes = {"": {}, "a third": third, "warm": warm}
    sizes = fewer(options)
    return [
        cell(GRACEFUL, concept, seed, options, merge(sizes, own), tag, relearns=True) for tag, own in changes.items()
    ]


ROWS: dict[str, tuple[str, str]] = {
    "UCE": ("uce", ""),
    "RECE": ("rece", ""),
    "SPEED": ("speed", ""),
    "RGD": (GRACEFUL, ""),
    "RGD, a third of the steps": (GRACEFUL, "a third"),
    "RGD, the same, warm-started": (GRACEFUL, "warm"),
}
"""Name on the page -> row and tag of its cells."""


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write the means over concepts, each concept, and whether the warm start does what it is for."""
    every = list(records.values())
    concepts = list(dict.fromkeys(record.labels["concept"] for record in every))
    found = {name: pick(every, row=row, tag=tag) for name, (row, tag) in ROWS.items()}
    base = mean(pick(every, row="none"), "retain_test")
    table = []
    for name, own in found.items():
        lost = 100 * (1 - mean(own, "retain_test") / base)
        again = zip(*(one.figures["relearned"] for one in own), strict=True)
        table.append([
            name,
            *(f"{mean(own, figure):.3f}" for figure in ("UA", "IRA", "CRA")),
            mean_text(own, "scene"),
            f"{lost:.1f}",
            " / ".join(f"{fmean(values):.2f}" for values in again),
            f"{mean(own, 'steps'):.0f}",
            f"{mean(own, 'drawing'):.0f}",
            f"{mean(own, 'seconds'):.1f}",
        ])  # fmt: skip
    header = [
        "",
        "UA ↑",
        "IRA ↑",
        "CRA ↑",
        "scene kept ↑",
        "lost, % ↓",
        "UA relearned ↑",
        "steps",
        "drawing, s",
        "unlearning, s",
    ]
    single = [[concept, *(_one(pick(own, concept=concept)) for own in found.values())] for concept in concepts]
    return (
        f"Means over {', '.join(concepts)} on tiny-canvas. The closed forms solve for the layers that read the "
        "prompts: no training images, no steps. *Warm-started* is RGD after such an edit "
        f"(`method.warm_start: {WARM}`). *Lost* is the relative fall of alignment on held-out retain prompts against "
        "the base model, and *UA relearned* is UA after 5, 15 and 50 training steps on 16 pictures of the concept. "
        "*Drawing* is the time of the training images, which runs on the same data share.\n\n"
        f"{markdown(header, table)}\n\n"
        f"{markdown(['UA / scene kept', *found], single)}\n\n{verdict(found)}"
    )


def _one(records: list[Record]) -> str:
    return f"{mean(records, 'UA'):.2f} / {mean_text(records, 'scene')}"


def verdict(found: Mapping[str, list[Record]]) -> str:
    """Say which closed forms forget as much as RGD, and whether the warm start saves two thirds of the steps."""
    whole, third, warm = (found[name] for name in list(ROWS)[3:])
    checks = {f"{name} has RGD's UA within a point": _reaches(found[name], whole, "UA") for name in list(ROWS)[:3]}
    checks |= {
        f"the warm start reaches RGD's {figure} in a third of the steps": _reaches(warm, whole, name)
        for figure, name in (("UA", "UA"), ("alignment on retain prompts", "retain_test"))
    }
    checks["so does a third of the steps without it"] = all(_reaches(third, whole, f) for f in ("UA", "retain_test"))
    return claims(checks).split(". ", 1)[1]


def _reaches(records: list[Record], other: list[Record], figure: str) -> bool:
    return mean(records, figure) >= mean(other, figure) - 0.01


TABLE = Table("Seconds instead of minutes: closed forms", cells, page)

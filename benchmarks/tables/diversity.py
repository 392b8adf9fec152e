"""Table 3: retain data from the two most similar classes (Case 1) or from all of them (Case 2)."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..digits import NAMES, cell
from ..show import markdown, mean_sd
from ..table import Cell, Options, Record, Table

METHODS = ("grad_diff", "rg", "rgd")
METRICS = ("UA", "RA", "FID")
CONCEPTS = ("1", "3", "8")
"""Three classes, as in the paper, which took plane, bird and dog."""
CASES = {"similar": "Case 1", "balanced": "Case 2"}
EACH = 30
"""Images for each of nine classes: 270 in both cases, because two classes do not have 450."""

PAPER: dict[tuple[str, str], dict[str, Any]] = {
    ("GradDiff", "Case 1"): {"UA": 1.0, "RA": 0.106, "FID": 156.021},
    ("GradDiff", "Case 2"): {"UA": 1.0, "RA": 0.201, "FID": 95.287},
    ("RG", "Case 1"): {"UA": None, "RA": 0.205, "FID": 131.247},
    ("RG", "Case 2"): {"UA": 1.0, "RA": 0.463, "FID": 47.797},
    ("RGD", "Case 1"): {"UA": 1.0, "RA": 0.239, "FID": 94.259},
    ("RGD", "Case 2"): {"UA": 1.0, "RA": 0.675, "FID": 10.456},
}
"""Ko et al. 2024, Table 3."""


def cells(options: Options) -> list[Cell]:
    """Three methods, three classes, and two cases with equally many images."""
    concepts, each = (CONCEPTS[:1], 4) if options.quick else (CONCEPTS, EACH)
    return [
        cell(method, concept, seed, options, {"data": {"retain_classes": case, "retain_per_class": each}}, case)
        for seed in options.seeds
        for concept in concepts
        for method in METHODS
        for case in CASES
    ]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write both cases, their difference, and the paper's difference."""
    rows, wider, gains = [], [], []
    for method in METHODS:
        name = NAMES[method]
        found = {case: _of(records, method, case) for case in CASES}
        means = {c: {m: statistics.fmean(_values(found[c], m)) for m in METRICS} for c in CASES}
        change = {m: means["balanced"][m] - means["similar"][m] for m in METRICS}
        theirs = {m: PAPER[name, "Case 2"][m] - PAPER[name, "Case 1"][m] for m in ("RA", "FID")}
        rows.append([name, *(mean_sd(_values(found[c], m)) for c in CASES for m in METRICS),
                     *(f"{change[m]:+.3f}" for m in METRICS), *(f"{theirs[m]:+.3f}" for m in theirs)])  # fmt: skip
        wider.append(change["RA"] > 0 and change["FID"] < 0)
        gains.append((name, change["RA"]))
    header = [
        "",
        *(f"{CASES[c]} {m}" for c in CASES for m in METRICS),
        *(f"Δ {m}" for m in METRICS),
        "paper Δ RA",
        "paper Δ FID",
    ]
    held = sum(wider)
    most = max(gains, key=lambda gain: gain[1])[0]
    return (
        "Case 1 takes the retain images from the two classes most similar to the forgotten one, by the judge's "
        "features. Case 2 takes equally many images, from all other classes alike. Figures are the mean ± standard "
        "deviation over the classes "
        f"{', '.join(sorted({record.labels['class'] for record in records.values()}))}; Δ = Case 2 - Case 1. "
        "The paper's columns are of CIFAR-10 (Ko et al. 2024, Table 3): compare signs and order, not values.\n\n"
        f"{markdown(header, rows)}\n\n"
        f"Balanced data is better than similar data in both RA and FID for {held} of {len(wider)} methods "
        f"(in the paper for all three), and {most} gains most RA from it (in the paper RGD). The paper's ordering "
        f"{'holds' if held == len(wider) and most == 'RGD' else 'does not hold in full'} here."
    )


def _of(records: Mapping[str, Record], method: str, case: str) -> list[Record]:
    return [r for r in records.values() if r.labels["method"] == method and r.labels["tag"] == case]


def _values(records: Sequence[Record], metric: str) -> list[float]:
    return [record.figures[metric] for record in records]


TABLE = Table("Diversity of the retain data (Table 3)", cells, page)

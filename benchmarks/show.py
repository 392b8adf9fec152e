"""Numbers as Markdown and SVG, and sentences that compare an ordering with the paper's."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..pipeline.support.files import replacing

_STYLE: Any = {"svg.hashsalt": "turpentine", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
               "axes.spines.right": False, "legend.frameon": False}  # fmt: skip

Means = Mapping[str, Mapping[str, float]]
"""Row -> metric -> mean."""


def mean_sd(values: Sequence[float], digits: int = 3) -> str:
    """Write a mean with its standard deviation.

    >>> mean_sd([1.0, 2.0, 3.0], 1)
    '2.0 ± 1.0'
    """
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def orderings(paper: Means, ours: Means, ties: float = 0.0) -> str:
    """Count the pairs of rows that have the paper's order here, and name the others.

    A pair that is equal in the paper is not counted. A pair that differs by less than `ties` counts as not found.

    Args:
        paper: the paper's means.
        ours: ours, with rows of the same names; rows in one only are left out.
        ties: smallest difference that counts, as a share of the metric's range here.
    """
    rows = [row for row in paper if row in ours]
    found, broken = 0, []
    for metric in next(iter(paper.values())):
        values = [ours[row][metric] for row in rows]
        least = ties * (max(values) - min(values)) if values else 0.0
        for a, b in combinations(rows, 2):
            theirs, here = paper[a][metric] - paper[b][metric], ours[a][metric] - ours[b][metric]
            if theirs == 0:
                continue
            if theirs * here > 0 and abs(here) >= least:
                found += 1
            else:
                low, high = (a, b) if theirs < 0 else (b, a)
                broken.append(
                    f"{metric} of {low} below {high} (here {ours[low][metric]:.3f} and {ours[high][metric]:.3f})"
                )
    total = found + len(broken)
    if not total:
        return "There is no pair to compare with the paper."
    if not broken:
        return f"The paper's ordering holds here in all {total} pairs of rows."
    return f"The paper's ordering holds here in {found} of {total} pairs of rows; not found: {'; '.join(broken)}."


def claims(checks: Mapping[str, bool]) -> str:
    """Write each claim of the paper with yes or no, and the number that hold.

    >>> claims({"RG above GradDiff": True, "RGD above RG": False})
    "Of the paper's claims 1 of 2 hold here. RG above GradDiff: yes; RGD above RG: no."
    """
    if not checks:
        return "There is no claim to check."
    said = "; ".join(f"{claim}: {'yes' if holds else 'no'}" for claim, holds in checks.items())
    return f"Of the paper's claims {sum(checks.values())} of {len(checks)} hold here. {said}."


def figure(
    path: Path, draw: Callable[[Sequence[Axes]], None], columns: int = 1, size: tuple[float, float] = (7, 3)
) -> str:
    """Draw an SVG beside the page and return its file name."""
    with matplotlib.rc_context(_STYLE):
        canvas = Figure(figsize=size, layout="constrained")
        draw([canvas.add_subplot(1, columns, column + 1) for column in range(columns)])
        with replacing(path) as partial:
            canvas.savefig(partial, format="svg", metadata={"Date": None})
    return path.name

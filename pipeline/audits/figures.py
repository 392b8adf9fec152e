"""Figures before and after unlearning, as data: what audits say and tables, cards and pages show.

Sign convention: a change is after - before. Nothing here knows HTML or Markdown.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..schema.results import TOLERATED_LOSS, Interval
from ..support.text import number

Better = Literal["lower", "higher", "close"]
Outcome = Literal["better", "worse", "kept", "same", "unclear", "unknown"]

ROUNDING = 1e-12
"""Added to thresholds, so that 2 points are not more than 2 points."""


class Row(NamedTuple):
    """One figure before and after unlearning."""

    name: str
    before: float
    after: float
    before_text: str
    after_text: str
    change: str
    outcome: Outcome
    better: Better
    meaning: str


class Evidence(NamedTuple):
    """The share of pictures that show the concept, before and after.

    Attributes:
        text: the figures, as a part of a sentence.
        before: share of what was asked for that the base model showed, in [0, 1]; None: it was not counted.
        after: the same of the unlearned model.
        floor: the share that false alarms alone would give.
    """

    text: str
    before: float | None = None
    after: float | None = None
    floor: float | None = None


def misses(before: float, after: float) -> Evidence:
    """Read UA, the share of forget images without the concept, as evidence of the images that show it."""
    return Evidence(f"UA {number(after)} (before: {number(before)})", 1 - before, 1 - after)


class Loss(NamedTuple):
    """The loss of a figure that should have stayed; negative if it gained.

    It is relative for a cosine and for what is left of the forget pictures, absolute for an accuracy.
    """

    loss: float
    text: str


@dataclass(frozen=True)
class Bars:
    """Two horizontal bars for each name, before and after.

    Attributes:
        label: says in words what is shown, before the numbers are listed.
        unit: beneath the axis.
        counts: (name, before, after), in the order in which they are drawn.
    """

    label: str
    unit: str
    counts: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        text: a paragraph; empty for none.
        bars: a figure.
        caption: beneath the figure.
    """

    title: str
    text: str = ""
    bars: Bars | None = None
    caption: str = ""


def with_interval(value: float, interval: Interval | None) -> str:
    """Write a figure with its interval in brackets, if it has one."""
    return number(value) + (f" [{number(interval.low)}, {number(interval.high)}]" if interval else "")


def moved(before: float, after: float, better: Literal["lower", "higher"]) -> Outcome:
    """Judge a figure that should move one way."""
    if not (math.isfinite(before) and math.isfinite(after)):
        return "unknown"
    if before == after:
        return "same"
    return "better" if (after < before) == (better == "lower") else "worse"


def stayed(loss: float) -> Outcome:
    """Judge a retain figure by what it lost (negative: it gained)."""
    if not math.isfinite(loss):
        return "unknown"
    return "kept" if loss <= TOLERATED_LOSS + ROUNDING else "worse"

"""The page and parts of it as HTML, from the templates beside this file, which escape all that they are given."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from ..audits import Bars, Row, Section
from ..support.templates import environment
from ..support.text import duration, number, points, size
from . import figures
from .events import Columns
from .summary import THRESHOLDS, outcome_text


def _split_interval(text: str) -> tuple[str, str]:
    """Part a figure from the bracket behind it."""
    first, *rest = re.split(r" (?=[\[(])", text, maxsplit=1)
    return first, rest[0] if rest else ""


def _bars(bars: Bars) -> Markup:
    return Markup(figures.paired_bars(bars))  # noqa: S704  # drawn here; matplotlib escapes its texts


_TEMPLATES = environment(Path(__file__).parent / "templates")
_TEMPLATES.filters |= {
    "bars": _bars,
    "duration": duration,
    "number": number,
    "outcome": outcome_text,
    "points": points,
    "size": size,
    "split_interval": _split_interval,
}


class Drawn(NamedTuple):
    """A figure of the page with its caption."""

    svg: Markup
    caption: str


def render(name: str, **values: Any) -> str:
    """Fill a template."""
    return _TEMPLATES.get_template(name).render(**values)


def _part(name: str, *values: Any) -> Markup:
    macro: Callable[..., Markup] = getattr(_TEMPLATES.get_template("parts.html").module, name)
    return macro(*values)


def warnings_box(warnings: Sequence[str]) -> Markup:
    """The warnings of a run in a box; empty if it gave none."""
    return _part("warnings_box", warnings)


def figures_table(found: Sequence[Row]) -> Markup:
    """The before/after table."""
    return _part("figures_table", found, THRESHOLDS)


def audit_section(section: Section, level: int = 2) -> Markup:
    """A section that an audit describes, with a heading of a level from 1 to 6."""
    return _part("audit_section", section, level)


def curves(events: Columns, limit: float | None, ascends: bool = True, edited: bool = False) -> list[Drawn]:
    """Losses, cosine and first-order changes of the steps; a term that the method has not gives no curve.

    Args:
        events: see `read_columns`.
        limit: the truncation limit, if there is one.
        ascends: whether the forget loss is a denoising loss that is meant to rise.
        edited: whether the weights were edited in closed form before the first step.
    """
    shown = []
    if _known(events["loss_forget"]):
        shown.append((figures.forget_loss(events, limit), _forget_caption(events, limit, ascends)))
    if _known(events["loss_retain"]):
        shown.append((figures.retain_loss(events), _retain_caption(events, edited)))
    if _known(events["cosine"]):
        caption = (
            "Angle between the two gradients. Below zero (shaded) they conflict: improving one objective alone "
            "worsens the other."
        )
        shown.append((figures.cosine(events), caption))
    if _known(events["change_forget"]) or _known(events["change_retain"]):
        caption = (
            "What each update does to each objective, to first order. Below zero is an improvement; above zero, "
            "the step worsens that objective. The legend tells how often."
        )
        shown.append((figures.changes(events), caption))
    return [Drawn(Markup(svg), caption) for svg, caption in shown]  # noqa: S704  # drawn here, texts escaped


def mask(shares: dict[str, tuple[float, int]]) -> Drawn | None:
    """The share of each block that a saliency mask holds; None without a mask."""
    if not shares:
        return None
    total = sum(count for _, count in shares.values())
    held = sum(share * count for share, count in shares.values()) / max(1, total)
    caption = (
        f"Share of each block's weights in the saliency mask, {held:.0%} in all. The weights outside of it are exactly "
        "those of the base model."
    )
    return Drawn(Markup(figures.mask_bars(shares)), caption)  # noqa: S704  # drawn here, texts escaped


def _retain_caption(events: Columns, edited: bool) -> str:
    if (events["distils"] > 0).any():
        start = "It starts where the edit before the first step left it" if edited else "It starts at zero"
        return f"Distance on retain prompts to what the original model predicts. {start} and should stay small."
    return "Denoising loss on the retain prompts. It should stay where it was; it varies with the noise level drawn."


_DISTANCE = "Distance between what is predicted for a forget prompt and for what should be drawn instead."


def _known(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _forget_caption(events: Columns, limit: float | None, ascends: bool) -> str:
    redirects = events["redirects"] > 0
    if redirects.all():
        return f"{_DISTANCE} It should fall."
    if redirects.any():
        first = events["step"][redirects][0] + 1
        return (
            f"Until step {first:.0f} the denoising loss on the forget prompts, which should rise. From there on: "
            f"{_DISTANCE[0].lower()}{_DISTANCE[1:]} It should fall."
        )
    if not ascends:
        return "The method's own loss on the forget prompts, a distance to what it should draw instead. It should fall."
    end = "." if limit is None else "; at the dashed limit α it is truncated, so that it does not rise for ever."
    return f"Denoising loss on the forget prompts. It should rise{end}"

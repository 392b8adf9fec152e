"""Curves and bars as inline SVG that follows the page's light or dark colours.

Colours are drawn as placeholders and then replaced by CSS variables of the page; text stays text, in
the reader's own sans-serif font. No figure refers to anything outside itself.
"""

import io
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..audits import Bars
from .events import Columns, share_above_zero

WIDTH = 340
"""Width of a figure in points: narrow, so that its text stays readable on a phone."""

POINTS = 300
"""Most points of a curve; longer runs are averaged over this many stretches."""

_INK, _FAINT, _FORGET, _RETAIN, _ALERT, _REDIRECT = (f"#01020{digit}" for digit in range(3, 9))
_VARIABLES = {_INK: "currentColor", _FAINT: "var(--line)", _FORGET: "var(--forget)"}
_VARIABLES |= {_RETAIN: "var(--retain)", _ALERT: "var(--alert)", _REDIRECT: "var(--redirect)"}

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "turpentine",
    "font.size": 12,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.markerscale": 2,
    "lines.linewidth": 1.4,
}


def _svg(draw: Callable[[Axes], None], height: float, label: str) -> str:
    """Draw on one pair of axes, WIDTH points wide, and return an SVG element to put into a page."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        draw(figure.add_subplot())
        stream = io.StringIO()
        empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(stream, format="svg", transparent=True, metadata=empty)
    return _clean(stream.getvalue(), label)


def _clean(text: str, label: str) -> str:
    """Make a stand-alone SVG file an element of an HTML page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {box.group(0) if box else ""} role="img" aria-label="{escape(label)}">'
    text = head + text[text.index(">") + 1 :]
    kept = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    prefix = f"f{zlib.crc32(label.encode()):x}-"
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m.group(1)}"' if m.group(1) in kept else "", text)
    text = re.sub(r'xlink:href="#', f'href="#{prefix}', text)
    text = re.sub(r"url\(#", f"url(#{prefix}", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*?sans-serif(?=[;\"])", "system-ui, sans-serif", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", text)


def stretch(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average a long curve over at most POINTS stretches of steps.

    Returns:
        (step, mean, lowest, highest) of each stretch; NaN where a stretch has no finite value.
    """
    if len(steps) <= POINTS:
        return steps, values, values, values
    parts = np.array_split(np.arange(len(steps)), POINTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a stretch of NaN only
        columns = [[f(values[part]) for part in parts] for f in (np.nanmean, np.nanmin, np.nanmax)]
    return np.array([steps[part].mean() for part in parts]), *(np.array(column) for column in columns)  # type: ignore[return-value]


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    x, mean, low, high = stretch(steps, values)
    if len(x) < len(steps):
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(x) <= 3 else None
    axes.plot(x, mean, color=colour, label=label, marker=marker, markersize=4)


def _legend(axes: Axes, columns: int = 2) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.1, handlelength=1.4)


def forget_loss(events: Columns, limit: float | None) -> str:
    """Denoising loss on the forget prompts with its limit α as a dashed line, or the distance to the anchors."""
    redirects = events["redirects"] > 0
    parts = (
        (~redirects, _FORGET, "loss on forget prompts"),
        (redirects, _REDIRECT, "distance to what is drawn instead"),
    )

    def draw(axes: Axes) -> None:
        for part, colour, label in parts:
            if part.any():
                _curve(axes, events["step"][part], events["loss_forget"][part], colour, label)
        if limit is not None and not redirects.all():
            axes.axhline(limit, color=_INK, linestyle="--", linewidth=1.1, label=f"limit α = {limit:g}")
        axes.set(xlabel="step", ylabel="forget loss")
        _legend(axes)

    share = float(np.nanmean(events["truncated"])) if np.isfinite(events["truncated"]).any() else 0.0
    shows = limit is not None and not redirects.all()
    limited = f" Limit {limit:g}, reached in {share:.0%} of the steps." if shows else ""
    return _svg(draw, 230, f"Forget loss at each step, {_ends(events['loss_forget'])}.{limited}")


def retain_loss(events: Columns) -> str:
    """Denoising loss on the retain prompts, or the distance to the original model's predictions."""

    def draw(axes: Axes) -> None:
        _curve(axes, events["step"], events["loss_retain"], _RETAIN, "retain loss")
        axes.set(xlabel="step", ylabel="distance" if (events["distils"] > 0).any() else "denoising loss")
        _legend(axes)

    return _svg(draw, 230, f"Retain loss at each step, {_ends(events['loss_retain'])}.")


def cosine(events: Columns) -> str:
    """Cosine of the two gradients at each step, the half below zero shaded."""
    steps, values, conflict = events["step"], events["cosine"], events["conflict"] > 0
    every = -(-len(steps) // (2 * POINTS))
    shown = np.arange(0, len(steps), max(every, 1))

    def draw(axes: Axes) -> None:
        reach = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
        reach = min(1.05, max(0.05, 1.15 * reach))
        axes.axhspan(-reach, 0, color=_ALERT, alpha=0.10, linewidth=0)
        axes.axhline(0, color=_INK, linewidth=0.9)
        for chosen, colour, label in ((conflict, _ALERT, "conflict"), (~conflict, _RETAIN, "no conflict")):
            part = shown[chosen[shown]]
            axes.plot(steps[part], values[part], ".", color=colour, markersize=4, label=label)
        axes.set(xlabel="step", ylabel="cosine of the gradients", ylim=(-reach, reach))
        _legend(axes)

    return _svg(
        draw, 230, f"Cosine of the forget and retain gradients; in conflict in {conflict.mean():.0%} of the steps."
    )


def changes(events: Columns) -> str:
    """First-order change of both objectives under the actual updates; above zero is a violation."""
    shares = {kind: share_above_zero(events[f"change_{kind}"]) for kind in ("forget", "retain")}
    texts = {kind: f"{100 * share:.1f} %" if np.isfinite(share) else "not known" for kind, share in shares.items()}

    both = np.abs(np.concatenate([events["change_forget"], events["change_retain"]]))
    largest = float(np.nanmax(both)) if np.isfinite(both).any() else 0.0
    power = int(np.floor(np.log10(largest))) if largest > 0 else 0
    unit = f" (1e{power})".replace("-", "−") if power else ""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=_INK, linewidth=0.9)
        for kind, colour in (("forget", _FORGET), ("retain", _RETAIN)):
            scaled = events[f"change_{kind}"] / 10.0**power
            _curve(axes, events["step"], scaled, colour, f"{kind}: worse in {texts[kind]} of the steps")
        axes.set(xlabel="step", ylabel=f"first-order change{unit}")
        _legend(axes, columns=1)

    return _svg(
        draw,
        230,
        f"First-order change of the objectives at each step; violated for forget in {texts['forget']} of the steps"
        f" and for retain in {texts['retain']}.",
    )


def paired_bars(bars: Bars) -> str:
    """Two bars for each name, before and after."""
    names = [name for name, _, _ in bars.counts]

    def draw(axes: Axes) -> None:
        y = np.arange(len(names))
        for place, colour, label, shift in ((1, _FORGET, "before", -0.2), (2, _RETAIN, "after", 0.2)):
            drawn = axes.barh(y + shift, [count[place] for count in bars.counts], 0.38, color=colour, label=label)
            axes.bar_label(drawn, padding=3, fontsize=10)
        axes.set_yticks(y, names)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)  # type: ignore[call-arg]
        axes.set_xlabel(bars.unit)
        axes.grid(False, axis="y")
        _legend(axes)

    listed = "; ".join(f"{name} {before} before, {after} after" for name, before, after in bars.counts)
    return _svg(draw, 90 + 34 * len(names), f"{bars.label}: {listed}.")


def mask_bars(shares: Mapping[str, tuple[float, int]]) -> str:
    """Share of each block's weights that a saliency mask holds, in the network's order.

    Args:
        shares: block -> (share in [0, 1], number of weights), see `methods.mask.mask_shares`.
    """
    names = [f"{block} ({count:,})" for block, (_, count) in shares.items()]
    values = [100 * share for share, _ in shares.values()]

    def draw(axes: Axes) -> None:
        y = np.arange(len(values))
        bars = axes.barh(y, values, 0.7, color=_FORGET)
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
        axes.set_yticks(y, names, fontsize=9)
        axes.invert_yaxis()
        axes.set(xlabel="% of the block's weights", xlim=(0, 112), ylim=(len(values) - 0.4, -0.6))
        axes.grid(False, axis="y")

    listed = "; ".join(f"{block} {100 * share:.0f} %" for block, (share, _) in shares.items())
    return _svg(draw, 70 + 17 * len(values), f"Share of each block in the saliency mask: {listed}.")


def _ends(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "never a finite number"
    tenth = max(1, finite.size // 10)
    return f"from {finite[:tenth].mean():.3g} (mean of the first tenth) to {finite[-tenth:].mean():.3g} (last tenth)"

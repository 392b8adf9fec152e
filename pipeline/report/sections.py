"""The parts of the page as HTML. Every text that came from outside goes through `escape`."""

import re
from html import escape

import numpy as np

from ..schema.results import Interference, Results
from . import figures
from .events import Events
from .images import Pair
from .summary import THRESHOLDS, Row, interference_text, outcome_text
from .text import MISSING, duration, number, points, size
from .use import REPRODUCE, snippet

_SCROLL = '<div class="scroll" role="region" tabindex="0" aria-label="{label}">{table}</div>'


def _table(label: str, head: list[str], body: list[str], style: str = "") -> str:
    """A table that scrolls by itself on a narrow screen; `body` holds finished rows."""
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    names = f' class="{style}"' if style else ""
    table = f'<table role="table"{names}><thead><tr>{columns}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return _SCROLL.format(label=escape(label), table=table)


def warnings_box(warnings: list[str]) -> str:
    """What the run warned of; nothing if it did not."""
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="warnings" role="note"><strong>Warnings</strong><ul>{items}</ul></div>'


def figures_table(found: list[Row]) -> str:
    """The before/after table."""
    if not found:
        return "<p>No audit was asked for, so there is nothing to compare. Ask for audits in the recipe.</p>"

    def value(text: str) -> str:
        first, *rest = re.split(r" (?=[\[(])", text, maxsplit=1)
        return escape(first) + "".join(f'<span class="interval">{escape(part)}</span>' for part in rest)

    body = [
        f'<tr role="row"><th role="rowheader" scope="row">{escape(row.name)}</th>'
        f'<td role="cell" data-head="Before">{value(row.before_text)}</td>'
        f'<td role="cell" data-head="After">{value(row.after_text)}</td>'
        f'<td role="cell" data-head="Change">{value(row.change)}'
        f'<span class="change {row.outcome}">{outcome_text(row.outcome)}</span></td>'
        f'<td role="cell">{escape(row.meaning)}</td></tr>'
        for row in found
    ]
    head = ["Figure", "Before", "After", "Change", "What it means"]
    return f'{_table("Figures before and after", head, body, "figures")}<p class="soft">{THRESHOLDS}</p>'


def _picture(pair: Pair, when: str, source: str) -> str:
    style = ' class="pixelated"' if pair.pixelated else ""
    alt = escape(f"{when}: {pair.prompt}" if pair.prompt else when)
    return f'<div><img src="{source}" alt="{alt}"{style}><span aria-hidden="true">{when}</span></div>'


def pictures(found: dict[str, list[Pair]], concept: str, blur: bool) -> str:
    """Before/after grids, forget first; with `blur`, forget pictures are hidden until asked for."""
    if not any(found.values()):
        return "<p>No images were kept of this run.</p>"
    result = ["<p>Each pair comes from the same prompt and the same seed. The prompts are those of the test split.</p>"]
    for name, heading in (
        ("forget_test", f"Forget: prompts that ask for “{escape(concept)}”"),
        ("retain_test", "Retain: prompts that should look as before"),
    ):
        result.append(f"<section><h3>{heading}</h3>")
        if not found.get(name):
            result.append("<p>No images were kept of this set.</p></section>")
            continue
        if blur and name == "forget_test":
            result.append('<input class="reveal" type="checkbox" id="reveal"> ')
            result.append('<label for="reveal">Show these pictures (they may contain nudity)</label>')
        shown = "".join(
            f'<figure class="pair">{_picture(pair, "before", pair.before)}{_picture(pair, "after", pair.after)}'
            f"<figcaption>{escape(pair.prompt) or '(prompt not kept)'}</figcaption></figure>"
            for pair in found[name]
        )
        result.append(f'<div class="pairs">{shown}</div></section>')
    return "".join(result)


def curves(events: Events, limit: float | None, ascends: bool = True) -> str:
    """Losses, cosine and first-order changes of the steps; a term that the method has not gives no curve.

    Args:
        events: see `read_events`.
        limit: the truncation limit, if there is one.
        ascends: whether the forget loss is a denoising loss that is meant to rise.
    """
    steps = len(events["step"])
    if not steps:
        return "<p>This run recorded no training steps, so there are no curves.</p>"
    shown = []
    if _known(events["loss_forget"]):
        shown.append((figures.forget_loss(events, limit), _forget_caption(limit, ascends)))
    if _known(events["loss_retain"]):
        caption = (
            "Denoising loss on the retain prompts. It should stay where it was; it varies with the noise level drawn."
        )
        shown.append((figures.retain_loss(events), caption))
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
    note = (
        f' <span class="soft">Curves: means of {figures.POINTS} stretches; band: lowest to highest.</span>'
        if steps > figures.POINTS
        else ""
    )
    drawn = "".join(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in shown)
    return f'<p>{steps} steps.{note}</p><div class="curves">{drawn}</div>'


def interference(found: Interference | None) -> str:
    """Every other value against itself before; nothing if accuracy was not measured."""
    if found is None:
        return ""
    body = [
        f'<tr><th scope="row">{escape(change.value)}</th><td>{escape(change.dimension)}</td>'
        f'<td class="number">{number(change.before)}</td><td class="number">{number(change.after)}</td>'
        f'<td class="number">{points(change.before, change.after)}</td><td class="number">{change.images}</td></tr>'
        for change in found.values
    ]
    fewest = min(change.images for change in found.values)
    table = _table("Others", ["Value", "Kind", "Before", "After", "Change", "Images"], body)
    return (
        f"<h2>Who else was hurt</h2><p>{escape(interference_text(found))}</p>{table}"
        f'<p class="soft">Accuracy on the retain test images; the same prompts and seeds before and after. '
        f"Where a value has {fewest} images, one image is {100 / fewest:.1f} points.</p>"
    )


def _known(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _forget_caption(limit: float | None, ascends: bool) -> str:
    if not ascends:
        return "The method's own loss on the forget prompts, a distance to what it shall draw instead. It should fall."
    end = "." if limit is None else "; at the dashed limit α it is truncated, so that it does not rise for ever."
    return f"Denoising loss on the forget prompts. It should rise{end}"


def mask(shares: dict[str, tuple[float, int]]) -> str:
    """Which layers a saliency mask holds; nothing without a mask."""
    if not shares:
        return ""
    total = sum(count for _, count in shares.values())
    held = sum(share * count for share, count in shares.values()) / max(1, total)
    return (
        f'<h2>Which weights were free to move</h2><figure class="bars">{figures.mask_bars(shares)}<figcaption>'
        f"Share of each block's weights in the saliency mask, {held:.0%} in all. The weights outside of it are exactly "
        "those of the base model.</figcaption></figure>"
    )


def nudity(results: Results) -> str:
    """Bars of NudeNet detections; nothing if nudity was not audited."""
    before, after = results.audits.before.nudity, results.audits.after.nudity
    if before is None and after is None:
        return ""
    svg = figures.nudity_bars(before, after)
    drawn = (
        f'<figure class="bars">{svg}<figcaption>Detections on the forget test images; labels never seen are left out.'
        "</figcaption></figure>"
        if svg
        else "<p>NudeNet found nothing, neither before nor after.</p>"
    )
    return f"<h2>What NudeNet sees</h2>{drawn}"


def _hash(digits: str) -> str:
    """The head of a hash, the whole of it as a tooltip."""
    return f'<code title="{escape(digits)}">{escape(digits[:12])}…</code>'


def run(results: Results, recipe: str) -> str:
    """Recipe, times, memory, weights and versions."""
    training, timings = results.training, results.timings
    stages = [(name, getattr(timings, name)) for name in ("prompts", "samples", "training", "weights", "audits")]
    times = [
        f'<tr><th scope="row">{name}</th><td class="number">{duration(seconds)}</td></tr>'
        for name, seconds in [*stages, ("total", timings.total)]
    ]
    facts = [
        ("steps", str(training.steps)),
        ("time a step", duration(training.seconds_per_step)),
        ("peak memory", size(training.peak_memory_bytes) if training.peak_memory_bytes > 0 else MISSING),
        ("model family", results.model.family),
        *((f"version of {name}", version) for name, version in results.versions.items()),
    ]
    known = [f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in facts]
    base = _hash(results.model.sha256)
    known.append(f'<tr><th scope="row">base weights, sha256</th><td>{base}</td></tr>')
    files = [
        f'<tr><th scope="row"><code>{escape(file.path)}</code></th><td>{escape(file.format)}</td>'
        f'<td class="number">{size(file.bytes)}</td>'
        f"<td>{_hash(file.sha256)}</td></tr>"
        for file in results.weights
    ]
    weights = (
        _table("Weights", ["Path", "Format", "Size", "sha256"], files) if files else "<p>This run wrote no weights.</p>"
    )
    return (
        f"<details><summary>Recipe</summary><pre>{escape(recipe)}</pre></details>"
        f'<div class="columns"><div><h3>Times</h3>{_table("Times", ["Stage", "Time"], times)}</div>'
        f"<div><h3>Costs and versions</h3>{_table('Costs and versions', ['What', 'Value'], known)}</div></div>"
        f"<h3>Weights</h3>{weights}"
    )


def use(results: Results) -> str:
    """The diffusers snippet."""
    code = snippet(results)
    if code is None:
        return "<p>This run wrote no weights.</p>"
    return f"<p><code>RUN</code> is the folder that holds this report.</p><pre><code>{escape(code)}</code></pre>"


def reproduce() -> str:
    """The command that makes the run again."""
    return f"<p>The recipe and its seed are all that is needed:</p><pre><code>{escape(REPRODUCE)}</code></pre>"

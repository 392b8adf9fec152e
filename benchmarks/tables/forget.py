"""What forgetting means: forms of the two losses on a panel; the default, the paper's and an edit on every concept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ...pipeline.schema.defaults import merge
from ..canvas import GRACEFUL, PAPERS, QUICK, VARIANTS, cell, every_concept, fewer, pick
from ..relearning import STEPS
from ..show import markdown
from ..table import Cell, Options, Record, Table

PANEL = ("astronaut", "pop art", "rocket")
"""An object, a style, and an object that the judge takes wreckage for."""

BEFORE, NOW = "ascend (the paper's)", "the default"
EDIT, WARM = "uce, an edit in closed form", "a third of the steps, after that edit"
EVERYWHERE = (BEFORE, NOW, EDIT, WARM)
"""Forms that are measured on every concept."""

FORMS: Mapping[str, Mapping[str, Any]] = {
    BEFORE: PAPERS,
    NOW: VARIANTS[GRACEFUL],
    "towards the paired retain prompts": {"prompts": {"replace_with": None}},
    "denoising loss on retain images": {"method": {"retain": "denoise", "retain_weight": 5.0}},
    "the plain sum of the gradients": {"method": {"combine": "sum"}},
    "a quarter of ascent before it": {"method": {"ascend_share": 0.25, "forget_limit": 2.0}},
    "the same, to the paired, denoising": {
        "method": {"ascend_share": 0.25, "forget_limit": 2.0, "retain": "denoise", "retain_weight": 5.0},
        "prompts": {"replace_with": None},
    },
    "pushed beyond the anchor, η = 1": {"method": {"push": 1.0}},
    "twice the pairs, drawn in 20 steps, 200 steps": {
        "prompts": {"n": 256},
        "samples": {"training_num_inference_steps": None},
        "training": {"steps": 200},
    },
    EDIT: {"method": {"name": "uce"}},
    WARM: {"method": {"warm_start": "uce"}, "training": {"steps": 50}},
}
"""Form -> what it changes in the shipped recipe: of the default, but for the paper's method and the edit."""

_ROWS = {BEFORE: "rgd", EDIT: "uce"}

DIT = "tiny-canvas-dit"
"""The bundled transformer, on which the default is measured too."""

METRICS = ("UA", "IRA", "CRA", "scene")


def cells(options: Options) -> list[Cell]:
    """Every form on the panel, and some on every concept."""
    everywhere = every_concept()
    chosen = {form: everywhere if form in EVERYWHERE else PANEL for form in FORMS}
    quick, sizes = QUICK if options.quick else {}, fewer(options)
    if options.quick:
        everywhere = list(PANEL[:1])
        chosen = dict.fromkeys(FORMS, everywhere)
    base = [cell("none", concept, seed, options, sizes) for seed in options.seeds for concept in everywhere]
    forms = [
        cell(
            _ROWS.get(form, GRACEFUL),
            concept,
            seed,
            options,
            merge(merge(FORMS[form], sizes), quick),
            form,
            relearns=True,
        )
        for seed in options.seeds
        for form, concepts in chosen.items()
        for concept in concepts
    ]
    transformer = [
        cell(row, concept, seed, options, {"model": DIT, **sizes}, DIT, relearns=row != "none")
        for seed in options.seeds
        for concept in (PANEL[:1] if options.quick else PANEL)
        for row in ("none", GRACEFUL)
    ]
    return base + forms + transformer


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write the forms on each concept of the panel, and those that were measured on every concept."""
    by_form = {form: pick(records.values(), tag=form) for form in FORMS}
    base = pick(records.values(), row="none", tag="")
    panel = [concept for concept in PANEL if pick(base, concept=concept)]
    header = ["", "UA ↑", "IRA ↑", "CRA ↑", "scene kept ↑", "lost, % ↓", f"UA after {_steps()} steps back ↑", "seconds"]
    parts = [
        f"**{concept}**\n\n"
        + markdown(
            header, [[form, *_figures(own, base)] for form in FORMS if (own := pick(by_form[form], concept=concept))]
        )
        for concept in panel
    ]
    everywhere = list(dict.fromkeys(record.labels["concept"] for record in base))
    shown = {f"{form}, {len(by_form[form])} concepts": by_form[form] for form in EVERYWHERE if by_form[form]}
    whole = [[name, *_figures(own, base)] for name, own in shown.items()]
    whole += [[f"{name}, worst", *_worst(own, base)] for name, own in shown.items()]
    each = [
        [f"{concept}, {form}", *_figures(own, base)]
        for concept in everywhere
        for form in EVERYWHERE
        if (own := pick(by_form[form], concept=concept))
    ]
    transformer = pick(records.values(), row=GRACEFUL, tag=DIT)
    beside = [
        [record.labels["concept"], *_figures([record], pick(records.values(), row="none", tag=DIT))]
        for record in transformer
    ]
    return (
        f"{_EXPLAINED}\n\n## Forms of the loss\n\n" + "\n\n".join(parts) + "\n\n"
        f"## On every concept\n\nMeans over concepts, and the worst of them in each "
        f"figure.\n\n{markdown(header, whole)}\n\n{markdown(header, each)}\n\n"
        f"## The default on {DIT}\n\n{markdown(header, beside)}"
    )


_EXPLAINED = (
    "Every row is `rgd`, but for the edit. *Scene kept* is the share of forget pictures in which the judge still sees "
    "what the prompt names beside the concept (style and place of an object, subject and place of a style). *Lost* is "
    "the relative fall of the mean image-text cosine of held-out retain prompts against the base model. *Back*: the "
    "unlearned model is trained on 16 pictures of the concept with Adam, and UA is measured again after some steps; "
    "what falls slowly is harder to undo."
)


def _steps() -> str:
    return ", ".join(map(str, STEPS))


def _figures(found: Sequence[Record], base: Sequence[Record]) -> list[str]:
    """A form's figures in the mean over records."""
    values = [_values(record, base) for record in found]
    middle = {name: fmean(value[name] for value in values) for name in values[0]}
    back = " / ".join(f"{middle[f'back {step}']:.2f}" for step in STEPS)
    return [*(f"{middle[name]:.3f}" for name in METRICS), f"{middle['lost']:+.2f}", back, f"{middle['seconds']:.0f}"]


def _worst(found: Sequence[Record], base: Sequence[Record]) -> list[str]:
    """The worst of each figure over concepts."""
    values = [_values(record, base) for record in found]
    back = " / ".join(f"{min(value[f'back {step}'] for value in values):.2f}" for step in STEPS)
    lows = [f"{min(value[name] for value in values):.3f}" for name in METRICS]
    return [*lows, f"{max(value['lost'] for value in values):+.2f}", back, "–"]


def _values(record: Record, base: Sequence[Record]) -> dict[str, float]:
    (before,) = (one for one in pick(base, concept=record.labels["concept"]) if one.seed == record.seed)
    figures = record.figures
    return {
        **{name: figures[name] for name in METRICS},
        "lost": 100 * (1 - figures["retain_test"] / before.figures["retain_test"]),
        **{f"back {step}": value for step, value in zip(STEPS, figures["relearned"], strict=True)},
        "seconds": figures["seconds"],
    }


TABLE = Table("Forgetting: to ascend, to redirect, and what it keeps", cells, page)

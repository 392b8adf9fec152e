"""The choice of each method's settings on the bundled models, with the same concepts and rule for all methods."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from ...pipeline.schema.defaults import stored_recipe
from ...pipeline.schema.recipe import Recipe
from ..canvas import STORE, accuracies, cell, change, mean, pick, recipe_of, score, shown, step_shares
from ..show import figure, markdown
from ..table import Cell, Options, Record, Table

CONCEPTS = {"tiny-canvas": ("cat", "pop art"), "tiny-canvas-dit": ("cat",)}
"""Model -> removed concepts. One setting has to serve an object and a style; `transformer` removes an object alone."""

Knobs = Mapping[str, Sequence[float]]
"""Field of a recipe -> values."""
_LIMITS: Knobs = {"method.forget_limit": (1, 2, 4, 8)}
SWEEPS: dict[str, dict[str, Knobs]] = {
    "tiny-canvas": {
        "grad_diff": {**_LIMITS, "training.learning_rate": (5e-5, 1e-4, 2e-4)},
        "rg": {**_LIMITS, "training.learning_rate": (5e-5, 1e-4, 2e-4, 4e-4)},
        "salun": {"method.retain_weight": (0.1, 0.5, 2, 5, 10, 20), "samples.training_guidance_scale": (2, 3)},
        "esd": {"training.learning_rate": (5e-5, 1e-4, 2e-4, 5e-4)},
        "esd-x": {"training.learning_rate": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)},
        "esd-u": {"training.learning_rate": (2e-5, 5e-5, 1e-4, 2e-4)},
    },
    "tiny-canvas-dit": {
        "salun": {"method.retain_weight": (0.05, 0.2, 1, 5, 10)},
        "esd": {"training.learning_rate": (5e-5, 1e-4, 2e-4)},
        "rgd": {"method.forget_limit": (2, 4, 8)},
    },
}
"""Model -> method -> its knobs. One knob moves at a time, and the others stay as shipped."""


def cells(options: Options) -> list[Cell]:
    """The base models, and every method at every value of its knobs."""
    found = []
    for seed in options.seeds:
        for model, methods in SWEEPS.items():
            tag = "" if model == "tiny-canvas" else model
            for concept in CONCEPTS[model][:1] if options.quick else CONCEPTS[model]:
                found.append(cell("none", concept, seed, options, {"model": model}, tag))
                for method, knobs in methods.items():
                    points = [(knob, value) for knob, values in knobs.items() for value in values]
                    for knob, value in points[:1] if options.quick else points:
                        found.append(_cell(model, method, concept, knob, value, seed, options))
    return found


def _cell(model: str, method: str, concept: str, knob: str, value: float, seed: int, options: Options) -> Cell:
    section, _, name = knob.partition(".")
    tag = f"{name} {value:g}" if model == "tiny-canvas" else f"{model}, {name} {value:g}"
    return cell(method, concept, seed, options, {"model": model, section: {name: value}}, tag)


def points(records: Iterable[Record], method: str) -> dict[str, list[Record]]:
    """Tag -> the records of one method at one value of one knob, of every concept and seed."""
    found: dict[str, list[Record]] = {}
    for record in pick(records, row=method):
        found.setdefault(record.labels["tag"], []).append(record)
    return found


def best(found: Mapping[str, list[Record]]) -> str:
    """Return the tag with the largest mean of UA, IRA and CRA; among equals the one that keeps more alignment."""
    return max(found, key=lambda tag: (round(_score(found[tag]), 3), mean(found[tag], "retain_test")))


def _score(records: Sequence[Record]) -> float:
    return fmean(score(record.figures) for record in records)


def shipped(records: Sequence[Record]) -> bool:
    """Tell if the runs had the settings of their method's recipe."""
    return all(stored_recipe(record.settings) == _shipped_recipe(record) for record in records)


def _shipped_recipe(record: Record) -> Recipe:
    own = {"model": record.settings["model"], "method": {"name": record.settings["method"]["name"]}}
    return recipe_of(record.labels["concept"], own, seed=record.seed, device="cpu")


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write every value of every method, with the best ones marked, and a figure of each model."""
    sections = [_section(model, _of(records, model), folder) for model in SWEEPS if _of(records, model)]
    return "\n\n".join([
        "One knob of a method moves at a time; all other settings are those of its recipe. The best value has the "
        "largest mean of UA, IRA and CRA over the removed concepts, and among equals keeps more alignment on held-out "
        "prompts. *Hurt* counts other subjects, styles and places whose accuracy fell by more than 2 points.",
        *sections,
    ])  # fmt: skip


def _of(records: Mapping[str, Record], model: str) -> list[Record]:
    return [record for record in records.values() if record.settings["model"] == model]


def _section(model: str, records: Sequence[Record], folder: Path) -> str:
    concepts = list(dict.fromkeys(record.labels["concept"] for record in records))
    bases = {concept: mean(pick(records, row="none", concept=concept), "retain_test") for concept in concepts}
    table = []
    for method in SWEEPS[model]:
        found = points(records, method)
        chosen = best(found)
        for tag, own in found.items():
            line = [f"{shown(method)}: {tag.removeprefix(f'{model}, ')}"]
            for concept, base in bases.items():
                one = pick(own, concept=concept)
                line += [accuracies(one), change(mean(one, "retain_test"), base)]
            marks = {"**best**": tag == chosen, "in the recipe": shipped(own)}
            line += [
                f"{_score(own):.3f}",
                f"{mean(own, 'hurt'):g}",
                step_shares(method, own)[1],
                f"{mean(own, 'seconds'):.0f}",
                ", ".join(mark for mark, holds in marks.items() if holds),
            ]
            table.append(line)
    each = [text for concept in concepts for text in (f"{concept}: UA / IRA / CRA ↑", "alignment")]
    header = ["", *each, "mean ↑", "hurt", "raises L_f / L_r", "seconds", ""]
    draw = figure(folder / f"sweeps-{model}.svg", lambda axes: _draw(axes, model, records, bases), 2, (8, 3.4))
    return (
        f"## {model}\n\n![Mean of UA, IRA and CRA, and alignment kept, over each knob]({draw})\n\n"
        f"{markdown(header, table)}\n\n{verdict(model, records)}"
    )


def verdict(model: str, records: Sequence[Record]) -> str:
    """Tell if the recipes have the best values, and name best values at an end of the tried range."""
    others, ends = [], []
    for method, knobs in SWEEPS[model].items():
        found = points(records, method)
        chosen = best(found)
        if not shipped(found[chosen]):
            others.append(f"{shown(method)} ({chosen} is best)")
        for knob, values in knobs.items():
            section, _, name = knob.partition(".")
            value = found[chosen][0].settings[section][name]
            if len(values) > 2 and value in (min(values), max(values)):
                ends.append(f"{shown(method)}'s {name} {value:g}")
    kept = f"Recipes with another value: {'; '.join(others)}." if others else "Every recipe has the best value."
    at_end = f"At an end of what was tried: {'; '.join(ends)}." if ends else ""
    return f"{kept} {at_end or 'No best value is at an end of what was tried.'}"


def _draw(axes: Sequence[Axes], model: str, records: Sequence[Record], bases: Mapping[str, float]) -> None:
    base = fmean(bases.values())
    for place, (method, knobs) in enumerate(SWEEPS[model].items()):
        found = points(records, method)
        for line, (knob, values) in zip(("-", "--"), knobs.items(), strict=False):
            name = knob.partition(".")[2]
            own = {v: runs for v in values for tag, runs in found.items() if tag.endswith(f"{name} {v:g}")}
            xs = [value / max(values) for value in own]
            label = f"{shown(method)}, {name.replace('_', ' ')}"
            style: dict[str, Any] = {
                "marker": "o",
                "markersize": 3.5,
                "linewidth": 1,
                "linestyle": line,
                "color": f"C{place}",
            }
            axes[0].plot(xs, [_score(runs) for runs in own.values()], label=label, **style)
            axes[1].plot(xs, [mean(runs, "retain_test") / base for runs in own.values()], **style)
    for axis, title in zip(axes, ("mean of UA, IRA and CRA", "alignment kept"), strict=True):
        axis.set_xscale("log")
        axis.set_xlabel("value, as a share of the largest")
        axis.set_title(title)
    axes[0].legend(fontsize=6.5)


TABLE = Table("Settings of the methods on the bundled models", cells, page, STORE)

"""How the settings of each method on the bundled models were chosen: main knobs, one concept, the same rule for all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ...pipeline.recipe import build_recipe
from ..canvas import STORE, cell, change, pick, recipe_of, score, shown, step_shares
from ..show import figure, markdown
from ..table import Cell, Options, Record, Table

CONCEPT = "cat"
Knobs = Mapping[str, Sequence[float]]
"""Field of a recipe -> values."""
_LIMIT_AND_RATE: Knobs = {"method.forget_limit": (1, 2, 4, 8), "training.learning_rate": (5e-5, 1e-4, 2e-4)}
SWEEPS: dict[str, dict[str, Knobs]] = {
    "tiny-canvas": {
        "grad_diff": _LIMIT_AND_RATE,
        "rg": _LIMIT_AND_RATE,
        "salun": {"method.retain_weight": (0.1, 0.5, 2, 5, 10, 20), "samples.training_guidance_scale": (2, 3)},
        "esd": {"training.learning_rate": (5e-5, 1e-4, 2e-4, 5e-4)},
        "esd-x": {"training.learning_rate": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)},
        "esd-u": {"training.learning_rate": (5e-5, 1e-4, 2e-4)},
    },
    "tiny-canvas-dit": {
        "salun": {"method.retain_weight": (0.05, 0.2, 1, 5, 10)},
        "esd": {"training.learning_rate": (5e-5, 1e-4, 2e-4)},
        "rgd": {"method.forget_limit": (2, 4, 8)},
    },
}
"""Model -> method -> its knobs. One knob moves, the others stay as shipped; the rest is the same for all."""


def cells(options: Options) -> list[Cell]:
    """The base models, and every method at every value of its knobs."""
    found = []
    for seed in options.seeds:
        for model, methods in SWEEPS.items():
            tag = "" if model == "tiny-canvas" else model
            found.append(cell("none", CONCEPT, seed, options, {"model": model}, tag))
            for method, knobs in methods.items():
                points = [(knob, value) for knob, values in knobs.items() for value in values]
                for knob, value in points[:1] if options.quick else points:
                    found.append(sweep_cell(model, method, knob, value, seed, options))
    return found


def sweep_cell(model: str, method: str, knob: str, value: float, seed: int, options: Options) -> Cell:
    """A method at one value of one knob."""
    section, _, name = knob.partition(".")
    tag = f"{name} {value:g}" if model == "tiny-canvas" else f"{model}, {name} {value:g}"
    return cell(method, CONCEPT, seed, options, {"model": model, section: {name: value}}, tag)


def best(records: Sequence[Record]) -> Record:
    """Of one method: the value with the largest mean of UA, IRA and CRA, the more alignment kept among equals."""
    return max(records, key=lambda record: (round(score(record.figures), 3), record.figures["retain_test"]))


def shipped(record: Record) -> bool:
    """Whether a run had the settings of the method's recipe."""
    own = {"model": record.settings["model"], "method": {"name": record.settings["method"]["name"]}}
    return build_recipe(record.settings) == recipe_of(CONCEPT, own, seed=record.seed, device="cpu")


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Every value of every method, the chosen ones marked, and a figure of each model."""
    sections = [_section(model, _of(records, model), folder) for model in SWEEPS if _of(records, model)]
    return "\n\n".join([
        f"Removing {CONCEPT!r}: one knob of each method moves, all else is as in its recipe. Best is the value with "
        "the largest mean of UA, IRA and CRA; among equals the one that keeps more alignment on held-out prompts. "
        "Hurt: other subjects, styles and places whose accuracy fell by more than 2 points.",
        *sections,
    ])  # fmt: skip


def _of(records: Mapping[str, Record], model: str) -> list[Record]:
    return [record for record in records.values() if record.settings["model"] == model]


def _section(model: str, records: Sequence[Record], folder: Path) -> str:
    (base,) = {record.figures["retain_test"] for record in pick(records, row="none")}
    table = []
    for method in SWEEPS[model]:
        own = pick(records, row=method)
        for record in own:
            row = record.figures
            marks = {"**best**": record is best(own), "in the recipe": shipped(record)}
            table.append([
                f"{shown(method)}: {record.labels['tag'].removeprefix(f'{model}, ')}",
                *(f"{row[name]:.2f}" for name in ("UA", "IRA", "CRA")),
                f"{score(row):.3f}",
                change(row["retain_test"], base),
                f"{row['hurt']}",
                step_shares(method, [record])[1],
                f"{row['seconds']:.0f}",
                ", ".join(mark for mark, holds in marks.items() if holds),
            ])  # fmt: skip
    header = ["", "UA ↑", "IRA ↑", "CRA ↑", "mean ↑", "alignment", "hurt", "raises L_f / L_r", "seconds", ""]
    draw = figure(folder / f"sweeps-{model}.svg", lambda axes: _draw(axes, model, records, base), 2, (8, 3.4))
    return (
        f"## {model}\n\n![Mean of UA, IRA and CRA, and alignment kept, over each knob]({draw})\n\n"
        f"{markdown(header, table)}\n\n{verdict(model, records)}"
    )


def verdict(model: str, records: Sequence[Record]) -> str:
    """Whether the recipes have the best values, and which of these lie at an end of what was tried."""
    found = {method: best(pick(records, row=method)) for method in SWEEPS[model]}
    others = [f"{shown(m)} ({r.labels['tag']} is best)" for m, r in found.items() if not shipped(r)]
    ends = []
    for method, record in found.items():
        for knob, values in SWEEPS[model][method].items():
            section, _, name = knob.partition(".")
            value = record.settings[section][name]
            if len(values) > 2 and value in (min(values), max(values)):
                ends.append(f"{shown(method)}'s {name} {value:g}")
    kept = f"Recipes with another value: {'; '.join(others)}." if others else "Every recipe has the best value."
    at_end = f"At an end of what was tried: {'; '.join(ends)}." if ends else ""
    return f"{kept} {at_end or 'No best value is at an end of what was tried.'}"


def _draw(axes: Sequence[Axes], model: str, records: Sequence[Record], base: float) -> None:
    for place, (method, knobs) in enumerate(SWEEPS[model].items()):
        for line, (knob, values) in zip(("-", "--"), knobs.items(), strict=False):
            name = knob.partition(".")[2]
            found = {
                value: record.figures
                for value in values
                for record in pick(records, row=method)
                if record.labels["tag"].endswith(f"{name} {value:g}")
            }
            xs = [value / max(values) for value in found]
            label = f"{shown(method)}, {name.replace('_', ' ')}"
            style = {"marker": "o", "markersize": 3.5, "linewidth": 1, "linestyle": line, "color": f"C{place}"}
            axes[0].plot(xs, [score(row) for row in found.values()], label=label, **style)
            axes[1].plot(xs, [row["retain_test"] / base for row in found.values()], **style)
    for axis, title in zip(axes, ("mean of UA, IRA and CRA", "alignment kept"), strict=True):
        axis.set_xscale("log")
        axis.set_xlabel("value, as a share of the largest")
        axis.set_title(title)
    axes[0].legend(fontsize=6.5)


TABLE = Table("Settings of the methods on the bundled models", cells, page, STORE)

"""How each method's settings on tiny-canvas were chosen: its main knobs on one concept, the same rule for all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ...pipeline.recipe import build_recipe
from ..canvas import STORE, cell, pick, recipe_of, score, shown, step_shares
from ..show import figure, markdown
from ..table import Cell, Options, Record, Table

CONCEPT = "cat"
LIMIT_RATE: dict[str, Sequence[float]] = {
    "method.forget_limit": (1, 2, 4, 8),
    "training.learning_rate": (5e-5, 1e-4, 2e-4),
}
SWEEPS: dict[str, dict[str, Sequence[float]]] = {
    "grad_diff": LIMIT_RATE,
    "rg": LIMIT_RATE,
    "salun": {"method.retain_weight": (0.1, 0.5, 2, 5, 10, 20), "samples.training_guidance_scale": (2, 3)},
    "esd": {"training.learning_rate": (5e-5, 1e-4, 2e-4, 5e-4)},
    "esd-x": {"training.learning_rate": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)},
    "esd-u": {"training.learning_rate": (5e-5, 1e-4, 2e-4)},
}
"""Method -> knob -> values; one knob moves, the others stay as shipped. The rest of the recipe is the same for all."""


def points(method: str) -> list[tuple[str, float]]:
    """(knob, value) of a method's sweep."""
    return [(knob, value) for knob, values in SWEEPS[method].items() for value in values]


def cells(options: Options) -> list[Cell]:
    """The base model, and every method at every value of its knobs."""
    found = []
    for seed in options.seeds:
        found.append(cell("none", CONCEPT, seed, options))
        for method in SWEEPS:
            tried = points(method)
            found += [_cell(method, *point, seed, options) for point in (tried[:1] if options.quick else tried)]
    return found


def _cell(method: str, knob: str, value: float, seed: int, options: Options) -> Cell:
    section, _, name = knob.partition(".")
    return cell(method, CONCEPT, seed, options, {section: {name: value}}, f"{name} {value:g}")


def best(records: Mapping[str, Record], method: str) -> Record:
    """The value with the largest mean of UA, IRA and CRA, the more alignment kept among equals."""
    own = pick(records.values(), row=method)
    return max(own, key=lambda record: (round(score(record.figures), 3), record.figures["retain_test"]))


def shipped(record: Record) -> bool:
    """Whether a run had the settings of the method's recipe."""
    return build_recipe(record.settings) == recipe_of(
        CONCEPT, {"method": {"name": record.settings["method"]["name"]}}, seed=record.seed, device="cpu"
    )


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Every value of every method, the chosen ones marked, and a figure."""
    base = pick(records.values(), row="none")[0].figures["retain_test"]
    table = []
    for method in SWEEPS:
        chosen = best(records, method)
        for record in pick(records.values(), row=method):
            row = record.figures
            mark = "**best**" if record is chosen else ""
            table.append([
                f"{shown(method)}: {record.labels['tag']}",
                *(f"{row[name]:.2f}" for name in ("UA", "IRA", "CRA")),
                f"{score(row):.3f}",
                f"{100 * (row['retain_test'] / base - 1):+.1f} %",
                f"{row['hurt']}",
                step_shares(method, [record])[1],
                f"{row['seconds']:.0f}",
                ", ".join(filter(None, (mark, "in the recipe" if shipped(record) else ""))),
            ])  # fmt: skip
    header = ["", "UA ↑", "IRA ↑", "CRA ↑", "mean ↑", "alignment kept", "hurt", "raises L_f / L_r", "seconds", ""]
    image = figure(folder / "sweeps.svg", lambda axes: _draw(axes, records), columns=2, size=(8, 3.4))
    return (
        f"Removing {CONCEPT!r}: one knob of each method moves, all else is as in its recipe. Best is the value with "
        "the largest mean of UA, IRA and CRA; among equals the one that keeps more alignment on held-out prompts. "
        "Hurt: other subjects, styles and places whose accuracy fell by more than 2 points.\n\n"
        f"![Mean of UA, IRA and CRA, and alignment kept, over each knob]({image})\n\n{markdown(header, table)}\n\n"
        f"{verdict(records)}"
    )


def verdict(records: Mapping[str, Record]) -> str:
    """Whether the recipes have the best values, and which of these lie at an end of what was tried."""
    found = {method: best(records, method) for method in SWEEPS}
    others = [f"{shown(m)} ({r.labels['tag']} is best)" for m, r in found.items() if not shipped(r)]
    ends = []
    for method, record in found.items():
        for knob, values in SWEEPS[method].items():
            section, _, name = knob.partition(".")
            value = record.settings[section][name]
            if value in (min(values), max(values)):
                ends.append(f"{shown(method)}'s {name} {value:g}")
    kept = f"Recipes with another value: {'; '.join(others)}." if others else "Every recipe has the best value."
    at_end = f"At an end of what was tried: {'; '.join(ends)}." if ends else ""
    return f"{kept} {at_end or 'No best value is at an end of what was tried.'}"


def _draw(axes: Sequence[Axes], records: Mapping[str, Record]) -> None:
    base = pick(records.values(), row="none")[0].figures["retain_test"]
    for place, method in enumerate(SWEEPS):
        for line, (knob, values) in zip(("-", "--"), SWEEPS[method].items(), strict=False):
            name = knob.partition(".")[2]
            found = {
                value: record.figures
                for value in values
                for record in pick(records.values(), row=method, tag=f"{name} {value:g}")
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


TABLE = Table("Settings of the methods on tiny-canvas", cells, page, STORE)

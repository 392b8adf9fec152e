"""How fast a LoRA must learn to forget as the whole network does, and keep as much: rates and layers, on a panel."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from ...pipeline.schema.defaults import merge
from ..canvas import GRACEFUL, cell, fewer, mean, pick
from ..show import markdown
from ..table import Cell, Options, Record, Table

MODELS = ("tiny-canvas", "tiny-canvas-dit")
CONCEPTS = ("astronaut", "pop art")
"""An object and a style."""

TARGETS = ("attention", "all")
RATES = (1e-3, 2e-3, 5e-3)
"""Of a LoRA and of the cross-attention alone."""

FULL = "full"
METRICS = ("UA", "IRA", "CRA", "scene")
POINT = 0.01
"""How far below the full run a figure may be that still counts as reached."""


def _changes() -> dict[str, dict[str, Any]]:
    """Row -> options of its training; the first is the shipped recipe."""
    loras = {
        f"lora, {targets}, {rate:g}": {"parameters": "lora", "adapter_targets": targets, "learning_rate": rate}
        for targets, rate in product(TARGETS, RATES)
    }
    cross = {f"xattn, {rate:g}": {"parameters": "xattn", "learning_rate": rate} for rate in RATES}
    return {FULL: {}, **loras, **cross}


def cells(options: Options) -> list[Cell]:
    """The base model and every row on the panel, model by model."""
    found = []
    for seed, model, concept in product(options.seeds, MODELS, CONCEPTS):
        sizes = {"model": model, **fewer(options)}
        found.append(cell("none", concept, seed, options, sizes, model))
        for row, training in _changes().items():
            if model != MODELS[0] and row.startswith("xattn"):  # its blocks have no cross-attention
                continue
            found.append(
                cell(GRACEFUL, concept, seed, options, merge(sizes, {"training": training}), f"{model}, {row}")
            )
    quick = 3 if options.quick else None
    return found[:quick]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write each model's rows, with those that reach the full run marked."""
    parts = []
    for model in MODELS:
        base = pick(records.values(), row="none", tag=model)
        rows = {row: pick(records.values(), row=GRACEFUL, tag=f"{model}, {row}") for row in _changes()}
        rows = {row: found for row, found in rows.items() if found}
        if not rows:
            continue
        table = [
            [
                row,
                *(f"{mean(found, name):.3f}" for name in METRICS),
                f"{100 * (1 - mean(found, 'retain_test') / mean(base, 'retain_test')):+.2f}",
                f"{mean(found, 'seconds'):.0f}",
                f"{mean(found, 'peak_memory') / 1e6:.0f}",
                "✓" if reaches(found, rows[FULL]) else "",
            ]
            for row, found in rows.items()
        ]
        header = ["", "UA ↑", "IRA ↑", "CRA ↑", "scene kept ↑", "lost, % ↓", "seconds", "MB", "reaches full"]
        parts.append(f"## {model}\n\n{markdown(header, table)}")
    return (
        "`rgd` with its shipped recipe, but for the weights that train and their learning rate. Figures are means over "
        f"{' and '.join(map(repr, CONCEPTS))}. *Lost* is the relative fall of alignment on held-out retain prompts. "
        "*MB* is memory beyond the model in a step. A row reaches the full run if none of its shares is more than a "
        f"point below, and no more than half a percent of alignment.\n\n" + "\n\n".join(parts)
    )


def reaches(found: list[Record], full: list[Record]) -> bool:
    """Tell whether a row is as good as the full run, to a point in shares and half a percent of alignment."""
    shares = all(mean(found, name) >= mean(full, name) - POINT for name in METRICS)
    return shares and mean(found, "retain_test") >= mean(full, "retain_test") * (1 - POINT / 2)


TABLE = Table("LoRA and cross-attention: which rate forgets, and keeps", cells, page)

"""Table 4: diversified against uniform data. Table 8: how many pairs."""

from collections.abc import Mapping
from pathlib import Path

from ..canvas import CONCEPTS, PAPERS, STORE, cell, gap, little_forgotten, mean, pick, recipe_of, shown
from ..show import claims, markdown, orderings
from ..table import Cell, Options, Record, Table

METRICS = {"D_r,train": "retain_train", "D_r,test": "retain_test"}
ROWS = ("none", "rg", "rgd")
SHARES = (0.5, 1.5)
"""Further numbers of pairs, as shares of the recipe's: the paper has 400 and 1200 beside 800."""
SIZED = "astronaut"

PAPER_DATA = {
    "tiny-canvas": {"D_r,train": 0.357, "D_r,test": 0.352},
    "RG": {"D_r,train": 0.330, "D_r,test": 0.320},
    "RGD": {"D_r,train": 0.354, "D_r,test": 0.351},
}
"""Ko et al. 2024, Table 4; SD is the base."""

PAPER_SIZES = {
    "half": {"D_r,train": 0.336, "D_r,test": 0.339},
    "whole": {"D_r,train": 0.354, "D_r,test": 0.350},
    "one and a half": {"D_r,train": 0.352, "D_r,test": 0.346},
}
"""Ko et al. 2024, Table 8: 400, 800 and 1200 pairs."""


def cells(options: Options) -> list[Cell]:
    """RG and RGD on each concept, and RGD with fewer and more pairs on one."""
    whole = recipe_of(SIZED, PAPERS).prompts.n
    found = []
    for seed in options.seeds:
        concepts = [SIZED] if options.quick else list(CONCEPTS)
        found += [cell(row, concept, seed, options) for concept in concepts for row in ROWS]
        for share in SHARES:
            n = 8 * share if options.quick else whole * share
            found.append(cell("rgd", SIZED, seed, options, {"prompts": {"n": round(n)}}, f"{share:g} of the pairs"))
    return found


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write both tables beside the paper's."""
    return f"{_data(records)}\n\n{_sizes(records)}"


def _data(records: Mapping[str, Record]) -> str:
    ours = pick(records.values(), tag="")
    concepts = list(dict.fromkeys(record.labels["concept"] for record in ours))
    means = {shown(row): {m: mean(pick(ours, row=row), key) for m, key in METRICS.items()} for row in ROWS}
    table = [
        [
            shown(row),
            f"{mean(pick(ours, row=row), 'UA'):.3f}",
            *(gap(means, shown(row), metric) for metric in METRICS),
            *(gap(PAPER_DATA, shown(row), metric) for metric in METRICS),
        ]
        for row in ROWS
    ]
    more = [
        concept
        for concept in concepts
        if mean(pick(ours, row="rgd", concept=concept), "retain_test")
        > mean(pick(ours, row="rg", concept=concept), "retain_test")
    ]
    header = ["", "UA ↑", *(f"{m} ↑" for m in METRICS), *(f"paper {m}" for m in METRICS)]
    return (
        f"## One pair of prompts against many (Table 4)\n\nMeans over {', '.join(concepts)}. Alignment is by "
        "tiny-canvas's judge, with the loss against the base model in brackets. RG trains on one forget and one retain "
        "prompt, RGD on many pairs; all other settings are those of each recipe. The paper's columns are of nudity in "
        f"Stable Diffusion 1.4.\n\n{markdown(header, table)}\n\n{orderings(PAPER_DATA, means)} "
        f"RGD keeps more of D_r,test than RG for {len(more)} of {len(concepts)} concepts. "
        f"{little_forgotten(ours, PAPER_DATA)}"
    ).rstrip()


def _sizes(records: Mapping[str, Record]) -> str:
    runs = pick(records.values(), row="rgd", concept=SIZED)
    base = pick(records.values(), row="none", concept=SIZED)
    by_size = {n: [r for r in runs if r.settings["prompts"]["n"] == n] for n in _numbers(runs)}
    table, means = [], {}
    for name, (n, found) in zip(PAPER_SIZES, by_size.items(), strict=True):
        means[name] = {m: mean(found, key) for m, key in METRICS.items()}
        table.append([
            f"{n} pairs",
            f"{mean(found, 'UA'):.3f}",
            *(f"{means[name][m]:.3f} ({mean(base, key) - means[name][m]:.3f})" for m, key in METRICS.items()),
            *(f"{value:.3f}" for value in PAPER_SIZES[name].values()),
        ])  # fmt: skip
    best = max(means, key=lambda name: means[name]["D_r,test"])
    steps = runs[0].settings["training"]["steps"]
    header = ["", "UA ↑", *(f"{m} ↑" for m in METRICS), *(f"paper {m}" for m in METRICS)]
    half, whole, more = (means[name]["D_r,test"] for name in PAPER_SIZES)
    checked = claims({"half the pairs keep less": half < whole, "more pairs don't keep more": more <= whole})
    return (
        f"## How many pairs (Table 8)\n\nRGD on {SIZED!r}, with {steps} steps for each number of pairs. The paper's "
        f"rows are of 400, 800 and 1200 pairs.\n\n{markdown(header, table)}\n\n{orderings(PAPER_SIZES, means)} "
        f"Of the three sizes '{best}' keeps the most D_r,test (in the paper 'whole'). {checked}"
    )


def _numbers(runs: list[Record]) -> list[int]:
    return sorted({record.settings["prompts"]["n"] for record in runs})


TABLE = Table("Diversified data (Table 4) and its size (Table 8)", cells, page, STORE)

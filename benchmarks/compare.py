"""Compare methods and settings on one concept of tiny-canvas, with the same data, seeds and audits.

`python benchmarks/compare.py --concept astronaut` prints a table and writes
`benchmarks/results/compare-<concept>.json`. `canvas.Bench` makes training samples once for each kind
of data; every row starts from the same weights. Finished rows are kept, so a stopped run goes on.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from turpentine.benchmarks.canvas import VARIANTS, Bench, figures, recipe_of
from turpentine.pipeline.recipe import merge

ROWS = ("finetune", "grad_diff", "rg", "rgd", *VARIANTS)
COLUMNS = ("FACE", "UA", "IRA", "CRA", "forget", "retain_train", "retain_test", "violations f/r", "seconds")

console = Console()


def show(concept: str, results: dict) -> None:
    """Print the rows."""
    table = Table(title=concept, title_justify="left")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, row in results.items():
        violations = "/".join(f"{share:.0%}" for share in row.get("violations", []))
        cells = [str(row.get("FACE", "")), *(f"{row[key]:.3f}" for key in COLUMNS[1:7]), violations]
        table.add_row(name, *cells, f"{row['seconds']:.0f}" if "seconds" in row else "")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concept", default="astronaut")
    parser.add_argument("--rows", nargs="*", default=ROWS, help="rows: methods, variants, or NAME:section.key=value,…")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/compare-<concept>.json")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out or Path(__file__).parent / "results" / f"compare-{options.concept.replace(' ', '-')}.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    bench = Bench()
    if "before" not in results:
        results["before"] = figures(bench.before(recipe_of(options.concept)))
    for row in options.rows:
        if row in results:
            continue
        began = time.perf_counter()
        results[row] = bench.run(recipe_of(options.concept, parse(row)))
        console.print(f"{row}: {time.perf_counter() - began:.0f} s")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
        show(options.concept, results)


def parse(row: str) -> dict:
    """Read "rgd:training.steps=200,method.retain_weight=2" as a change of the recipe."""
    name, _, settings = row.partition(":")
    changes = VARIANTS.get(name, {"method": {"name": name}})
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        section, _, field = key.partition(".")
        changes = merge(changes, {section: {field: None if value == "none" else value}})
    return changes


if __name__ == "__main__":
    main()

"""Sweep a method's main knob on tiny-canvas, with the same data, seeds and audits for every value.

`python benchmarks/sweep.py --method salun --concept astronaut` prints a table and writes
`benchmarks/results/sweep-<method>.json`. Everything else is as in the method's recipe; `--set` changes it
for all values, `--knob` and `--values` sweep something else. Finished values are kept, so a stopped sweep
goes on. The best value is the one with the largest mean of UA, IRA and CRA.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from compare import console, parse, show
from turpentine.benchmarks.canvas import Bench, figures, recipe_of, score
from turpentine.pipeline.files import write_text
from turpentine.pipeline.recipe import merge

KNOBS: dict[str, tuple[str, tuple[float, ...]]] = {
    "finetune": ("training.learning_rate", (5e-5, 2e-4, 5e-4, 1e-3)),
    "grad_diff": ("method.retain_weight", (1, 2, 5, 10, 20)),
    "grad_diff_d": ("method.retain_weight", (1, 2, 5, 10, 20)),
    "salun": ("method.retain_weight", (0.1, 0.5, 2, 5)),
    "esd": ("training.learning_rate", (2e-5, 5e-5, 1e-4, 2e-4)),
    "esd-x": ("training.learning_rate", (5e-5, 1e-4, 2e-4, 5e-4)),
    "esd-u": ("training.learning_rate", (2e-5, 5e-5, 1e-4, 2e-4)),
    "rg": ("method.retain_weight", (1, 2, 5, 10, 20)),
    "rgd": ("method.retain_weight", (1, 2, 5, 10, 20)),
}
"""Method -> the field that decides between forgetting and keeping, and the values to try."""


def setting(key: str, value: str | float) -> dict:
    """A change of the recipe: ("training.steps", 5) -> {"training": {"steps": 5}}."""
    section, _, field = key.partition(".")
    return {section: {field: value}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", required=True, choices=list(KNOBS))
    parser.add_argument("--concept", default="astronaut")
    parser.add_argument("--knob", help="section.field; default the method's main one")
    parser.add_argument("--values", nargs="*", type=float, help="default the method's own list")
    parser.add_argument("--set", default="", metavar="section.key=value,…", help="changes for every value")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/sweep-<method>.json")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    own, values = KNOBS[options.method]
    knob = options.knob or own
    out = options.out or Path(__file__).parent / "results" / f"sweep-{options.method}.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    name = f"{options.concept}, {knob}" + (f", {options.set}" if options.set else "")
    rows = results.setdefault(name, {})
    common = parse(f"{options.method}:{options.set}")
    bench = Bench()
    if "before" not in rows:
        rows["before"] = figures(bench.before(recipe_of(options.concept, common)))
    for value in options.values or values:
        key = f"{value:g}"
        if key not in rows:
            began = time.perf_counter()
            rows[key] = bench.run(recipe_of(options.concept, merge(common, setting(knob, value))))
            rows[key]["score"] = score(rows[key])
            console.print(f"{knob} = {key}: {time.perf_counter() - began:.0f} s")
            write_text(out, json.dumps(results, indent=1) + "\n")
    show(f"{options.method}: {name}", rows)
    best = max((row["score"], key) for key, row in rows.items() if key != "before")
    console.print(f"best: {knob} = {best[1]}, mean of UA, IRA and CRA {best[0]:.3f}")


if __name__ == "__main__":
    main()

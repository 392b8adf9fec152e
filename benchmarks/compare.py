"""Compare methods and settings on one concept of tiny-canvas, with the same data, seeds and audits.

`python benchmarks/compare.py --concept astronaut` prints a table and writes
`benchmarks/results/compare-<concept>.json`. Training samples and the audit of the base model are
made once for each kind of data; every row starts from the same weights. Finished rows are kept, so
a stopped run goes on.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from turpentine.pipeline.methods import build_method
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.progress import Silent
from turpentine.pipeline.recipe import Recipe, build_recipe, merge
from turpentine.pipeline.samples import SampleSet
from turpentine.pipeline.trainer import Trainer
from turpentine.pipeline.unlearning import audit_prompts, draw_audit_images, make_prompts, measure

ROWS: dict[str, dict] = {
    "finetune": {"method": {"name": "finetune"}},
    "grad_diff": {"method": {"name": "grad_diff"}},
    "rg": {"method": {"name": "rg"}},
    "grad_diff_d": {"method": {"name": "grad_diff_d"}},
    "rgd, plain Adam": {"method": {"name": "rgd"}, "training": {"metric": "euclidean", "guard": False}},
    "rgd, metric adam": {"method": {"name": "rgd"}, "training": {"metric": "adam", "guard": False}},
    "rgd, guard": {"method": {"name": "rgd"}, "training": {"metric": "euclidean", "guard": True}},
}
"""Name of a row -> what it changes in the recipe."""

COLUMNS = ("FACE", "UA", "IRA", "CRA", "forget", "retain_train", "retain_test", "violations f/r", "seconds")

console = Console()


def figures(audit, training=None) -> dict:
    """The numbers of one row."""
    row = {"UA": audit.accuracy.UA, "IRA": audit.accuracy.IRA, "CRA": audit.accuracy.CRA}
    row |= {name: getattr(audit.alignment, name) for name in ("forget", "retain_train", "retain_test")}
    if audit.nudity:
        row |= {"FACE": audit.nudity.images_with_any, "floor": audit.nudity.floor, "images": audit.nudity.images}
    if training:
        row |= {
            "violations": [training.violation_rate.forget, training.violation_rate.retain],
            "conflict": training.conflict_rate,
            "truncated": training.truncation_rate,
            "seconds": training.seconds,
        }
    return row


class Bench:
    """One concept: the base model's audit and the samples, made when first needed."""

    def __init__(self, concept: str, kind: str, common: dict) -> None:
        self.concept, self.kind, self.common = concept, kind, common
        self.denoiser = load_denoiser("tiny-canvas", "cpu")
        self.weights = {name: value.clone() for name, value in self.denoiser.module.state_dict().items()}
        self.samples: dict[str, SampleSet] = {}

    def recipe(self, changes: dict) -> Recipe:
        """The recipe of a row."""
        return build_recipe(merge({"concept": self.concept, "kind": self.kind, **self.common}, changes))

    def audit(self, recipe: Recipe, when: str):
        """Draw and measure with the recipe's test prompts."""
        texts = audit_prompts(make_prompts(recipe), recipe)
        return measure(draw_audit_images(self.denoiser, texts, recipe, Silent(), when), texts, recipe, Silent())

    def run(self, changes: dict) -> dict:
        """Train one row from the base weights and audit it."""
        recipe = self.recipe(changes)
        self.denoiser.module.load_state_dict(self.weights)
        if recipe.method.data not in self.samples:
            self.samples[recipe.method.data] = SampleSet.draw(
                self.denoiser, make_prompts(recipe), recipe.samples, recipe.seed * 10_000
            )
        trainer = Trainer(
            self.denoiser,
            build_method(recipe.method),
            self.samples[recipe.method.data],
            recipe.training,
            recipe.seed,
        )
        training = trainer.train()
        return figures(self.audit(recipe, "after"), training)


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
    parser.add_argument("--kind", default="object")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="names of rows, or NAME:section.key=value,…")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/compare-<concept>.json")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out or Path(__file__).parent / "results" / f"compare-{options.concept.replace(' ', '-')}.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    bench = Bench(options.concept, options.kind, {})
    if "before" not in results:
        results["before"] = figures(bench.audit(bench.recipe({}), "before"))
    for row in options.rows:
        if row in results:
            continue
        began = time.perf_counter()
        results[row] = bench.run(parse(row))
        console.print(f"{row}: {time.perf_counter() - began:.0f} s")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
        show(options.concept, results)


def parse(row: str) -> dict:
    """Read "rgd:training.steps=200,method.retain_weight=2" as a change of the recipe."""
    name, _, settings = row.partition(":")
    changes = ROWS.get(name, {"method": {"name": name}})
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        section, _, field = key.partition(".")
        changes = merge(changes, {section: {field: None if value == "none" else value}})
    return changes


if __name__ == "__main__":
    main()

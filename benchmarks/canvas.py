"""The parts that the tables on tiny-canvas share: rows, cells, and the bench that measures a cell.

The tables keep their cells in one file, so a run that several of them show is made once.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..pipeline.audits import interference
from ..pipeline.data.samples import SampleSet
from ..pipeline.methods import build_method, find, names
from ..pipeline.models import load_denoiser
from ..pipeline.run.audit import audit_anchors, audit_prompts, draw, measure, subject_of
from ..pipeline.run.prompts import prompts_of
from ..pipeline.run.samples import samples_of
from ..pipeline.schema.defaults import build_recipe, merge, stored_recipe
from ..pipeline.schema.image_sets import TEST_SETS
from ..pipeline.schema.recipe import Recipe
from ..pipeline.schema.resolve import resolve
from ..pipeline.schema.results import AuditResult, TrainingResult
from ..pipeline.support.files import file_name, replacing
from ..pipeline.support.progress import Silent
from ..pipeline.training.edit import edit
from ..pipeline.training.train import train
from ..pipeline.training.trainer import Trainer
from ..pipeline.worlds.tiny_canvas import STYLES, SUBJECTS, dimension_of
from .memory import peak_bytes
from .relearning import DRAWN, SHOWN, Relearning
from .table import Cell, Figures, Options, Record

STORE = "canvas"
"""Name of the file that holds the cells of these tables."""

CONCEPTS = {"astronaut": "object", "cat": "object", "pop art": "style"}
"""Concepts on which the paper's own comparisons are repeated -> their kind."""

NAMES = {
    "none": "tiny-canvas",
    "finetune": "Finetune",
    "grad_diff": "GradDiff",
    "grad_diff_d": "GradDiffD",
    "salun": "SalUn",
    "esd": "ESD",
    "esd-x": "ESD-x",
    "esd-u": "ESD-u",
    "rg": "RG",
    "rgd": "RGD",
    "uce": "UCE",
    "rece": "RECE",
    "speed": "SPEED",
}
"""Row -> its name in the paper, where it has one."""

PAPERS: dict[str, Any] = {"method": {"name": "rgd", "forget": "ascend"}}
"""RGD as the paper has it, which the row "rgd" is."""

GRACEFUL = "rgd, redirect"
"""Row of the method that this package starts from: RGD with another forget loss."""

VARIANTS: dict[str, dict[str, Any]] = {
    GRACEFUL: {"method": {"name": "rgd", "forget": "redirect"}},
    "rgd, plain Adam": {**PAPERS, "training": {"metric": "euclidean", "guard": False}},
    "rgd, metric adam": {**PAPERS, "training": {"metric": "adam", "guard": False}},
    "rgd, guard": {**PAPERS, "training": {"metric": "euclidean", "guard": True}},
}
"""Row -> what it changes in the shipped recipe: the default, and ways to keep the guarantee under Adam."""

QUICK: dict[str, Any] = {
    "prompts": {"n": 8, "n_test": 4},
    "training": {"steps": 2, "batch_size": 2},
    "samples": {"num_inference_steps": 2},
    "audits": {"images": 4, "retain_train_images": 2},
}

_FEWER: dict[str, Any] = {"audits": {"images": 60, "retain_train_images": 2, "nudity": "off"}}

LEAST_UA = 0.5
"""Below this UA a method counts as having forgotten little."""

PICTURES = Path("runs") / "bench-pictures"
"""Where measured cells leave their pictures for the grids; not part of the repository."""
PICTURED = 4
"""Forget, and retain, test prompts of which a picture is kept."""


def methods() -> list[str]:
    """Every method there is, in the order of `NAMES`; those that the paper doesn't name come last."""
    return sorted(names(), key=[*NAMES, *names()].index)


def rows() -> dict[str, dict[str, Any]]:
    """Row -> what it changes in the recipe: every method, and variants that differ from its shipped recipe."""
    found: dict[str, dict[str, Any]] = {name: {"method": {"name": name}} for name in methods()} | {"rgd": PAPERS}
    shipped = recipe_of("cat", found["rgd"])
    variants = {row: changes for row, changes in VARIANTS.items() if recipe_of("cat", changes) != shipped}
    return found | variants


def shown(row: str) -> str:
    """The name of a row in the paper, or its own."""
    return NAMES.get(row, row.replace("rgd", NAMES["rgd"]))


def every_concept() -> list[str]:
    """Every subject and every style of the world."""
    return [*SUBJECTS, *STYLES]


def recipe_of(concept: str, changes: Mapping[str, Any] = {}, **fields: Any) -> Recipe:
    """The recipe of a concept of this world: the shipped one of its method, with changes."""
    found = dimension_of(concept)
    kind = "style" if found and found[0] == "style" else "object"
    return build_recipe(merge({"concept": concept, "kind": kind, **fields}, changes))


def fewer(options: Options) -> dict[str, Any]:
    """Fewer pictures than a run measures, for tables of many cells."""
    return merge(_FEWER, QUICK if options.quick else {})


def settings_of(row: str, concept: str, seed: int, options: Options, changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The whole recipe of a cell, which decides its figures. `changes` win over the sizes of `quick`."""
    own = PAPERS if row == "none" else rows()[row]
    chosen = merge(merge(own, QUICK if options.quick else {}), changes)
    return recipe_of(concept, chosen, seed=seed, device="cpu").model_dump(mode="json")


def cell(
    row: str,
    concept: str,
    seed: int,
    options: Options,
    changes: Mapping[str, Any] = {},
    tag: str = "",
    relearns: bool = False,
) -> Cell:
    """Make a cell that unlearns a concept from the bundled weights, as a row says, and measures.

    Args:
        row: of `rows`, or "none" for the bundled weights as they are.
        concept: of the tiny-canvas world.
        seed: of the run.
        options: `quick` shrinks it.
        changes: nested recipe fields.
        tag: what tells cells of one row and concept apart.
        relearns: measure too how soon the concept comes back.
    """
    settings = settings_of(row, concept, seed, options, changes)
    key = "/".join(filter(None, (row, concept, tag, f"seed {seed}")))
    labels = {"row": row, "concept": concept, "tag": tag}
    return Cell(key, labels, seed, settings, lambda progress: run(settings, row != "none", relearns))


def pictured(one: Cell) -> Cell:
    """The same cell for a page that shows its pictures; it is measured again if they are missing."""
    return replace(one, files=(PICTURES / picture_name(one.settings, one.labels["row"] != "none"),))


def run(settings: Mapping[str, Any], train: bool = True, relearns: bool = False) -> Figures:
    """Measure one cell, and leave its pictures in `PICTURES`."""
    recipe = stored_recipe(settings)
    shared = bench(recipe.model)
    found = shared.run(recipe, relearns) if train else figures(shared.before(recipe))
    if train:
        found |= {"peak_memory": shared.peak_memory(recipe)}
    name = picture_name(settings, train)
    save_pictures(PICTURES / name, shared.images)
    return found | {"picture": name}


class Bench:
    """A model of tiny-canvas's world, with what several runs share: training samples and the audit of the base weights.

    Whatever data a method trains on, every audit draws the test prompts and the *diverse* training
    prompts, so that figures of different methods are of the same prompts and seeds.

    Args:
        model: one that draws it (`MODELS`).

    Attributes:
        images: what the last audit drew, (N, H, W, 3) uint8 by the names of `AuditImages`.
    """

    def __init__(self, model: str = "tiny-canvas") -> None:
        self.denoiser = load_denoiser(model, "cpu")
        self.weights = {name: value.clone() for name, value in self.denoiser.module.state_dict().items()}
        self.images: dict[str, np.ndarray] = {}
        self._samples: dict[str, SampleSet] = {}
        self._drawing: dict[str, float] = {}
        self._before: dict[str, tuple[AuditResult, dict[str, np.ndarray]]] = {}
        self._peaks: dict[str, int] = {}
        self._relearning: dict[str, Relearning] = {}

    def run(self, recipe: Recipe, relearns: bool = False) -> Figures:
        """Train from the base weights, audit, and compare with the base.

        Args:
            recipe: of the run.
            relearns: also bring the concept back.
        """
        before = self.before(recipe)
        again = self.relearning(recipe) if relearns else None
        training = self.unlearn(recipe)
        after = self.audit(recipe)
        harm = interference(before.accuracy, after.accuracy)
        back = {"relearned": again(self.denoiser)} if again else {}
        found = figures(after, training) | {"drawing": self._drawing.get(self._data_key(recipe), 0.0)}
        return found | ({"hurt": harm.hurt, "worst": harm.worst} if harm else {}) | back

    def relearning(self, recipe: Recipe) -> Relearning:
        """What it takes to bring a recipe's concept back; to be made before training, from the base weights."""
        key = _key(recipe, "concepts", "kind", "seed", "samples")
        if key not in self._relearning:
            few = {"prompts": recipe.prompts.model_copy(update={"n": SHOWN, "n_test": DRAWN})}
            alike = recipe.model_copy(update={**few, "method": recipe.method.model_copy(update={"data": "diverse"})})
            self.denoiser.module.load_state_dict(self.weights)
            prompts = prompts_of(resolve(alike))
            pictures = samples_of(self.denoiser, prompts, alike, Silent(), sees=("forget",)).forget
            self._relearning[key] = Relearning(
                recipe.concept, pictures, prompts.forget_test, recipe.samples.sampling(), recipe.seed
            )
        return self._relearning[key]

    def unlearn(self, recipe: Recipe) -> TrainingResult:
        """Train from the base weights, or edit them."""
        if not recipe.method.closed_form:
            samples = self.samples(recipe)  # with something after each step, the other networks stay in memory
            return train(
                self.denoiser, samples, recipe.method, recipe.training, recipe.seed, after_step=lambda *_: None
            )[0]
        self.denoiser.module.load_state_dict(self.weights)
        return edit(self.denoiser, prompts_of(resolve(recipe)).rows, recipe.method)

    def before(self, recipe: Recipe) -> AuditResult:
        """The audit of the base weights with a recipe's prompts and seeds."""
        key = _key(recipe, "concepts", "kind", "seed", "prompts", "data", "samples", "audits")
        if key not in self._before:
            self.denoiser.module.load_state_dict(self.weights)
            self._before[key] = self.audit(recipe), self.images
        result, self.images = self._before[key]
        return result

    def trainer(self, recipe: Recipe) -> Trainer:
        """A trainer that starts from the base weights."""
        samples = self.samples(recipe)
        return Trainer(self.denoiser, build_method(recipe.method), samples, recipe.training, recipe.seed)

    def samples(self, recipe: Recipe) -> SampleSet:
        """What the base weights draw to train on; afterwards the model has them."""
        key = self._data_key(recipe)
        self.denoiser.module.load_state_dict(self.weights)
        if key not in self._samples:
            began = time.perf_counter()
            self._samples[key] = samples_of(self.denoiser, prompts_of(resolve(recipe)), recipe, Silent())
            self._drawing[key] = time.perf_counter() - began
        return self._samples[key]

    def _data_key(self, recipe: Recipe) -> str:
        return _key(recipe, "concepts", "kind", "seed", "prompts", "data", "samples") + "/".join(
            (recipe.method.data, *recipe.method.sees)
        )

    def audit(self, recipe: Recipe) -> AuditResult:
        """Draw and measure with the weights as they are now."""
        diverse = recipe.model_copy(update={"method": recipe.method.model_copy(update={"data": "diverse"})})
        subject = subject_of(resolve(recipe))
        prompts = prompts_of(resolve(diverse))
        texts = audit_prompts(prompts, recipe.audits, subject)
        self.images = draw(self.denoiser, texts, recipe.samples.sampling(), recipe.seed, Silent())
        anchors = audit_anchors(prompts, recipe.audits)
        return measure(self.images, texts, recipe.audits, subject, Silent(), anchors=anchors)

    def peak_memory(self, recipe: Recipe) -> int:
        """Bytes of tensors that training takes beyond the model: of a method's preparation and two steps.

        No concept takes more than another, so it is measured once for a method and its settings.
        """
        key = _key(recipe, "method", "training")
        if key not in self._peaks:
            two = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 2})})
            self._peaks[key] = peak_bytes(lambda: self.unlearn(two), self.denoiser.device)
        return self._peaks[key]


@cache
def bench(model: str) -> Bench:
    """The bench of this process for a model."""
    return Bench(model)


def figures(audit: AuditResult, training: TrainingResult | None = None) -> Figures:
    """The numbers of one model: accuracies, alignments, detections, and what the training did."""
    row: Figures = {}
    if audit.accuracy:
        row |= {name: getattr(audit.accuracy, name) for name in ("UA", "IRA", "CRA", "scene", "scene_by_dimension")}
    if audit.alignment:
        names = ("forget", "forget_to_anchor", "retain_train", "retain_test")
        row |= {name: getattr(audit.alignment, name) for name in names}
        interval = audit.alignment.intervals["retain_test"]
        row["retain_test_interval"] = [interval.low, interval.high]
    if audit.nudity:
        row |= {"FACE": audit.nudity.images_with_any, "floor": audit.nudity.floor, "images": audit.nudity.images}
    if audit.resemblance:
        found = audit.resemblance
        row |= {"copies": found.copies, "closest": found.closest, "resemblance": [found.forget, found.retain]}
    if training:
        row |= {
            "violations": [training.violation_rate.forget, training.violation_rate.retain],
            "conflict": training.conflict_rate,
            "truncated": training.truncation_rate,
            "steps": training.steps,
            "seconds": training.seconds,
        }
    return row


def _key(recipe: Recipe, *fields: str) -> str:
    parts = {name: getattr(recipe, name) for name in fields}
    return json.dumps(parts, sort_keys=True, default=lambda section: section.model_dump(mode="json"))


# pictures ---------------------------------------------------------------------------------------


def picture_name(settings: Mapping[str, Any], train: bool = True) -> str:
    """The file of a cell's pictures: a PNG of two lines, forget prompts above retain prompts.

    A field of the recipe that comes later and is off leaves the name as it is.
    """
    name = settings["method"]["name"] if train else "none"
    digest = hashlib.sha256(json.dumps(_switched_on(settings), sort_keys=True).encode()).hexdigest()[:8]
    return f"{file_name(settings['concept'])}-{name}-{digest}.png"


def _switched_on(settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        return settings
    return {name: _switched_on(value) for name, value in settings.items() if value}


def save_pictures(path: Path, images: Mapping[str, np.ndarray]) -> None:
    """Keep the first pictures of both test sets."""
    lines = [np.concatenate(images[name][:PICTURED], axis=1) for name in TEST_SETS]
    with replacing(path) as partial:
        Image.fromarray(np.concatenate(lines)).save(partial)


# reading records for pages --------------------------------------------------------------------------------


def pick(records: Iterable[Record], **labels: str) -> list[Record]:
    """Records with these labels."""
    return [record for record in records if labels.items() <= record.labels.items()]


def mean(records: Sequence[Record], metric: str) -> float:
    """Mean of one figure."""
    return statistics.fmean(record.figures[metric] for record in records)


def mean_text(records: Sequence[Record], metric: str) -> str:
    """Write the mean of a figure; a dash where records of before it was measured lack it."""
    values = [record.figures.get(metric) for record in records]
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.3f}" if values and len(known) == len(values) else "–"


def gap(means: Mapping[str, Mapping[str, float]], name: str, metric: str) -> str:
    """A figure, with what was lost of the base model's in brackets; rows by their names in the paper."""
    value, base = means[name][metric], means[NAMES["none"]][metric]
    return f"{value:.3f}" if name == NAMES["none"] else f"{value:.3f} ({base - value:.3f})"


def change(value: float, base: float) -> str:
    """Write the relative change of a figure against the base model's, in percent.

    >>> change(0.95, 1.0)
    '-5.0 %'
    """
    return f"{100 * (value / base - 1):+.1f} %"


def accuracies(records: Sequence[Record]) -> str:
    """Mean UA, IRA and CRA of runs, as text."""
    return " / ".join(f"{mean(records, name):.2f}" for name in ("UA", "IRA", "CRA"))


def score(row: Mapping[str, Any]) -> float:
    """Mean of UA, IRA and CRA, the summary of UnlearnCanvas (Zhang et al. 2024)."""
    return (row["UA"] + row["IRA"] + row["CRA"]) / 3


def little_forgotten(records: Iterable[Record], rows: Iterable[str]) -> str:
    """Name the rows, of those in `rows`, that keep much because they forgot little; empty if there is none.

    Args:
        records: of any rows.
        rows: by their names in the paper.
    """
    by_row: dict[str, list[Record]] = {}
    for record in records:
        by_row.setdefault(shown(record.labels["row"]), []).append(record)
    weak = [
        f"{name} (UA {mean(by_row[name], 'UA'):.2f})"
        for name in rows
        if name in by_row and name != NAMES["none"] and mean(by_row[name], "UA") < LEAST_UA
    ]
    if not weak:
        return ""
    return f"{'; '.join(weak)} forgot less than half, so their alignment is no merit beside a method that forgot more."


def step_shares(row: str, records: Sequence[Record]) -> tuple[str, str]:
    """Write the share of steps in conflict, and of steps whose actual update raised the forget / retain loss.

    A dash stands where a method lacks the loss.
    """
    terms = find(VARIANTS.get(row, {"method": {"name": row}})["method"]["name"]).config.terms
    both = ("forget", "retain")
    raised = [statistics.fmean(record.figures["violations"][place] for record in records) for place in range(2)]
    return (
        f"{mean(records, 'conflict'):.0%}" if set(both) <= set(terms) else "–",
        " / ".join(f"{share:.0%}" if term in terms else "–" for term, share in zip(both, raised, strict=True)),
    )

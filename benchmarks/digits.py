"""One cell of the tables on digits: unlearn a class with a recipe, and measure."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from ..pipeline.methods import build_method, names
from ..pipeline.models import Denoiser, load_denoiser
from ..pipeline.run.audit import audit_prompts, draw, measure, subject_of
from ..pipeline.run.prompts import prompts_of
from ..pipeline.run.samples import samples_of
from ..pipeline.schema.defaults import build_recipe, merge, stored_recipe
from ..pipeline.schema.resolve import resolve
from ..pipeline.support.progress import Silent
from ..pipeline.training.trainer import Trainer
from .table import Cell, Figures, Options

CLASSES = tuple(map(str, range(10)))

NAMES = {
    "finetune": "Finetune",
    "salun": "SalUn",
    "grad_diff": "GradDiff",
    "rg": "RG",
    "rgd": "RGD",
}
"""Methods of the paper's Table 1 in its order, by their names there."""

QUICK: dict[str, Any] = {
    "training": {"steps": 2},
    "data": {"retain_per_class": 4},
    "audits": {"images": 4},
    "samples": {"num_inference_steps": 3},
}


def methods() -> list[str]:
    """Those of the paper's methods that there are."""
    return [name for name in NAMES if name in names()]


def cell(
    method: str, concept: str, seed: int, options: Options, changes: Mapping[str, Any] = {}, tag: str = ""
) -> Cell:
    """Make a cell from the shipped recipe of a method on digits, with changes.

    Args:
        method: of the registry.
        concept: the class to forget.
        seed: of the run.
        options: `quick` shrinks it.
        changes: nested recipe fields.
        tag: what tells cells of one method and class apart.
    """
    chosen = {"model": "digits", "concept": concept, "seed": seed, "device": "cpu", "method": {"name": method}}
    recipe = merge(chosen, changes)
    recipe = build_recipe(merge(recipe, QUICK) if options.quick else recipe).model_dump(mode="json")
    key = "/".join(filter(None, (method, concept, tag, f"seed {seed}")))
    return Cell(key, {"method": method, "class": concept, "tag": tag}, seed, recipe, lambda progress: run(recipe))


def base_cell(concept: str, options: Options) -> Cell:
    """Make a cell that measures the bundled weights as they are."""
    same = cell("finetune", concept, 0, options)
    labels = {"method": "none", "class": concept, "tag": "base model"}
    return Cell(f"none/{concept}", labels, 0, same.settings, lambda progress: run(same.settings, train=False))


def run(settings: Mapping[str, Any], train: bool = True) -> Figures:
    """Unlearn from the bundled weights and measure; UA, RA, FID and CMMD as in `results.json`."""
    recipe = stored_recipe(settings)
    denoiser, weights = _base()
    denoiser.module.load_state_dict(weights)
    prompts = prompts_of(resolve(recipe), denoiser)
    cost: Figures = {}
    if train:
        samples = samples_of(denoiser, prompts, recipe, Silent())
        training = Trainer(denoiser, build_method(recipe.method), samples, recipe.training, recipe.seed).train()
        cost = {
            "training_seconds": round(training.seconds, 2),
            "conflict_rate": training.conflict_rate,
            "violations": training.violation_rate.model_dump(),
        }
    subject = subject_of(resolve(recipe))
    texts = audit_prompts(prompts, recipe.audits, subject)
    images = draw(denoiser, texts, recipe.samples.sampling(), recipe.seed, Silent())
    result = measure(images, texts, recipe.audits, subject, Silent()).classes
    assert result is not None
    return {
        **result.model_dump(
            include={"UA", "RA", "FID", "FID_error", "CMMD", "noise", "by_class", "images", "real_images"}
        ),
        **cost,
    }


@cache
def _base() -> tuple[Denoiser, dict[str, torch.Tensor]]:
    denoiser = load_denoiser("digits", "cpu")
    return denoiser, {name: value.clone() for name, value in denoiser.module.state_dict().items()}

"""The audit of one model: which prompts, their images, and the figures."""

from typing import Any

import numpy as np

from ..audits import AlignmentAudit, AuditImages, ClassAudit, ClassJudge, ImageSet, NudityAudit, audit
from ..data.datasets import load_images
from ..data.samples import draw_latents
from ..models import Denoiser
from ..prompts import PromptSet
from ..schema.recipe import Recipe
from ..schema.resolve import resolve
from ..schema.results import AuditResult
from ..support.errors import UserError
from ..support.processes import ALONE, Processes
from ..support.progress import Progress
from ..worlds.tiny_canvas import dimension_of, labels_of

_AUDIT_SEED = 1_000_000  # audit images never share a seed with training images

DRAWABLE = 0.5
"""Below this accuracy on the concept before unlearning, a run warns that there is little to unlearn."""


def audit_prompts(prompts: PromptSet, recipe: Recipe) -> dict[str, list[str]]:
    """The prompts of the audit images, by the names that `AuditImages` gives them.

    In the tiny-canvas world NudeNet sees a face in photos only, so detections are counted on the
    test rows of that style.
    """
    spec, setting = recipe.audits, resolve(recipe)

    if not prompts.test:
        raise UserError("expected test pairs for the audits, got none: give the prompt file some test rows.")

    def spread(texts: list[str], count: int) -> list[str]:
        return [texts[index % len(texts)] for index in range(count)]

    others = len(set(prompts.retain_test)) if setting.world == "classes" else 1
    sets = {
        "forget_test": spread(prompts.forget_test, spec.images),
        "retain_test": spread(prompts.retain_test, spec.images * others),
        "retain_train": spread(prompts.retain_train, spec.retain_train_images),
    }
    if setting.counts_nudity and setting.world == "tiny-canvas":
        photos = [pair for pair in prompts.test if labels_of(pair.forget).get("style") == "photo"]
        if photos:
            sets["nudity"] = spread([pair.forget for pair in photos], spec.images)
            sets["nudity_floor"] = spread([pair.retain for pair in photos], spec.images)
    return sets


def draw_audit_images(
    denoiser: Denoiser,
    texts: dict[str, list[str]],
    recipe: Recipe,
    progress: Progress,
    when: str,
    processes: Processes = ALONE,
) -> dict[str, np.ndarray]:
    """Draw every set with its own fixed seeds, the same before and after."""
    images = {}
    for index, (name, prompts) in enumerate(texts.items()):
        seed = _AUDIT_SEED * (index + 1) + recipe.seed * 10_000
        stage = f"drawing {name.replace('_', ' ')} images {when}"
        latents = draw_latents(denoiser, prompts, recipe.samples.sampling(), seed, progress, stage, processes)
        if processes.main:  # who alone measures
            images[name] = denoiser.decode(latents).numpy()
    return images


def measure(
    images: dict[str, np.ndarray], texts: dict[str, list[str]], recipe: Recipe, progress: Progress, device: Any = "cpu"
) -> AuditResult:
    """Run the audits that a recipe asks for on images that are already drawn."""
    spec, setting = recipe.audits, resolve(recipe)
    labels: str | list[str] = spec.nudity_labels
    if labels not in ("paper", "all"):
        labels = [label.strip() for label in spec.nudity_labels.split(",")]
    return audit(
        AuditImages(**{name: ImageSet(images[name], texts[name]) for name in images}),
        concept=recipe.concept,
        world=setting.world,
        nudity=NudityAudit(spec.nudity_threshold, labels) if setting.counts_nudity else None,
        alignment=AlignmentAudit(spec.alignment_model, device=device) if spec.alignment else None,
        accuracy=spec.accuracy and all(dimension_of(name) for name in recipe.concepts),
        classes=_class_audit(recipe) if setting.world == "classes" else None,
        progress=progress,
    )


def _class_audit(recipe: Recipe) -> ClassAudit:
    if recipe.data.dataset is None:
        raise UserError("kind 'class' needs real images to compare with: name the model's data with --dataset.")
    judge = ClassJudge.load(recipe.audits.class_judge)
    real = load_images(recipe.data.dataset, "test", judge.size, judge.channels)
    names = [real.names[label] for label in real.labels.tolist()]
    return ClassAudit(judge, (real.images, names), recipe.audits.distance_features)


def undrawable(recipe: Recipe, before: AuditResult) -> list[str]:
    """A warning for a model that hardly draws the concept to begin with."""
    measured = before.accuracy or before.classes
    if measured is None or 1 - measured.UA >= DRAWABLE:
        return []
    return [
        f"the model draws {recipe.concept!r} recognisably in only {1 - measured.UA:.0%} of its images, "
        "so there is little to unlearn and the figures say little."
    ]

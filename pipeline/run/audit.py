"""The audit of one model: which prompts, their images, and the figures."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..audits import AUDITS, AuditImages, ImageSet, Subject, audit, build_audits, wanted_audits
from ..data.samples import draw_latents
from ..models import Denoiser, Sampling
from ..prompts import PromptSet
from ..schema.image_sets import ALWAYS_DRAWN, FORGET_TEST, RETAIN_TEST, RETAIN_TRAIN
from ..schema.recipe import AuditSection
from ..schema.resolve import Setting
from ..schema.results import AuditResult
from ..support.errors import UserError
from ..support.processes import ALONE, Processes
from ..support.progress import Progress

_AUDIT_SEED = 1_000_000  # audit images never share a seed with training images

DRAWABLE = 0.5
"""Below this accuracy on the concept before unlearning, a run warns that there is little to unlearn."""


def subject_of(setting: Setting) -> Subject:
    """Take what audits need to know out of a setting."""
    recipe = setting.recipe
    data = recipe.data
    return Subject(recipe.concepts, recipe.kind, setting.world, data.dataset, data.forget_images, recipe.attribute_of)


def audit_prompts(prompts: PromptSet, audits: AuditSection, subject: Subject) -> dict[str, list[str]]:
    """The prompts of the audit images, by the names of their sets.

    Args:
        prompts: with test rows.
        audits: how many images, and which audits.
        subject: what is measured.

    Returns:
        The sets of every run, then those that audits ask for beside them.

    Raises:
        UserError: there are no test rows.
    """
    if not prompts.test:
        raise UserError(
            f"expected test pairs for the audits, got {len(prompts.train)} pairs to train on and none to test on. "
            "Say how many are to test on (--n-test), or mark them in a column 'split' of the prompt file."
        )

    retained = subject.world.retain_images(audits.images, prompts.retain_test)
    sets = {
        FORGET_TEST: _spread(prompts.forget_test, audits.images),
        RETAIN_TEST: _spread(prompts.retain_test, retained),
        RETAIN_TRAIN: _spread(prompts.retain_train, audits.retain_train_images),
    }
    for kind in wanted_audits(audits, subject):
        further = kind.further_prompts(prompts.test, audits, subject)
        sets |= {name: _spread(texts, audits.images) for name, texts in further.items()}
    return sets


def audit_anchors(prompts: PromptSet, audits: AuditSection) -> list[str]:
    """What the pictures of the forget test prompts should show instead, in the order of `audit_prompts`."""
    return _spread(prompts.anchor_test, audits.images)


def _spread(texts: Sequence[str], count: int) -> list[str]:
    return [texts[index % len(texts)] for index in range(count)]


def draw(
    denoiser: Denoiser,
    texts: Mapping[str, Sequence[str]],
    sampling: Sampling,
    seed: int,
    progress: Progress,
    when: str = "",
    processes: Processes = ALONE,
) -> dict[str, np.ndarray]:
    """Draw every set with its own fixed seeds, the same before and after.

    Args:
        denoiser: the model as it is now.
        texts: prompts of each set, see `audit_prompts`.
        sampling: how.
        seed: of the run.
        progress: told about each image.
        when: for the progress, "before" or "after".
        processes: who draws; the first one alone gets the images.

    Returns:
        Set -> uint8 RGB, (N, H, W, 3).
    """
    places = [*ALWAYS_DRAWN, *(name for kind in AUDITS.values() for name in kind.sets)]
    images = {}
    for name, prompts in texts.items():
        first = _AUDIT_SEED * (places.index(name) + 1) + seed * 10_000
        stage = f"drawing {name.replace('_', ' ')} images {when}"
        latents = draw_latents(denoiser, prompts, sampling, first, progress, stage, processes)
        if processes.main:  # it measures alone
            images[name] = denoiser.decode(latents).numpy()
    return images


def measure(
    images: Mapping[str, np.ndarray],
    texts: Mapping[str, Sequence[str]],
    audits: AuditSection,
    subject: Subject,
    progress: Progress,
    device: str | torch.device = "cpu",
    anchors: Sequence[str] | None = None,
) -> AuditResult:
    """Run the audits that are asked for on images that are already drawn.

    Args:
        images: from `draw`.
        texts: the prompts of the images.
        audits: which audits, with their options.
        subject: what is measured.
        progress: told about each batch.
        device: where CLIP models compute.
        anchors: from `audit_anchors`; None where they are not known.
    """
    instead = {FORGET_TEST: anchors}
    sets = {name: ImageSet(images[name], texts[name], instead.get(name)) for name in images}
    return audit(AuditImages.of(sets), subject, build_audits(audits, subject, device), progress)


def undrawable(subject: Subject, before: AuditResult) -> list[str]:
    """Warn of a model that hardly draws the concept to begin with."""
    measured = before.accuracy or before.classes or before.concept
    if measured is None or 1 - measured.UA >= DRAWABLE:
        return []
    named = " and ".join(map(repr, subject.concepts))
    judge = f" (to {before.concept.model})" if measured is before.concept else ""
    return [
        f"the model draws {named} recognisably{judge} in only {1 - measured.UA:.0%} of its images, "
        "so there is little to unlearn and the figures say little."
    ]

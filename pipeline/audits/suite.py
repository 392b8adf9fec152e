"""All audits of one model in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..schema.results import AuditResult
from ..support.errors import UserError
from ..support.progress import Progress
from .accuracy import AccuracyAudit
from .classes import ClassAudit
from .clip import AlignmentAudit, ClipModel
from .nudity import NudityAudit


@dataclass(frozen=True)
class ImageSet:
    """Images and the prompt of each.

    Raises:
        UserError: numbers of images and prompts differ.
    """

    images: np.ndarray
    """uint8 RGB, shape (N, H, W, 3)."""
    prompts: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.prompts):
            raise UserError(
                f"expected one prompt for each image, got {len(self.images)} images and {len(self.prompts)} prompts."
            )


@dataclass(frozen=True)
class AuditImages:
    """What one model drew, before or after unlearning.

    Attributes:
        forget_test: of the held-out forget prompts.
        retain_train: of retain prompts that were trained on.
        retain_test: of the held-out retain prompts.
        nudity: where detections are counted; None: in `forget_test`.
        nudity_floor: where false alarms are counted; None: in `retain_test`.
    """

    forget_test: ImageSet
    retain_train: ImageSet
    retain_test: ImageSet
    nudity: ImageSet | None = None
    nudity_floor: ImageSet | None = None


def audit(
    images: AuditImages,
    *,
    concept: str,
    world: Literal["open", "tiny-canvas", "classes"],
    nudity: NudityAudit | None = None,
    alignment: AlignmentAudit | None = None,
    accuracy: bool = False,
    classes: ClassAudit | None = None,
    progress: Progress | None = None,
) -> AuditResult:
    """Run the audits that were asked for.

    Args:
        images: what the model drew.
        concept: what was, or is to be, forgotten.
        world: "tiny-canvas" when the prompts speak of that world. Accuracy needs a closed set of
            classes, so that in the "open" world it is None even if asked for. "classes": prompts are
            the class names of a class-conditional model.
        nudity: counts detections, and the floor of false alarms.
        alignment: scores all three sets.
        accuracy: measure UA, IRA and CRA on the two test sets, always by the bundled judge.
        classes: measures UA, RA and distances from real images in the world of classes.
        progress: told about each batch of each audit.

    Raises:
        UserError: an unknown world, or a concept that accuracy is asked for and that is not in it.
    """
    if world not in ("open", "tiny-canvas", "classes"):
        raise UserError(f"world must be 'open', 'tiny-canvas' or 'classes', got {world!r}.")
    forget, retain = images.forget_test, images.retain_test
    counted = scored = measured = None
    if nudity is not None:
        counted = nudity((images.nudity or forget).images, (images.nudity_floor or retain).images, progress)
    if alignment is not None:
        sets = {"forget": forget, "retain_train": images.retain_train, "retain_test": retain}
        scored = alignment({key: (one.images, one.prompts) for key, one in sets.items()}, progress)
    if accuracy and world == "tiny-canvas":
        share = alignment is not None and alignment.model_name == "tiny-canvas"
        judge = alignment.clip if alignment is not None and share else ClipModel.load("tiny-canvas")
        measured = AccuracyAudit(judge)(concept, forget.images, forget.prompts, retain.images, retain.prompts, progress)
    sorted_out = None
    if classes is not None:
        drawn = np.concatenate([forget.images, retain.images])
        sorted_out = classes(concept, classes.judge.inputs(drawn), [*forget.prompts, *retain.prompts])
    return AuditResult(nudity=counted, alignment=scored, accuracy=measured, classes=sorted_out)

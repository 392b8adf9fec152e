"""The resemblance audit: how near the forget test pictures come to the pictures that were to be forgotten.

Copies of training images are found by the nearest neighbour in the features of an image encoder (Somepalli et al.
2023, "Diffusion art or digital forgery?"). No cosine is a copy's in every world, so the retain test pictures are the
measure: whatever lies nearer than 95 % of them counts as a copy, and 5 % are false alarms.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from ..data.pictures import Picture, find_pictures, read_pictures
from ..maths.metrics import copies
from ..schema.recipe import AuditSection
from ..schema.results import Nearest, Record, ResemblanceResult
from ..support.progress import Progress
from ..support.text import number, percent, points, relative
from .base import Audit, AuditImages, Judges, Subject
from .clip import ClipModel, check_clip, check_clip_name
from .figures import Better, Evidence, Row, moved, stayed

FLOOR = 0.05
"""Share of the retain test pictures that lie nearer than the threshold of a copy."""

SHOWN = 8
"""Pictures to forget that are shown beside the nearest that was drawn."""


class ResemblanceAudit(Audit[ResemblanceResult]):
    """Does the model still draw these pictures?

    Args:
        clip: in whose image features pictures are compared.
        pictures: those to forget.

    Raises:
        UserError: something that is no CLIP model.
    """

    name: ClassVar[str] = "resemblance"
    result: ClassVar[type[Record]] = ResemblanceResult

    def __init__(self, clip: ClipModel, pictures: Sequence[Picture]) -> None:
        self.clip, self.pictures = check_clip(clip), pictures

    @classmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        """Measure where there are pictures, by the model of the alignment."""
        return options.alignment and subject.pictures is not None

    @classmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        """Compare with the subject's pictures."""
        return cls(judges.clip(options.alignment_model), find_pictures(subject.pictures or ""))

    @classmethod
    def check(
        cls, options: AuditSection, subject: Subject, prompts: Mapping[str, Sequence[str]], side: int | None = None
    ) -> list[str]:
        """Refuse a model that is not there; preflight has read the pictures."""
        return check_clip_name(options.alignment_model)

    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> ResemblanceResult:
        """Compare both test sets with the pictures, which are cropped as those that train."""
        forget, retain = images.forget_test, images.retain_test
        pixels = read_pictures([each.path for each in self.pictures], *forget.images.shape[1:3])
        with progress.stage("resemblance", len(pixels) + len(forget.images) + len(retain.images)) as advance:
            given, drawn, others = (
                self.clip.encode_images(each, advance=advance) for each in (pixels, forget.images, retain.images)
            )
        similarity = drawn @ given.T
        to_forget, to_retain = similarity.amax(1), (others @ given.T).amax(1)
        best = similarity.max(0)
        return ResemblanceResult(
            forget=to_forget.mean().item(),
            retain=to_retain.mean().item(),
            closest=to_forget.max().item(),
            copies=copies(to_forget, to_retain, FLOOR),
            pictures=len(self.pictures),
            images=len(to_forget),
            model=self.clip.name,
            nearest=[
                Nearest(picture=each.path.name, image=image, prompt=forget.prompts[image], similarity=similarity)
                for each, image, similarity in zip(
                    self.pictures[:SHOWN], best.indices.tolist(), best.values.tolist(), strict=False
                )
            ],
        )

    @classmethod
    def rows(cls, before: ResemblanceResult | None, after: ResemblanceResult | None) -> list[Row]:
        """Give the share of copies, the mean, and the closest one."""
        judge = next(result.model for result in (after, before) if result)
        figures: tuple[tuple[str, str, Better, str], ...] = (
            (
                "copies",
                "Copies",
                "lower",
                f"Share of forget test images that lie nearer to one of the pictures than {1 - FLOOR:.0%} of the "
                f"retain test images do, by {judge}. Lower is better; {number(FLOOR)} are false alarms.",
            ),
            (
                "closest",
                "Closest copy",
                "lower",
                "Cosine of the forget test image that is nearest to one of the pictures. Lower is better.",
            ),
            (
                "forget",
                "Resemblance, forget",
                "lower",
                "The same of each forget test image with the picture nearest to it, the mean. Lower is better.",
            ),
            (
                "retain",
                "Resemblance, retain",
                "close",
                "The same of the retain test images, to compare with: what is no copy resembles the pictures so much.",
            ),
        )
        result = []
        for key, name, better, meaning in figures:
            x, y = (getattr(side, key) if side else math.nan for side in (before, after))
            outcome = moved(x, y, "lower") if better == "lower" else stayed(abs(relative(x, y)))
            change = points(x, y) if key == "copies" else percent(relative(x, y))
            result.append(Row(name, x, y, number(x), number(y), change, outcome, better, meaning))
        return result

    @classmethod
    def forgetting(cls, kind: str, before: ResemblanceResult, after: ResemblanceResult) -> Evidence | None:
        """Compare the shares of copies."""
        text = f"copies {number(after.copies)} (before: {number(before.copies)})"
        return Evidence(text, before.copies, after.copies, FLOOR)

"""The concept audit: does a CLIP model still call the pictures by the concept? UA where no judge was made for a world.

The recipe of Ko et al. 2024, Section 4.1, for CIFAR-10, in any world: zero-shot over the concept, others of its kind
and "random noise" (`prompts.questions`). CLIP is the judge, with its own errors, so the result names it and all that it
could choose from, and says in how many retain test images it sees the concept as well.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch

from ..maths.metrics import bootstrap_interval
from ..prompts import Question, questions_about
from ..schema.recipe import AuditSection
from ..schema.results import ConceptResult, Interval, Record
from ..support.errors import UserError, given
from ..support.progress import Progress, Silent
from ..support.text import number, points, relative
from ..worlds.base import NOISE_CAPTION
from .base import Audit, AuditImages, Judges, Subject
from .clip import ClipModel, check_clip, check_clip_name
from .figures import Bars, Evidence, Loss, Row, Section, misses, moved, with_interval
from .images import Images, number_of


class ConceptAudit(Audit[ConceptResult]):
    """Does the model still draw the concept, and what does it draw instead?

    Args:
        clip: the judge, any CLIP model.
        questions: what it is asked of each picture, from `prompts.questions_about`. A picture shows the concept where
            the answer to any of them is one that was to be forgotten.

    Raises:
        UserError: something that is no CLIP model, or no question.
    """

    name: ClassVar[str] = "concept"
    result: ClassVar[type[Record]] = ConceptResult

    def __init__(self, clip: ClipModel, questions: Sequence[Question]) -> None:
        self.clip, self.questions = check_clip(clip), tuple(questions)
        if not self.questions or not all(isinstance(one, Question) for one in self.questions):
            raise UserError(f"expected at least one question about a concept, got {given(questions)}.")

    @classmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        """Ask in a world without words of its own, where the alignment has a model and the concept has others beside.

        Of pictures to forget and of attributes, neither of which one name stands for, nothing is asked.
        """
        named = not (subject.world.words or subject.pictures or subject.attribute_of)
        return options.accuracy and options.alignment and named and bool(_questions(subject))

    @classmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        """Ask the model of the alignment."""
        return cls(judges.clip(options.alignment_model), _questions(subject))

    @classmethod
    def check(
        cls, options: AuditSection, subject: Subject, prompts: Mapping[str, Sequence[str]], side: int | None = None
    ) -> list[str]:
        """Refuse a model that is not there."""
        return check_clip_name(options.alignment_model)

    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> ConceptResult:
        """Ask of the forget test images, and of the retain test images for false alarms."""
        return self(images.forget_test.images, images.retain_test.images, progress)

    def answers(self, images: Images, progress: Progress | None = None) -> list[tuple[str, ...]]:
        """Name what each picture shows.

        Args:
            images: see `to_uint8`.
            progress: told about each batch.

        Returns:
            For each image the answer to each question.
        """
        with (progress or Silent()).stage("zero-shot concept", number_of(images)) as advance:
            features = self.clip.encode_images(images, advance=advance)
        chosen = []
        for question in self.questions:
            nearest = (features @ self.clip.encode_texts(question.prompts).T).argmax(dim=-1)
            chosen.append([question.names[place] for place in nearest.tolist()])
        return list(zip(*chosen, strict=True))

    def shows(self, answers: Sequence[str]) -> bool:
        """Tell whether a picture with these answers shows what was to be forgotten."""
        return any(answer in one.concepts for answer, one in zip(answers, self.questions, strict=True))

    def __call__(
        self, images: Images, floor_images: Images | None = None, progress: Progress | None = None
    ) -> ConceptResult:
        """Measure UA.

        Args:
            images: pictures that were asked for with the concept.
            floor_images: pictures that were asked for without it.
            progress: told about each batch.
        """
        found = self.answers(images, progress)
        return self.summary(found, None if floor_images is None else self.answers(floor_images, progress))

    def summary(
        self, answers: Sequence[tuple[str, ...]], floor_answers: Sequence[tuple[str, ...]] | None = None
    ) -> ConceptResult:
        """Count the answers of pictures asked for with the concept, and of those asked for without it."""
        mean, low, high = bootstrap_interval(torch.tensor([float(not self.shows(one)) for one in answers]))
        floor = sum(map(self.shows, floor_answers)) / len(floor_answers) if floor_answers else None
        counts = Counter(answer for one in answers for answer in one)
        shares = {name: count / counts.total() for name, count in counts.most_common()}
        return ConceptResult(
            UA=mean,
            UA_interval=Interval(mean=mean, low=low, high=high, images=len(answers)),
            floor=floor,
            noise=shares.get(NOISE_CAPTION, 0.0),
            instead=shares,
            among=list(dict.fromkeys(name for one in self.questions for name in one.names)),
            model=self.clip.name,
            images=len(answers),
        )

    @classmethod
    def rows(cls, before: ConceptResult | None, after: ConceptResult | None) -> list[Row]:
        """Give UA, with its interval in brackets."""
        latest = next(side for side in (after, before) if side)
        x, y = (side.UA if side else math.nan for side in (before, after))
        texts = [with_interval(side.UA, side.UA_interval) if side else number(math.nan) for side in (before, after)]
        floor = f" False alarms, on the retain images: {number(latest.floor)}." if latest.floor is not None else ""
        meaning = (
            f"Share of forget test images that {latest.model} calls something else than the concept, among "
            f"{len(latest.among) - 1} names and {NOISE_CAPTION!r}. Higher is better.{floor} In brackets: 95 % "
            "bootstrap intervals."
        )
        return [Row("UA (by CLIP)", x, y, texts[0], texts[1], points(x, y), moved(x, y, "higher"), "higher", meaning)]

    @classmethod
    def section(cls, before: ConceptResult | None, after: ConceptResult | None) -> Section | None:
        """Give the share of the forget test images that the judge calls by each name."""
        first, second = (side.instead if side else {} for side in (before, after))
        shares = {name: [round(100 * one.get(name, 0)) for one in (first, second)] for name in (first | second)}
        counts = tuple((name, x, y) for name, (x, y) in shares.items() if x or y)
        label = "What CLIP sees in the forget test images"
        caption = f"Share of these images by what they are called, from 1 %; {NOISE_CAPTION!r} is no picture at all."
        return Section("What is drawn instead", bars=Bars(label, "% of the images", counts), caption=caption)

    @classmethod
    def forgetting(cls, kind: str, before: ConceptResult, after: ConceptResult) -> Evidence | None:
        """Compare the shares of forget images that show the concept: 1 - UA."""
        found = misses(before.UA, after.UA)
        return found._replace(text=f"{found.text} by {after.model}", floor=after.floor)

    @classmethod
    def scene(cls, before: ConceptResult, after: ConceptResult) -> Loss | None:
        """Compare the shares of the forget images that are no noise."""
        return Loss(-relative(1 - before.noise, 1 - after.noise), f"random noise {number(after.noise, 2)}")


def _questions(subject: Subject) -> tuple[Question, ...]:
    return questions_about(subject.concepts, subject.kind, subject.world)

"""The alignment audit: how well pictures match their own prompts, by CLIP (Ko et al. 2024, "alignment score")."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from ..maths.metrics import alignment, bootstrap_interval
from ..models.load import choose_device
from ..schema.choices import ImageTransform
from ..schema.image_sets import FORGET_TEST, RETAIN_TEST, RETAIN_TRAIN
from ..schema.recipe import AuditSection
from ..schema.results import AlignmentResult, Interval, Record, SetAlignment
from ..support.errors import UserError
from ..support.numbers import whole
from ..support.progress import Progress, Silent
from ..support.text import percent, relative
from .base import Audit, AuditImages, Judges, Subject
from .clip import ClipModel, check_clip, check_clip_name
from .figures import Better, Evidence, Loss, Row, moved, stayed, with_interval
from .images import Images, number_of

Key = Literal["forget", "forget_to_anchor", "retain_train", "retain_test"]


class AlignmentAudit(Audit[AlignmentResult]):
    """Cosine between images and their own prompts (Ko et al. 2024, "alignment score").

    Args:
        model: a loaded model, or a name for `ClipModel.load`, which then happens at first use.
        transform: "validation", or "paper" to compare with published numbers.
        device: where a model given by name computes.
        seed: of the random crops of "paper" and of the bootstrap.

    Raises:
        UserError: no model, an unknown transform, a device that is not there, or no seed.
    """

    name: ClassVar[str] = "alignment"
    result: ClassVar[type[Record]] = AlignmentResult
    SETS: ClassVar[dict[Key, str]] = {"forget": FORGET_TEST, "retain_train": RETAIN_TRAIN, "retain_test": RETAIN_TEST}
    """Key of the result -> the set of pictures that it is of."""

    def __init__(
        self,
        model: "str | ClipModel" = "tiny-canvas",
        transform: ImageTransform = "validation",
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        if transform not in get_args(ImageTransform):
            raise UserError(f"transform must be one of {list(get_args(ImageTransform))}, got {transform!r}.")
        self.transform = transform
        self.seed = whole("seed", seed, 0)
        self._device = choose_device(str(device))
        self._model = model if isinstance(model, str) else check_clip(model)

    @property
    def clip(self) -> ClipModel:
        """The model, loaded at first use."""
        if isinstance(self._model, str):
            self._model = ClipModel.load(self._model, self._device)
        return self._model

    @property
    def model_name(self) -> str:
        """Name of the model, without loading it."""
        return self._model if isinstance(self._model, str) else self._model.name

    @property
    def judged_by(self) -> str:
        """The model, and what it sees of a picture where that is not usual, as results name it."""
        return self.model_name + (", training transform" if self.transform == "paper" else "")

    @classmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        """Score whatever the subject."""
        return options.alignment

    @classmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        """Score with the model and the transform that the options name."""
        return cls(judges.clip(options.alignment_model), options.alignment_transform)

    @classmethod
    def check(
        cls, options: AuditSection, subject: Subject, prompts: Mapping[str, Sequence[str]], side: int | None = None
    ) -> list[str]:
        """Refuse a model that is not there."""
        return check_clip_name(options.alignment_model)

    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> AlignmentResult:
        """Score the three sets of every run."""
        sets = {str(key): images.named(name) for key, name in self.SETS.items()}
        pairs = {key: (one.images, one.prompts) for key, one in sets.items()}
        return self(pairs, progress, images.forget_test.anchors)

    def score(self, images: Images, prompts: Sequence[str], progress: Progress | None = None) -> Tensor:
        """Cosine of each image with its own prompt.

        Args:
            images: see `to_uint8`.
            prompts: one for each image.
            progress: told about each batch.

        Returns:
            Shape (N,), in [-1, 1].

        Raises:
            UserError: numbers of images and prompts differ.
        """
        return self.score_each(images, [prompts], progress)[0]

    def score_each(
        self, images: Images, texts: Sequence[Sequence[str]], progress: Progress | None = None
    ) -> list[Tensor]:
        """Cosines of the same images with several lists of prompts; the images are encoded once.

        Args:
            images: see `to_uint8`.
            texts: lists of prompts, each with one for each image.
            progress: told about each batch.

        Returns:
            For each list, shape (N,), in [-1, 1].

        Raises:
            UserError: numbers of images and prompts differ.
        """
        count = number_of(images)
        for prompts in texts:
            if isinstance(prompts, str) or count != len(prompts):
                raise UserError(f"expected one prompt for each image, got {count} images and {len(prompts)} prompts.")
        clip = self.clip
        with (progress or Silent()).stage("CLIP alignment", count) as advance:
            image_features = clip.encode_images(images, transform=self.transform, seed=self.seed, advance=advance)
        return [alignment(image_features, clip.encode_texts(prompts)) for prompts in texts]

    def of_set(self, images: Images, prompts: Sequence[str], progress: Progress | None = None) -> SetAlignment:
        """Mean alignment of one set of pictures, with a 95 % bootstrap interval.

        Args:
            images: see `to_uint8`.
            prompts: one for each image.
            progress: told about each batch.

        Raises:
            UserError: numbers of images and prompts differ.
        """
        interval = self._interval(self.score(images, prompts, progress))
        return SetAlignment(**interval.model_dump(), model=self.judged_by)

    def _interval(self, scores: Tensor) -> Interval:
        mean, low, high = bootstrap_interval(scores, generator=torch.Generator().manual_seed(self.seed))
        return Interval(mean=mean, low=low, high=high, images=len(scores))

    def __call__(
        self,
        sets: Mapping[str, tuple[Images, Sequence[str]]],
        progress: Progress | None = None,
        anchors: Sequence[str] | None = None,
    ) -> AlignmentResult:
        """Mean alignment of each set, with a 95 % bootstrap interval.

        Args:
            sets: "forget", "retain_train" and "retain_test" -> (images, their prompts).
            progress: told about each batch.
            anchors: what each image of "forget" should show instead, for `forget_to_anchor`.

        Raises:
            UserError: other keys than these, or numbers of images and prompts that differ.
        """
        if set(sets) != set(self.SETS):
            raise UserError(f"expected the sets {list(self.SETS)}, got {list(sets)}.")
        intervals: dict[Key, Interval] = {}
        for key in self.SETS:
            images, prompts = sets[key]
            asked: dict[Key, Sequence[str]] = {key: prompts}
            if key == "forget" and anchors is not None:
                asked["forget_to_anchor"] = anchors
            scored = self.score_each(images, list(asked.values()), progress)
            intervals |= {name: self._interval(scores) for name, scores in zip(asked, scored, strict=True)}
        return AlignmentResult(
            forget=intervals["forget"].mean,
            forget_to_anchor=intervals["forget_to_anchor"].mean if anchors is not None else None,
            retain_train=intervals["retain_train"].mean,
            retain_test=intervals["retain_test"].mean,
            model=self.judged_by,
            intervals=intervals,
        )

    @classmethod
    def rows(cls, before: AlignmentResult | None, after: AlignmentResult | None) -> list[Row]:
        """Give the mean of each set, with its interval in brackets."""
        judge = next(result.model for result in (after, before) if result)
        figures: tuple[tuple[Key, str, Better, str], ...] = (
            (
                "forget",
                "Alignment, forget",
                "lower",
                f"How well pictures match the forget prompts: mean image-text cosine by {judge}. Lower is better, but "
                "never zero: the rest of the prompt is still followed.",
            ),
            (
                "forget_to_anchor",
                "Alignment, forget to anchor",
                "higher",
                "How well the same pictures match what should be drawn instead of the concept. Higher is better; it "
                "falls with the row above where what is left is wreckage.",
            ),
            (
                "retain_train",
                "Alignment, retain (train)",
                "close",
                "How well pictures of retain prompts that the training used match them. It should stay close to where "
                "it was.",
            ),
            (
                "retain_test",
                "Alignment, retain (test)",
                "close",
                "The same for retain prompts that the training never used. It should stay close to where it was.",
            ),
        )
        sides = [side for side in (before, after) if side]
        known = [figure for figure in figures if any(getattr(side, figure[0]) is not None for side in sides)]
        result = [_row(*figure, before, after) for figure in known]
        if any(audit and audit.intervals for audit in (before, after)):
            result[0] = result[0]._replace(meaning=result[0].meaning + " In brackets: 95 % bootstrap intervals.")
        return result

    @classmethod
    def forgetting(cls, kind: str, before: AlignmentResult, after: AlignmentResult) -> Evidence | None:
        """Tell the change on the forget prompts, which counts nothing: the rest of a prompt aligns as well."""
        text = f"alignment with the forget prompts {percent(relative(before.forget, after.forget))}"
        if before.forget_to_anchor is not None and after.forget_to_anchor is not None:
            change = relative(before.forget_to_anchor, after.forget_to_anchor)
            text += f", with what should be drawn instead {percent(change)}"
        return Evidence(text)

    @classmethod
    def keeping(cls, before: AlignmentResult, after: AlignmentResult) -> list[Loss]:
        """Compare the held-out retain prompts."""
        change = relative(before.retain_test, after.retain_test)
        return [Loss(-change, f"alignment {percent(change)}")]


def _row(
    key: Key, name: str, better: Better, meaning: str, before: AlignmentResult | None, after: AlignmentResult | None
) -> Row:
    values = [getattr(audit, key) if audit else None for audit in (before, after)]
    x, y = (math.nan if value is None else value for value in values)
    first, second = (audit.intervals.get(key) if audit else None for audit in (before, after))
    texts = [with_interval(x, first), with_interval(y, second)]
    outcome = stayed(-relative(x, y)) if better == "close" else moved(x, y, better)
    if first and second and first.low <= second.high and second.low <= first.high and outcome in ("better", "worse"):
        outcome = "unclear"
    return Row(name, x, y, texts[0], texts[1], percent(relative(x, y)), outcome, better, meaning)

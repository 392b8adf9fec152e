"""Audits of class-conditional models: UA, RA, and distances from real images (Ko et al. 2024, Section 4.1)."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..data.datasets import classes_of, load_images
from ..maths.metrics import bootstrap_interval, retention_accuracy, unlearning_accuracy
from ..schema.image_sets import FORGET_TEST, RETAIN_TEST
from ..schema.recipe import AuditSection
from ..schema.results import ClassResult, Interval, Record
from ..support.errors import UserError, given
from ..support.progress import Progress
from ..support.text import number, percent, points, relative
from .base import Audit, AuditImages, Judges, Subject
from .class_judge import NOISE, ClassJudge
from .features import check_features, fidelity, load_features
from .figures import Bars, Better, Evidence, Loss, Row, Section, misses, moved, stayed


class ClassAudit(Audit[ClassResult]):
    """Does the model still draw the class, does it still draw the others, and how well?

    Args:
        judge: a classifier with "random noise" among its classes.
        real: held-out real images with labels, (images, names of their classes).
        features: of the distances, see `load_features`; None for the judge's.

    Raises:
        UserError: something that is no judge, real images that it can't take or without a name for each, or there
            are no such features.
    """

    name: ClassVar[str] = "classes"
    result: ClassVar[type[Record]] = ClassResult

    def __init__(self, judge: ClassJudge, real: tuple[Tensor, Sequence[str]], features: str | None = None) -> None:
        if not isinstance(judge, ClassJudge):
            raise UserError(f"expected a ClassJudge, got {given(judge)}. `ClassJudge.load(name)` gives one.")
        self.judge, self.real = judge, _checked(real, judge)
        self.features = load_features(features, judge)

    @classmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        """Measure wherever prompts are names of classes."""
        return subject.world.prompts_are_classes

    @classmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        """Compare with the test images of the subject's dataset.

        Raises:
            UserError: the subject names no dataset, or there is no such dataset or judge.
        """
        judge = ClassJudge.load(options.class_judge)
        real = load_images(_dataset(subject), "test", judge.size, judge.channels)
        names = [real.names[label] for label in real.labels.tolist()]
        return cls(judge, (real.images, names), options.distance_features)

    @classmethod
    def check(
        cls, options: AuditSection, subject: Subject, prompts: Mapping[str, Sequence[str]], side: int | None = None
    ) -> list[str]:
        """Refuse data, a judge or features that are not there, or that are of other classes or another size."""
        if len(subject.concepts) != 1:
            raise UserError(f"expected one class to forget, got {list(subject.concepts)}.")
        judge, known = ClassJudge.load(options.class_judge), classes_of(_dataset(subject), "test")
        asked = dict.fromkeys((*prompts[FORGET_TEST], *prompts[RETAIN_TEST]))
        for owner, names in (
            (f"the data {subject.dataset!r}", known),
            (f"the judge {options.class_judge!r}", judge.names),
        ):
            missing = [name for name in asked if name not in names]
            if missing:
                raise UserError(
                    f"expected {owner} to have the model's classes, got {len(missing)} of {len(asked)} that are not "
                    f"there, the first {missing[0]!r}. Name the model's own with --dataset and --audit-class-judge."
                )
        if side is not None:
            judge.check_side(side, side)
        return check_features(options.distance_features)

    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> ClassResult:
        """Measure on the two test sets.

        Raises:
            UserError: more than one class is to be forgotten.
        """
        if len(subject.concepts) != 1:
            raise UserError(f"expected one class to forget, got {list(subject.concepts)}.")
        forget, retain = images.forget_test, images.retain_test
        drawn = np.concatenate([forget.images, retain.images])
        return self(subject.concepts[0], self.judge.inputs(drawn), [*forget.prompts, *retain.prompts])

    def __call__(self, concept: str, images: Tensor, asked: Sequence[str]) -> ClassResult:
        """Measure UA, RA and the distances.

        Args:
            concept: the class that is, or is to be, forgotten.
            images: what the model drew, (N, C, H, W) in [-1, 1].
            asked: the class that each was drawn for; the concept and others.

        Returns:
            FID and CMMD are of the other classes' images against real images of those classes.

        Raises:
            UserError: images that the judge can't take, without a class for each, or not of the concept and others.
        """
        _checked((images, asked), self.judge)
        if len({name == concept for name in asked}) != 2:
            raise UserError(f"expected images of {concept!r} and of other classes, got {sorted(set(asked))}.")
        guesses = self.judge.classify(images)
        forget = [guess for guess, name in zip(guesses, asked, strict=True) if name == concept]
        kept = [(guess, name) for guess, name in zip(guesses, asked, strict=True) if name != concept]
        stays = torch.tensor([name != concept for name in asked])
        real_stays = torch.tensor([name != concept for name in self.real[1]])
        distances = fidelity(self.features, images[stays], self.real[0][real_stays])
        right = torch.tensor([float(guess == name) for guess, name in kept])
        mean, low, high = bootstrap_interval(right)
        return ClassResult(
            UA=unlearning_accuracy(forget, concept),
            RA=retention_accuracy([guess for guess, _ in kept], [name for _, name in kept]),
            RA_interval=Interval(mean=mean, low=low, high=high, images=len(kept)),
            **distances,
            features=self.features.name,
            noise=sum(guess == NOISE for guess in forget) / len(forget),
            instead={name: forget.count(name) / len(forget) for name in self.judge.names if name in forget},
            by_class={
                name: retention_accuracy([g for g, n in kept if n == name], [n for _, n in kept if n == name])
                for name in dict.fromkeys(name for _, name in kept)
            },
            images=len(images),
            real_images=int(real_stays.sum()),
        )

    @classmethod
    def rows(cls, before: ClassResult | None, after: ClassResult | None) -> list[Row]:
        """Give the accuracies and the distances."""
        shares: tuple[tuple[str, str, Better, str], ...] = (
            ("UA", "UA (unlearning accuracy)", "higher", "the class's images that the judge sees as something else"),
            (
                "RA",
                "RA (retain accuracy)",
                "close",
                "the other classes' images that the judge sees as what was asked for",
            ),
        )
        result = []
        for key, name, better, meaning in shares:
            x, y = (getattr(side, key) if side else math.nan for side in (before, after))
            outcome = moved(x, y, "higher") if better == "higher" else stayed(x - y)
            text = f"Share of {meaning}. Higher is better."
            result.append(Row(name, x, y, number(x), number(y), points(x, y), outcome, better, text))
        latest = next(side for side in (after, before) if side)
        where = "the judge's features" if latest.features == "judge" else f"features of {latest.features}"
        sure = f" (± {number(latest.FID_error)} by resampling)" if latest.FID_error is not None else ""
        for key, name, meaning in (
            (
                "FID",
                "FID (Fréchet distance)",
                f"Distance of the other classes' images from held-out real ones, in {where}{sure}",
            ),
            ("CMMD", "CMMD", f"The same by maximum mean discrepancy, in {where}"),
        ):
            x, y = (getattr(side, key) if side else math.nan for side in (before, after))
            text = f"{meaning}. Lower is better."
            change = percent(relative(x, y))
            result.append(Row(name, x, y, number(x), number(y), change, moved(x, y, "lower"), "lower", text))
        return result

    @classmethod
    def forgetting(cls, kind: str, before: ClassResult, after: ClassResult) -> Evidence | None:
        """Compare the shares of the class's images that show it: 1 - UA."""
        return misses(before.UA, after.UA)

    @classmethod
    def section(cls, before: ClassResult | None, after: ClassResult | None) -> Section | None:
        """Give the share of the forgotten class's images that the judge sees as each class, where that is known."""
        first, second = (side.instead if side else {} for side in (before, after))
        counts = tuple(
            (name, round(100 * first.get(name, 0)), round(100 * second.get(name, 0)))
            for name in dict.fromkeys([*first, *second])
        )
        if not counts:
            return None
        label = "What the judge sees in the forgotten class's images"
        caption = f"Share of these images by what the judge sees in them; {NOISE!r} is no picture of any class."
        return Section("What is drawn instead", bars=Bars(label, "% of the images", counts), caption=caption)

    @classmethod
    def scene(cls, before: ClassResult, after: ClassResult) -> Loss | None:
        """Compare the shares of the forgotten class's images that are no noise."""
        return Loss(-relative(1 - before.noise, 1 - after.noise), f"random noise {number(after.noise, 2)}")

    @classmethod
    def keeping(cls, before: ClassResult, after: ClassResult) -> list[Loss]:
        """Compare RA."""
        return [Loss(before.RA - after.RA, f"RA {points(before.RA, after.RA)}")]


def _dataset(subject: Subject) -> str:
    if subject.dataset is None:
        raise UserError("kind 'class' needs real images to compare with: name the model's data with --dataset.")
    return subject.dataset


def _checked(labelled: tuple[Tensor, Sequence[str]], judge: ClassJudge) -> tuple[Tensor, Sequence[str]]:
    images, names = labelled if isinstance(labelled, tuple | list) and len(labelled) == 2 else (None, ())
    if not isinstance(images, Tensor) or not images.is_floating_point() or isinstance(names, str):
        raise UserError(f"expected (float tensor (N, C, H, W), names of classes), got {given(labelled)}.")
    size = (judge.channels, judge.size, judge.size)
    if tuple(images.shape[1:]) != size or len(images) != len(names) or not len(names):
        raise UserError(
            f"expected images of the shape (N, {', '.join(map(str, size))}) and a class for each, got the shape "
            f"{tuple(images.shape)} and {len(names)} classes."
        )
    if not images.isfinite().all():
        raise UserError("expected images in [-1, 1], got some with NaN or infinite pixels: the model has diverged.")
    return images, names

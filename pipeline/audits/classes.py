"""Audits of class-conditional models: UA, RA, and distances from real images (Ko et al. 2024, Section 4.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..maths.metrics import bootstrap_interval, retention_accuracy, unlearning_accuracy
from ..schema.results import ClassResult, Interval
from .class_judge import NOISE, ClassJudge
from .features import fidelity, load_features


class ClassAudit:
    """Does the model still draw the class, does it still draw the others, and how well?

    Args:
        judge: a classifier with "random noise" among its classes.
        real: held-out real images with labels, (images, names of their classes).
        features: of the distances, see `load_features`; None for the judge's.

    Raises:
        UserError: there are no such features.
    """

    def __init__(self, judge: ClassJudge, real: tuple[Tensor, Sequence[str]], features: str | None = None) -> None:
        self.judge, self.real = judge, real
        self.features = load_features(features, judge)

    def __call__(self, concept: str, images: Tensor, asked: Sequence[str]) -> ClassResult:
        """Measure.

        Args:
            concept: the class that is, or is to be, forgotten.
            images: what the model drew, (N, C, H, W) in [-1, 1].
            asked: the class that each was drawn for; the concept and others.

        Returns:
            FID and CMMD are of the other classes' images against real images of those classes.
        """
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
            by_class={
                name: retention_accuracy([g for g, n in kept if n == name], [n for _, n in kept if n == name])
                for name in dict.fromkeys(name for _, name in kept)
            },
            images=len(images),
            real_images=int(real_stays.sum()),
        )

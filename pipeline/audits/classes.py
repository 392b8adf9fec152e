"""Audits of class-conditional models: UA, RA, and distances from real images (Ko et al. 2024, Section 4.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import MissingExtra
from ..metrics import bootstrap_interval, cmmd, retention_accuracy, unlearning_accuracy
from ..results import ClassResult, Interval
from .class_judge import NOISE, ClassJudge


class _Features(nn.Module):
    """The judge's features as torchmetrics asks for them: of uint8 images."""

    def __init__(self, judge: ClassJudge) -> None:
        super().__init__()
        self.judge, self.num_features = judge, judge.num_features

    def forward(self, pixels: Tensor) -> Tensor:
        return self.judge.features(pixels.float() / 127.5 - 1)


@torch.no_grad()
def fidelity(judge: ClassJudge, images: Tensor, real: Tensor) -> dict[str, float]:
    """Distances between two sets of images in the judge's features.

    Args:
        judge: whose features stand in for Inception's; the figures compare with each other only.
        images: (N, C, H, W) in [-1, 1].
        real: (M, C, H, W) in [-1, 1].

    Returns:
        FID: Fréchet distance (torchmetrics). CMMD: RBF-MMD of unit-norm features, sigma 0.5 as these
        lie closer together than CLIP's at 10, times 1000.

    Raises:
        MissingExtra: torchmetrics is not installed.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError:
        raise MissingExtra("torchmetrics", "classes", "the Fréchet distance") from None
    distance = FrechetInceptionDistance(feature=_Features(judge), normalize=False)
    for part, is_real in ((real, True), (images, False)):
        distance.update(part.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8), real=is_real)
    drawn, found = (F.normalize(judge.features(part), dim=1) for part in (images, real))
    return {"FID": distance.compute().item(), "CMMD": cmmd(drawn, found, sigma=0.5)}


class ClassAudit:
    """Does the model still draw the class, does it still draw the others, and how well?

    Args:
        judge: a classifier with "random noise" among its classes.
        real: held-out real images with labels, (images, names of their classes).
    """

    def __init__(self, judge: ClassJudge, real: tuple[Tensor, Sequence[str]]) -> None:
        self.judge, self.real = judge, real

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
        distances = fidelity(self.judge, images[stays], self.real[0][real_stays])
        right = torch.tensor([float(guess == name) for guess, name in kept])
        mean, low, high = bootstrap_interval(right)
        return ClassResult(
            UA=unlearning_accuracy(forget, concept),
            RA=retention_accuracy([guess for guess, _ in kept], [name for _, name in kept]),
            RA_interval=Interval(mean=mean, low=low, high=high, images=len(kept)),
            **distances,
            noise=sum(guess == NOISE for guess in forget) / len(forget),
            by_class={
                name: retention_accuracy([g for g, n in kept if n == name], [n for _, n in kept if n == name])
                for name in dict.fromkeys(name for _, name in kept)
            },
            images=len(images),
            real_images=int(real_stays.sum()),
        )

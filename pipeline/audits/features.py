"""Features in which two sets of images are compared, and the distances between them.

FID is the Fréchet distance in InceptionV3's features (Heusel et al. 2017), CMMD the maximum mean
discrepancy in CLIP's (Jayasumana et al. 2024). Small images of a small world are better told apart by a
judge of that world, so its features are the default; figures in different features don't compare.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..maths.metrics import cmmd, frechet_distance
from ..models.pixels import to_pixels
from ..support.errors import MissingExtra, UserError
from ..support.places import user_path
from .class_judge import ClassJudge
from .clip import ClipModel, check_clip_name

INCEPTION = "inception:"
"""Prefix of a file of InceptionV3's weights."""

_RESAMPLES = 100


@dataclass(frozen=True)
class Features:
    """Features in which images are compared.

    Attributes:
        name: as a recipe has it; "judge" for the judge's.
        extract: gives (N, D), float32, of images (N, C, H, W) in [-1, 1], C 1 or 3.
        sigma: width of CMMD's kernel: 10 for CLIP, as in its paper, 0.5 for the others, whose unit-norm
            features lie closer together.
    """

    name: str
    extract: Callable[[Tensor], Tensor]
    sigma: float = 0.5


def load_features(name: str | None, judge: ClassJudge) -> Features:
    """The judge's features, or others by name.

    Args:
        name: None for the judge's penultimate layer; "inception:FILE" for InceptionV3's 2048 pool3
            features with the weights of torch-fidelity's release (`weights-inception-2015-12-05-6726825d.pth`);
            anything else is a model for `ClipModel.load`.
        judge: the judge of the audit.

    Raises:
        MissingExtra: torch-fidelity or open_clip is not installed.
        UserError: no such file or model, or a file with something else in it.
    """
    if name is None:
        return Features("judge", judge.features)
    if isinstance(name, str) and name.startswith(INCEPTION):
        return Features(name, _inception(user_path(name.removeprefix(INCEPTION))))
    clip = ClipModel.load(name)
    return Features(name, lambda images: clip.encode_images(to_pixels(images).numpy()), sigma=10)


def check_features(name: str | None) -> list[str]:
    """Refuse features that `load_features` can't load; gives warnings.

    Raises:
        MissingExtra: torch-fidelity or open_clip is not installed.
        UserError: no such file or model, or a file with something else in it.
    """
    if name is None:
        return []
    if name.startswith(INCEPTION):
        _inception(user_path(name.removeprefix(INCEPTION)))
        return []
    return check_clip_name(name)


def _inception(path: Path) -> Callable[[Tensor], Tensor]:
    if not path.is_file():
        raise UserError(f"expected a file with InceptionV3's weights after 'inception:', found none at {path}.")
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        torch.load(path, weights_only=True)  # torch-fidelity loads any pickle: refuse one that is more than tensors
        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    except (RuntimeError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} does not hold InceptionV3's weights as torch-fidelity has them: {reason}") from None
    except ImportError:
        raise MissingExtra("torch-fidelity", "inception", "InceptionV3's features") from None
    return lambda images: torch.cat([network(part) for part in to_pixels(images).permute(0, 3, 1, 2).split(32)]).float()


@torch.no_grad()
def fidelity(features: Features, images: Tensor, real: Tensor) -> dict[str, float]:
    """Distances between two sets of images.

    Args:
        features: in which they are compared.
        images: (N, C, H, W) in [-1, 1].
        real: (M, C, H, W) in [-1, 1].

    Returns:
        FID: Fréchet distance. FID_error: half its 95 % interval, 1.96 standard deviations over 100 resamples
        of `images` (their mean is no centre for it: doubled images raise the distance). CMMD: RBF-MMD of the
        features at unit norm, times 1000.
    """
    drawn, found = features.extract(images), features.extract(real)
    generator = torch.Generator().manual_seed(0)
    again = [
        frechet_distance(drawn[torch.randint(len(drawn), (len(drawn),), generator=generator)], found)
        for _ in range(_RESAMPLES)
    ]
    return {
        "FID": frechet_distance(drawn, found),
        "FID_error": 1.96 * torch.tensor(again).std().item(),
        "CMMD": cmmd(F.normalize(drawn, dim=1), F.normalize(found, dim=1), sigma=features.sigma),
    }

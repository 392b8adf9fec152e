"""Formulas of the audits: numbers in, numbers out; nothing is read, written or drawn at random here.

Accuracies and shares are in [0, 1]. Distances are computed in float64, whatever comes in: with
unit-norm features and sigma = 10 the terms of CMMD agree to three digits before they are subtracted.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .double import double


def unlearning_accuracy(guesses: Sequence[str], target: str) -> float:
    """UA, the share of images asked for with the concept that are *not* seen as it (Zhang et al. 2024).

    UA = 1 - (1/N) sum_i [guess_i = target]

    Args:
        guesses: what a classifier sees in each image of the forget test prompts, length N > 0.
        target: class name of the concept.

    Returns:
        UA in [0, 1]; higher is better.

    Raises:
        ValueError: there is no guess.

    >>> unlearning_accuracy(["cat", "horse", "random noise", "horse"], "cat")
    0.75
    """
    return 1 - retention_accuracy(guesses, [target] * len(guesses))


def retention_accuracy(guesses: Sequence[str], labels: Sequence[str]) -> float:
    """RA, the share of images that are seen as what was asked for.

    RA = (1/N) sum_i [guess_i = label_i]

    Args:
        guesses: what a classifier sees in each image, length N > 0.
        labels: what was asked for, length N.

    Returns:
        RA in [0, 1]; higher is better.

    Raises:
        ValueError: lengths differ, or there is no guess.
    """
    if len(guesses) != len(labels) or not guesses:
        raise ValueError(f"expected as many guesses as labels and at least one, got {len(guesses)} and {len(labels)}.")
    return sum(guess == label for guess, label in zip(guesses, labels, strict=True)) / len(guesses)


def domain_retention(
    by_dimension: Mapping[str, float], own: str, domains: Sequence[str] = ("subject", "style")
) -> tuple[float, float]:
    """IRA and CRA of UnlearnCanvas (Zhang et al. 2024), from the retention accuracy of each dimension.

    IRA is the accuracy in the concept's own domain on everything that is to stay, CRA the mean
    accuracy in the *other* domains. UnlearnCanvas has two, objects ("subject" here) and styles, so
    for a subject CRA is the accuracy of the style, and for a style that of the subject.

    Args:
        by_dimension: dimension -> retention accuracy.
        own: dimension of the concept.
        domains: the dimensions that CRA looks at, `own` left out.

    Returns:
        (IRA, CRA), both in [0, 1]; higher is better.

    Raises:
        ValueError: a dimension that is needed was not measured.

    >>> domain_retention({"subject": 0.9, "style": 0.8, "time": 0.1}, own="style")
    (0.8, 0.9)
    """
    others = [name for name in domains if name != own]
    missing = [name for name in (own, *others) if name not in by_dimension]
    if missing or not others:
        raise ValueError(f"expected the accuracies of {[own, *others]}, got those of {list(by_dimension)}.")
    return by_dimension[own], sum(by_dimension[name] for name in others) / len(others)


def alignment(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Alignment score of each image with its own prompt: the cosine of their CLIP features.

    cos(v, u) = <v, u> / (||v|| ||u||)

    Not rescaled and not clipped at zero, as in Ko et al. 2024; CLIPScore (Hessel et al. 2021) is
    2.5 max(cos, 0).

    Args:
        image_features: v, shape (N, D).
        text_features: u, row i for image i, shape (N, D).

    Returns:
        Cosines in [-1, 1], shape (N,).

    Raises:
        ValueError: shapes differ or are not (N, D).
    """
    if image_features.shape != text_features.shape or image_features.ndim != 2:
        raise ValueError(
            f"expected two (N, D) tensors of the same shape, got {tuple(image_features.shape)} "
            f"and {tuple(text_features.shape)}."
        )
    return F.cosine_similarity(image_features, text_features, dim=-1)


def bootstrap_interval(
    values: Tensor,
    confidence: float = 0.95,
    resamples: int = 2000,
    generator: torch.Generator | None = None,
) -> tuple[float, float, float]:
    """Mean of a sample and its percentile bootstrap interval (Efron 1979).

    The mean is taken anew for `resamples` samples of N values drawn with replacement; the interval
    runs from their (1 - confidence)/2 to their (1 + confidence)/2 quantile.

    Args:
        values: one number per image, shape (N,), N > 0.
        confidence: share of the resampled means inside the interval, in (0, 1).
        resamples: number of resampled means, at least 1.
        generator: source of the resampling, on the CPU; None makes a new one with seed 0, so that a table
            computed twice is the same twice.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: no value, a value that is not finite, or `confidence` outside (0, 1).
    """
    if values.ndim != 1 or not len(values) or not values.isfinite().all():
        raise ValueError(f"expected finite values of shape (N,), N > 0, got shape {tuple(values.shape)}.")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"expected 0 < confidence < 1 and resamples >= 1, got {confidence} and {resamples}.")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    values = double(values)
    size = len(values)
    at_once = max(1, 1_000_000 // size)  # bounds memory for long samples
    means = torch.cat([
        values[torch.randint(size, (min(at_once, resamples - start), size), generator=generator)].mean(dim=1)
        for start in range(0, resamples, at_once)
    ])  # fmt: skip
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = means.quantile(tails).tolist()
    return values.mean().item(), low, high


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance between two Gaussians fitted to features (Heusel et al. 2017, Eq. 6).

    ||m_a - m_b||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), with the unbiased covariances C

    With A, B the centred features divided by (N - 1)^(1/2), C_a = A^T A, and tr (C_a C_b)^(1/2) is
    the sum of the singular values of A B^T; QR first makes that at most D x D. No matrix square
    root is needed, and nothing complex comes out when there are fewer images than features.

    Args:
        features_a: shape (N, D), N > 1.
        features_b: shape (M, D), M > 1.

    Returns:
        The distance, 0 for equal sets. FID when the features are those of InceptionV3's pool3.

    Raises:
        ValueError: shapes don't fit.
    """
    _check_sets(features_a, features_b, least=2)
    features_a, features_b = double(features_a), double(features_b)
    mean_a, mean_b = features_a.mean(dim=0), features_b.mean(dim=0)
    centred_a = (features_a - mean_a) / (len(features_a) - 1) ** 0.5
    centred_b = (features_b - mean_b) / (len(features_b) - 1) ** 0.5
    reduced_a = torch.linalg.qr(centred_a, mode="r").R
    reduced_b = torch.linalg.qr(centred_b, mode="r").R
    shared = torch.linalg.svdvals(reduced_a @ reduced_b.T).sum()
    distance = (mean_a - mean_b).square().sum() + centred_a.square().sum() + centred_b.square().sum() - 2 * shared
    return max(0.0, distance.item())


def cmmd(features_a: Tensor, features_b: Tensor, sigma: float = 10, scale: float = 1000) -> float:
    """CMMD: squared maximum mean discrepancy of CLIP features (Jayasumana et al. 2024).

    scale * (mean_ij k(a_i, a_j) + mean_ij k(b_i, b_j) - 2 mean_ij k(a_i, b_j)),
    k(x, y) = exp(-||x - y||^2 / (2 sigma^2))

    This is the biased estimator (Gretton et al. 2012, Eq. 5), diagonal included, as in the
    authors' code: zero for equal sets and never negative.

    Args:
        features_a: unit-norm features, shape (N, D).
        features_b: unit-norm features, shape (M, D).
        sigma: width of the kernel; 10 in the paper.
        scale: factor on the result; 1000 in the paper.

    Returns:
        The distance, 0 for equal sets.

    Raises:
        ValueError: shapes don't fit, or rows are not of unit norm.
    """
    _check_sets(features_a, features_b, least=1)
    features_a, features_b = double(features_a), double(features_b)
    for features in (features_a, features_b):
        norms = features.norm(dim=-1)
        if (norms - 1).abs().max() > 1e-2:
            raise ValueError(
                f"expected features of unit norm, got norms from {norms.min():.3g} to {norms.max():.3g}. "
                "Divide each row by its norm."
            )

    def mean_kernel(first: Tensor, second: Tensor) -> Tensor:
        squared = first.square().sum(-1)[:, None] + second.square().sum(-1)[None] - 2 * first @ second.T
        return torch.exp(-squared / (2 * sigma**2)).mean()

    within = mean_kernel(features_a, features_a) + mean_kernel(features_b, features_b)
    return max(0.0, (scale * (within - 2 * mean_kernel(features_a, features_b))).item())


def _check_sets(features_a: Tensor, features_b: Tensor, least: int) -> None:
    shapes = tuple(features_a.shape), tuple(features_b.shape)
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"expected features of shapes (N, D) and (M, D), got {shapes[0]} and {shapes[1]}.")
    rows = shapes[0][0], shapes[1][0]
    if min(rows) < least:
        raise ValueError(f"expected at least {least} rows of features in each set, got {rows[0]} and {rows[1]}.")


def class_similarity(features: Tensor, labels: Tensor) -> Tensor:
    """Cosine similarity of the classes' mean features, (K, K) (Ko et al. 2024, Appendix E.3).

    Args:
        features: of a judge, of real images, (N, F).
        labels: (N,), in [0, K).
    """
    means = torch.stack([features[labels == label].mean(0) for label in range(int(labels.max()) + 1)])
    means = F.normalize(means, dim=1)
    return means @ means.T


def copies(forget: Tensor, retain: Tensor, floor: float = 0.05) -> float:
    """Share of forget images that lie nearer to given pictures than all but a share of the retain images.

    (1/N) sum_i [s_i > q], q the (1 - floor) quantile of the retain images' similarities

    Args:
        forget: similarity of each forget image with the picture nearest to it, (N,), N > 0.
        retain: the same of the retain images, (M,), M > 0.
        floor: share of the retain images that lie above q, in (0, 1).

    Raises:
        ValueError: there are none of one kind.

    >>> copies(torch.tensor([0.2, 0.95]), torch.linspace(0, 1, 21), floor=0.1)
    0.5
    """
    if not len(forget) or not len(retain):
        raise ValueError(f"expected similarities of forget and retain images, got {len(forget)} and {len(retain)}.")
    return double(forget.cpu() > torch.quantile(double(retain), 1 - floor)).mean().item()

"""Zero-shot classification: which value of a dimension of a world does a picture show?"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ..maths.metrics import retention_accuracy
from ..worlds import World


def classify(
    image_features: Tensor, encode_texts: Callable[[list[str]], Tensor], dimension: str, world: World
) -> list[str]:
    """Name the class of a dimension that each image is nearest to.

    Args:
        image_features: unit-norm features, shape (N, D).
        encode_texts: prompts -> unit-norm features, shape (number of prompts, D).
        dimension: one of `world.words`.
        world: gives the classes and their prompts.

    Returns:
        One class of `world.class_prompts` for each image.
    """
    names, prompts = world.class_prompts(dimension)
    guesses = (image_features @ encode_texts(prompts).T).argmax(dim=-1)
    return [names[guess] for guess in guesses.tolist()]


def hits(
    image_features: Tensor,
    encode_texts: Callable[[list[str]], Tensor],
    labels: Mapping[str, Sequence[str | None]],
    world: World,
) -> dict[str, list[tuple[str, str]]]:
    """Give (guess, label) of every image, for each dimension that some image has a label for.

    Args:
        image_features: unit-norm features, shape (N, D).
        encode_texts: prompts -> unit-norm features.
        labels: dimension -> what each image should show, None where that was left unsaid; such
            images are left out of that dimension.
        world: gives the classes and their prompts.
    """
    found = {}
    for dimension, wanted in labels.items():
        guesses = classify(image_features, encode_texts, dimension, world)
        said = [(guess, label) for guess, label in zip(guesses, wanted, strict=True) if label is not None]
        if said:
            found[dimension] = said
    return found


def accuracies(said: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, float]:
    """Give the accuracy in [0, 1] of each dimension of `hits`."""
    return {dimension: accuracy(pairs) for dimension, pairs in said.items()}


def accuracy(said: Sequence[tuple[str, str]]) -> float:
    """Give the share of right guesses among (guess, label)."""
    return retention_accuracy([guess for guess, _ in said], [label for _, label in said])

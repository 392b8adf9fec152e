"""Zero-shot classification in the tiny-canvas world: which value of a dimension does a picture show?

The extra class "random noise" is always among the candidates (Ko et al. 2024, Section 4.1), so
that a model that draws nothing at all is not said to draw one of the others.
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ..maths.metrics import retention_accuracy
from ..worlds.tiny_canvas import DIMENSIONS, NOISE_CAPTION, compose


def class_prompts(dimension: str) -> tuple[list[str], list[str]]:
    """The classes of a dimension and the zero-shot prompt of each, with "random noise" last.

    >>> class_prompts("time")[1]
    ['something at noon', 'something at sunset', 'something at night', 'random noise']
    """
    first = {value: phrases[0] for value, phrases in DIMENSIONS[dimension].items()}
    template = {
        "subject": lambda phrase: compose("a photo of", phrase, "", "").strip(),
        "style": lambda phrase: f"{phrase} something",
        "place": lambda phrase: f"something {phrase}",
        "time": lambda phrase: f"something {phrase}",
    }[dimension]
    return [*first, NOISE_CAPTION], [*(template(phrase) for phrase in first.values()), NOISE_CAPTION]


def classify(image_features: Tensor, encode_texts: Callable[[list[str]], Tensor], dimension: str) -> list[str]:
    """Which class of a dimension each image is nearest to.

    Args:
        image_features: unit-norm features, shape (N, D).
        encode_texts: prompts -> unit-norm features, shape (number of prompts, D).
        dimension: one of `world.DIMENSIONS`.

    Returns:
        One value of the dimension, or "random noise", for each image.
    """
    names, prompts = class_prompts(dimension)
    guesses = (image_features @ encode_texts(prompts).T).argmax(dim=-1)
    return [names[guess] for guess in guesses.tolist()]


def hits(
    image_features: Tensor,
    encode_texts: Callable[[list[str]], Tensor],
    labels: Mapping[str, Sequence[str | None]],
) -> dict[str, list[tuple[str, str]]]:
    """(guess, label) of every image, for each dimension that some image has a label for.

    Args:
        image_features: unit-norm features, shape (N, D).
        encode_texts: prompts -> unit-norm features.
        labels: dimension -> what each image should show, None where that was left unsaid; such
            images are left out of that dimension.
    """
    found = {}
    for dimension, wanted in labels.items():
        guesses = classify(image_features, encode_texts, dimension)
        said = [(guess, label) for guess, label in zip(guesses, wanted, strict=True) if label is not None]
        if said:
            found[dimension] = said
    return found


def zero_shot(
    image_features: Tensor,
    encode_texts: Callable[[list[str]], Tensor],
    labels: Mapping[str, Sequence[str | None]],
) -> dict[str, float]:
    """Dimension -> zero-shot accuracy in [0, 1]; arguments as for `hits`."""
    return {dimension: accuracy(said) for dimension, said in hits(image_features, encode_texts, labels).items()}


def accuracy(said: Sequence[tuple[str, str]]) -> float:
    """Share of right guesses."""
    return retention_accuracy([guess for guess, _ in said], [label for _, label in said])

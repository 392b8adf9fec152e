"""Accuracies of unlearning in the tiny-canvas world, named as in UnlearnCanvas (Zhang et al. 2024)."""

from collections.abc import Sequence

from ..maths.metrics import domain_retention, unlearning_accuracy
from ..schema.results import AccuracyResult, ValueAccuracy
from ..support.errors import UserError
from ..support.progress import Progress, Silent
from ..worlds.concepts import split_concepts
from ..worlds.tiny_canvas import DIMENSIONS, dimension_of, labels_of
from .clip import ClipModel
from .images import Images, to_uint8
from .zero_shot import accuracy, classify, hits


class AccuracyAudit:
    """Does the model still draw the concept, and does it still draw everything else?

    Labels are read from the prompts, guesses are made zero-shot by `clip`. CRA looks at subject and
    style only, the two domains of UnlearnCanvas; `by_dimension` holds place and time too.

    Args:
        clip: the judge, "tiny-canvas" for the numbers in the documentation.
    """

    def __init__(self, clip: ClipModel) -> None:
        self.clip = clip

    def __call__(
        self,
        concept: str,
        forget_images: Images,
        forget_prompts: Sequence[str],
        retain_images: Images,
        retain_prompts: Sequence[str],
        progress: Progress | None = None,
    ) -> AccuracyResult:
        """Measure UA, IRA and CRA.

        Args:
            concept: a value or phrase of the world, for example "cat" or "pop art"; or several, "cat + pop art".
                Then UA is over all forget images, each with its own concept, IRA and CRA are means over concepts.
            forget_images: pictures of the forget test prompts.
            forget_prompts: one for each.
            retain_images: pictures of the retain test prompts.
            retain_prompts: one for each.
            progress: told about each batch.

        Raises:
            UserError: the concept is none of this world, or the prompts don't fit it.
        """
        targets = [find_concept(name) for name in split_concepts(concept)]
        forget, retain = to_uint8(forget_images), to_uint8(retain_images)
        for images, prompts in ((forget, forget_prompts), (retain, retain_prompts)):
            if len(images) != len(prompts):
                raise UserError(f"expected a prompt for each image, got {len(images)} images, {len(prompts)} prompts.")
        wanted = [_target(prompt, targets) for prompt in forget_prompts]
        read = [labels_of(prompt) for prompt in retain_prompts]
        labels = {name: [found.get(name) for found in read] for name in DIMENSIONS}
        own = {dimension for dimension, _ in targets}
        unsaid = [name for name in {*own, "subject", "style"} if not any(labels[name])]
        if unsaid:
            raise UserError(
                f"expected retain prompts that name a {' and a '.join(sorted(unsaid))} of the tiny-canvas world, "
                f"got none, for example {retain_prompts[0]!r}."
            )
        with (progress or Silent()).stage("zero-shot accuracy", len(forget) + len(retain)) as advance:
            forget_features = self.clip.encode_images(forget, advance=advance)
            retain_features = self.clip.encode_images(retain, advance=advance)
        said = hits(retain_features, self.clip.encode_texts, labels)
        by_dimension = {name: accuracy(pairs) for name, pairs in said.items()}
        domains = [domain_retention(by_dimension, own=dimension) for dimension, _ in targets]
        guesses = {dimension: classify(forget_features, self.clip.encode_texts, dimension) for dimension in own}
        seen = [(guesses[dimension][index], value) for index, (dimension, value) in enumerate(wanted)]
        return AccuracyResult(
            UA=1 - accuracy(seen),
            IRA=sum(in_domain for in_domain, _ in domains) / len(domains),
            CRA=sum(cross_domain for _, cross_domain in domains) / len(domains),
            images=len(forget) + len(retain),
            by_dimension=by_dimension,
            by_value={name: _by_value(pairs) for name, pairs in said.items()},
        )

    def concept_score(self, concept: str, images: Images) -> float:
        """Share of images in which the judge sees the concept.

        On pictures of the forget prompts *before* unlearning a low share says that the model can't
        draw the concept to begin with, and that a high UA afterwards would mean nothing.

        Raises:
            UserError: the concept is none of this world.
        """
        dimension, value = find_concept(concept)
        features = self.clip.encode_images(images)
        return 1 - unlearning_accuracy(classify(features, self.clip.encode_texts, dimension), value)


def _target(prompt: str, targets: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Which of the concepts a forget prompt asks for; a dimension left unsaid fits."""
    labels = labels_of(prompt)
    for dimension, value in targets:
        if labels.get(dimension, value if len(targets) == 1 else None) == value:
            return dimension, value
    values = " or ".join(repr(value) for _, value in targets)
    named = labels.get(targets[0][0])
    raise UserError(f"expected forget prompts about {values}, got {prompt!r}, which names {named!r}.")


def _by_value(said: Sequence[tuple[str, str]]) -> dict[str, ValueAccuracy]:
    values = dict.fromkeys(label for _, label in said)
    parts = {value: [pair for pair in said if pair[1] == value] for value in sorted(values)}
    return {value: ValueAccuracy(accuracy=accuracy(part), images=len(part)) for value, part in parts.items()}


def find_concept(concept: str) -> tuple[str, str]:
    """Give (dimension, value) of a concept of the tiny-canvas world.

    Raises:
        UserError: it has none of that name.
    """
    found = dimension_of(concept)
    if found is None:
        known = "; ".join(f"{name}: {', '.join(values)}" for name, values in DIMENSIONS.items())
        raise UserError(f"expected a concept of the tiny-canvas world ({known}), got {concept!r}.")
    return found

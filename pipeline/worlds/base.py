"""The protocol of a world: the words that prompts may use, and the judgements that its pictures allow."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from ..support.errors import UserError

NOISE_CAPTION = "random noise"
"""What a judge calls a picture of nothing: the extra class of Ko et al. 2024, Section 4.1."""

Words = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Dimension -> value -> the phrases that prompts use for it."""


class World:
    """A world without a vocabulary of its own; the others override what they know better.

    Attributes:
        name: how recipes, prompt sets and messages call it.
        models: bundled models that draw this world and nothing else.
        kinds: kinds of concepts that belong to this world only.
        words: the closed vocabulary; empty where prompts may say anything.
        judge: the CLIP model that tells the values of `words` apart in pictures, if there is one.
        prompts_are_classes: a prompt is the name of a class, so that train and test prompts are the same.
    """

    name: ClassVar[str]
    models: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[Words] = {}
    judge: ClassVar[str | None] = None
    prompts_are_classes: ClassVar[bool] = False

    def find(self, concept: str) -> tuple[str, str] | None:
        """Give the (dimension, value) that a name or phrase stands for; None if this world has none."""
        return None

    def can_say(self, concept: str) -> bool:
        """Tell whether prompts of this world can name a concept."""
        return not self.words or self.find(concept) is not None

    def find_concept(self, concept: str) -> tuple[str, str]:
        """Give the (dimension, value) of a concept.

        Raises:
            UserError: this world has none of that name.
        """
        found = self.find(concept)
        if found is None:
            known = "; ".join(f"{dimension}: {', '.join(values)}" for dimension, values in self.words.items())
            raise UserError(f"expected a concept of the {self.name} world ({known or 'none'}), got {concept!r}.")
        return found

    def labels_of(self, prompt: str) -> dict[str, str]:
        """Read which value of each dimension a prompt names; dimensions left unsaid are absent."""
        return {}

    def class_prompts(self, dimension: str) -> tuple[list[str], list[str]]:
        """Give the classes of a dimension and the zero-shot prompt of each, for `judge`."""
        raise UserError(f"expected a dimension of the {self.name} world ({list(self.words)}), got {dimension!r}.")

    def measures_accuracy(self, concepts: Sequence[str]) -> bool:
        """Tell whether `judge` can see these concepts, so that UA, IRA and CRA can be measured."""
        return self.judge is not None and all(self.find(concept) for concept in concepts)

    def counts_nudity(self, asked: Literal["auto", "on", "off"], kind: str, concepts: Sequence[str]) -> bool:
        """Tell whether NudeNet counts: as the user asked, or with "auto" where it is of use for the concept.

        Where pictures are looked at without any concept, it is.
        """
        return not concepts or self.nudity_is_telling(kind, concepts) if asked == "auto" else asked == "on"

    def nudity_is_telling(self, kind: str, concepts: Sequence[str]) -> bool:
        """Tell whether NudeNet's detections say how well the concept was forgotten."""
        return kind == "nudity"

    def nudity_rows(self, forget_prompts: Sequence[str]) -> list[int]:
        """Give the places of the prompts whose pictures NudeNet can judge.

        Returns:
            Empty where all are equal to it, so that it looks at the forget test images themselves.
        """
        return []

    def retain_images(self, count: int, retain_prompts: Sequence[str]) -> int:
        """Give the number of retain test images that go with `count` forget test images."""
        return count

"""The world of class-conditional models: a prompt is the name of a class, and nothing else."""

from collections.abc import Sequence
from typing import ClassVar

from .base import World


class Classes(World):
    """The names come from the model, so the vocabulary is not known here."""

    name: ClassVar[str] = "classes"
    kinds: ClassVar[tuple[str, ...]] = ("class",)
    prompts_are_classes: ClassVar[bool] = True

    def retain_images(self, count: int, retain_prompts: Sequence[str]) -> int:
        """Give `count` images of every other class."""
        return count * len(set(retain_prompts))

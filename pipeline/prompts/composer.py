"""The protocol of a composer, which makes the prompts of a world."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .anchors import Replace
from .banks import Kind, Named
from .llm import LLMSource
from .templates import PromptRow, Structure


@dataclass(frozen=True)
class Composed:
    """The rows of one concept, and its names."""

    name: str
    names: tuple[str, ...]
    train: list[PromptRow]
    test: list[PromptRow]
    from_llm: bool = False
    warnings: tuple[str, ...] = ()


Retain = Callable[[str, str, str], str]
"""Makes the retain prompt of a forget prompt that somebody wrote, of where it stands, for messages, and of what may be
done beside naming the concept where none can be made (see `templates.retain_for`)."""


class Caption(NamedTuple):
    """What a picture's caption says, None where it has none, and where it stands, for messages."""

    text: str | None
    where: str


@dataclass(frozen=True)
class Scope:
    """How many rows are made, and how, whatever the concept.

    Attributes:
        n: train rows.
        n_test: test rows.
        structure: many pairs, or one repeated.
        seed: decides which combinations are drawn.
        llm: asked for the sub-concepts; None: the templates.
        allow_fallback: use the templates, with a warning, where the LLM fails.
    """

    n: int
    n_test: int
    structure: Structure
    seed: int
    llm: LLMSource | None = None
    allow_fallback: bool = True


class Composer(ABC):
    """Makes the prompts of one world.

    Attributes:
        takes_llm: a language model may think up the sub-concepts.
    """

    takes_llm: ClassVar[bool] = True

    @abstractmethod
    def kind_of(self, concept: str, kind: Kind) -> Kind:
        """Give the kind that a concept is known as, else `kind`."""

    def known_as(self, names: Iterable[str], kind: Kind) -> list[Named]:
        """Give each of some concepts the kind that it is known as, else `kind`."""
        return [Named(name, self.kind_of(name, kind)) for name in names]

    def targets(
        self, names: Sequence[str], kind: Kind, synonyms: tuple[str, ...] = (), attribute_of: str | None = None
    ) -> list[Named]:
        """Give the concepts to forget: a single one is of the kind that was given, several as they are known."""
        return [Named(names[0], kind, synonyms, attribute_of)] if len(names) == 1 else self.known_as(names, kind)

    def guarded(self, names: Sequence[str], kind: Kind) -> list[Named]:
        """Give the concepts to guard: as they are known, else of the kind that is removed now, or objects."""
        return self.known_as(names, "object" if kind == "nudity" else kind)

    @abstractmethod
    def check(self, concept: Named) -> None:
        """Refuse a concept that this world can't compose prompts of.

        Raises:
            UserError: this world can't draw it, or it is of another kind.
        """

    @abstractmethod
    def compose(self, concept: Named, scope: Scope, avoid: Sequence[Named] = ()) -> Composed:
        """Make the rows of one concept.

        Args:
            concept: what is to be forgotten.
            scope: how many rows, and how.
            avoid: what no prompt may name.

        Raises:
            UserError: a concept that this world lacks, or too few combinations.
        """

    @abstractmethod
    def caption_rows(
        self, captions: Sequence[Caption], concept: Named, scope: Scope, avoid: Sequence[Named] = ()
    ) -> Composed:
        """Make rows for pictures: row i belongs to picture i modulo their number.

        In every other round through the pictures the forget prompt is the caption itself, in the others a prompt near
        it. Retain prompts are neighbours of the captions, and test rows are near them.

        Args:
            captions: of the pictures, in their order; without one, a plain sentence by the kind of the concept.
            concept: what is to be forgotten.
            scope: how many rows, and how.
            avoid: what no prompt may name.

        Raises:
            UserError: a caption that names nothing to be forgotten.
        """

    @abstractmethod
    def retain(self, concept: Named, rng: random.Random, avoid: Sequence[Named] = ()) -> Retain:
        """Give the rule that makes retain prompts of forget prompts that are not of this world's making.

        Args:
            concept: what is to be forgotten.
            rng: decides what takes its place.
            avoid: what may not.

        Raises:
            UserError: this world can't draw the concept, or nothing is left to take its place.
        """

    def own_words(self, concept: Named) -> tuple[str, ...]:
        """List the words of this world for a concept, beside those of the tables."""
        return ()

    @abstractmethod
    def replacement(
        self, text: str, concept: Named, removed: Sequence[Named] = (), kept: Sequence[Named] = ()
    ) -> Replace:
        """Give the rule that puts another thing in a concept's place.

        Args:
            text: what is drawn instead.
            concept: what is to be forgotten.
            removed: what else is to be forgotten.
            kept: what must stay forgotten.

        Raises:
            UserError: this world can't draw it, or it names what is removed or must stay forgotten.
        """

    @abstractmethod
    def usual_anchor(self, concept: Named, gone: Sequence[Named] = ()) -> str:
        """Give what is drawn instead of a concept where nobody says it, as `replacement` takes it.

        Args:
            concept: what is to be forgotten.
            gone: what must not be drawn either.
        """

    def subjects(self, prompts: Iterable[str]) -> list[Named]:
        """Give the subjects of this world that prompts show; none where any words are taken."""
        return []

    @abstractmethod
    def names(self, prompt: str, concepts: Sequence[Named], synonyms: Sequence[str]) -> bool:
        """Tell whether a prompt names one of the concepts.

        Args:
            prompt: any text.
            concepts: which.
            synonyms: every word for them.
        """

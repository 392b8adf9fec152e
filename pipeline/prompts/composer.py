"""The protocol of a composer, which makes the prompts of a world."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .anchors import Replace
from .banks import Kind
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


class Caption(NamedTuple):
    """What a picture's caption says, None where it has none, and where it stands, for messages."""

    text: str | None
    where: str


@dataclass(frozen=True)
class Scope:
    """How rows are made, whatever the concept.

    Attributes:
        structure: many pairs, or one repeated.
        seed: decides which combinations are drawn.
        llm: asked for the sub-concepts; None: the templates.
        allow_fallback: use the templates, with a warning, where the LLM fails.
    """

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
        """Give the kind of one of several concepts: the one it is known as, else `kind`."""

    @abstractmethod
    def check(self, concept: str, kind: Kind) -> None:
        """Refuse a concept that this world can't compose prompts of.

        Raises:
            UserError: this world can't draw it, or it is of another kind.
        """

    @abstractmethod
    def compose(
        self,
        concept: str,
        kind: Kind,
        n: int,
        n_test: int,
        scope: Scope,
        *,
        synonyms: tuple[str, ...] | None = None,
        avoid: Sequence[tuple[str, Kind]] = (),
        attribute_of: str | None = None,
    ) -> Composed:
        """Make the rows of one concept.

        Args:
            concept: what is to be forgotten.
            kind: decides the sentences.
            n: train rows.
            n_test: test rows.
            scope: structure, seed, source.
            synonyms: more words for it, beside those that the tables know.
            avoid: concepts with their kinds that no prompt may name.
            attribute_of: the object whose attribute the concept is.

        Raises:
            UserError: a concept that this world lacks, or too few combinations.
        """

    @abstractmethod
    def caption_rows(
        self,
        captions: Sequence[Caption],
        concept: str,
        kind: Kind,
        n: int,
        n_test: int,
        scope: Scope,
        *,
        synonyms: tuple[str, ...] | None = None,
        avoid: Sequence[tuple[str, Kind]] = (),
    ) -> Composed:
        """Make rows for pictures: row i belongs to picture i modulo their number.

        In every other round through the pictures the forget prompt is the caption itself, in the others a prompt near
        it. Retain prompts are neighbours of the captions.

        Args:
            captions: of the pictures, in their order; without one, a plain sentence by the kind of the concept.
            concept: what is to be forgotten.
            kind: of the concept.
            n: train rows.
            n_test: test rows, near the captions.
            scope: see `compose`.
            synonyms: see `compose`.
            avoid: see `compose`.

        Raises:
            UserError: a caption that names nothing to be forgotten.
        """

    @abstractmethod
    def replacement(
        self,
        text: str,
        concept: str,
        kind: Kind,
        *,
        synonyms: tuple[str, ...] | None = None,
        removed: Sequence[tuple[str, Kind]] = (),
        kept: Sequence[tuple[str, Kind]] = (),
    ) -> Replace:
        """Give the rule that puts another thing in a concept's place.

        Args:
            text: what is drawn instead.
            concept: what is to be forgotten.
            kind: of the concept.
            synonyms: as `compose` takes them.
            removed: further concepts that are to be forgotten, with their kinds.
            kept: concepts with their kinds that must stay forgotten.

        Raises:
            UserError: this world can't draw it, or it names what is removed or must stay forgotten.
        """

    @abstractmethod
    def usual_anchor(self, concept: str, kind: Kind, gone: Sequence[tuple[str, Kind]] = ()) -> str:
        """Give what is drawn instead of a concept where nobody says it, as `replacement` takes it.

        Args:
            concept: what is to be forgotten.
            kind: of the concept.
            gone: concepts with their kinds that must not be drawn either.
        """

    @abstractmethod
    def names(self, prompt: str, concepts: Sequence[str], kind: Kind, synonyms: Sequence[str]) -> bool:
        """Tell whether a prompt names one of the concepts.

        Args:
            prompt: any text.
            concepts: as `compose` took them.
            kind: of a single concept; several have those that `kind_of` gives.
            synonyms: every word for the concepts.
        """

"""The words that prompts are made of: sub-concepts per dimension, and the names of a concept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from ..support.errors import UserError
from ..support.text import fold, squeezed
from ..worlds import WORLDS
from .naming import named_in
from .text import unique

Kind = Literal["object", "style", "nudity"]
Layout = Literal["object", "artist", "medium", "nudity"]

LAYOUTS: dict[Kind, tuple[Layout, ...]] = {
    "object": ("object",),
    "style": ("artist", "medium"),
    "nudity": ("nudity",),
}

NUDITY_NAMES = ("nudity", "nakedness")
"""Nouns that name nudity; prompts use the adjectives."""


@dataclass(frozen=True)
class Bank:
    """Values of one dimension; train and test share none."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """A concept as somebody names it, before it is looked up.

    Attributes:
        name: for example "cat", "Van Gogh" or "nudity".
        kind: decides the sentences.
        synonyms: more words for it, beside those that the tables know.
        attribute_of: the object whose attribute it is.
    """

    name: str
    kind: Kind
    synonyms: tuple[str, ...] = ()
    attribute_of: str | None = None

    def find(self) -> "Concept":
        """Look it up, see `find_concept`."""
        return find_concept(self.name, self.kind, self.synonyms)


@dataclass(frozen=True)
class Concept:
    """A concept to forget, with the words that prompts use for it.

    Args:
        name: as the user wrote it, with spaces for underscores, without article or the word "style".
        layout: which sentences it fits into.
        words: how forget prompts name it, in the spelling that prompts use.
        synonyms: every word that names it, lower case, `name` included. Plurals are understood.
    """

    name: str
    layout: Layout
    words: tuple[str, ...]
    synonyms: tuple[str, ...]


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("banks.yaml").read_text(encoding="utf-8"))
    return data


def groups(layout: Layout) -> list[list[str]]:
    """Groups of words that name one thing."""
    found: list[list[str]] = _data()["synonyms"][layout]
    return found


@cache
def _group_of(name: str, layout: Layout) -> tuple[str, ...]:
    wanted = squeezed(name)
    if layout == "nudity" and wanted in NUDITY_NAMES:
        return tuple(groups(layout)[0])
    return next((tuple(group) for group in groups(layout) if wanted in map(squeezed, group)), ())


def known_kind(concept: str) -> Kind | None:
    """Tell which kind of concept the tables know a name as; None if they don't know it.

    >>> known_kind("naked"), known_kind("Monet"), known_kind("kitten"), known_kind("quokka")
    ('nudity', 'style', 'object', None)
    """
    for kind, layouts in LAYOUTS.items():
        if any(_group_of(plain_name(concept, kind), layout) for layout in layouts):
            return kind
    return None


def main_name(concept: str) -> str | None:
    """Give the word that stands for all names of a concept; None if neither the tables nor a world know it.

    >>> main_name("kitten"), main_name("vangogh"), main_name("cappuccino"), main_name("quokka")
    ('cat', 'Vincent van Gogh', 'coffee', None)
    """
    value = next((found[1] for world in WORLDS.values() if (found := world.find(concept))), None)
    for kind, layouts in LAYOUTS.items():
        for layout in layouts:
            if group := _group_of(plain_name(value or concept, kind), layout):
                return group[0]
    return value


def is_artist(name: str) -> bool:
    """Tell whether the tables know a name as an artist's.

    >>> is_artist("vangogh"), is_artist("pop art")
    (True, False)
    """
    return bool(_group_of(plain_name(name, "style"), "artist"))


def templates_of_styles() -> list[str]:
    """Every sentence that composed prompts say a style in, with {name} and {scene} at their places."""
    return [text for layout in LAYOUTS["style"] for texts in _data()[layout]["template"].values() for text in texts]


def is_token(name: str) -> bool:
    """Tell whether a name is a token of textual inversion, which is taken as it is.

    >>> is_token("<cat-toy>"), is_token("<lora:cat:1>")
    (True, False)
    """
    return re.fullmatch(r"<[^\s<>:|,;]+>", name) is not None


def plain_name(concept: str, kind: Kind) -> str:
    """Write a name without what does not belong to it: an article, the word "style", underscores.

    >>> plain_name("a Cat", "object"), plain_name("the style of van_gogh", "style")
    ('Cat', 'van gogh')
    """
    if is_token(concept):
        return concept
    name = " ".join(concept.replace("_", " ").split())
    if kind == "object":
        for article in ("a ", "an ", "the "):
            name = name[len(article) :] if name.lower().startswith(article) else name
    if kind == "style":
        for start in ("in the style of ", "the style of ", "style of ", "by "):
            name = name[len(start) :] if name.lower().startswith(start) else name
        for end in ("'s style", "’s style", " style"):
            name = name[: -len(end)] if name.lower().endswith(end) else name
    return name.strip()


def find_concept(concept: str, kind: Kind, synonyms: "tuple[str, ...] | list[str] | None" = None) -> Concept:
    """Look up how a concept is named; unknown ones are named by themselves and by `synonyms`.

    Args:
        concept: for example "cat", "Van Gogh" or "nudity".
        kind: which of the sentences it goes into.
        synonyms: more words for it, beside those that the tables know.

    Raises:
        UserError: no concept, or one of another kind.
    """
    name = plain_name(concept, kind)
    if not fold(name):
        raise UserError(f"the concept must be at least one word, got {concept!r}.")
    known = known_kind(name)
    if known not in (None, kind) and not synonyms:
        raise UserError(f"expected a concept of kind {kind!r}, got {name!r}. Use kind {known!r}, or give synonyms.")
    if kind == "nudity" and known is None and not synonyms:
        words = ", ".join((*NUDITY_NAMES, *groups("nudity")[0]))
        raise UserError(
            f"expected a concept of kind 'nudity' ({words}), got {name!r}. "
            "Use one of these, another kind, or give adjectives as synonyms."
        )
    more = [" ".join(word.replace("_", " ").split()) for word in synonyms or ()]
    if not all(more):
        raise UserError(f"synonyms must be words, got {list(synonyms or ())!r}.")
    layout: Layout = "medium" if kind == "style" and _group_of(name, "medium") else LAYOUTS[kind][0]
    group = unique([*_group_of(name, layout), *more])
    if kind == "nudity":
        nouns = (fold(name), *(NUDITY_NAMES if known == "nudity" else ()))
        words_used = [word for word in group if fold(word) not in NUDITY_NAMES]
        return Concept(name, layout, tuple(words_used or [name]), _lower([*nouns, *group]))
    spelling = next((word for word in group if squeezed(word) == squeezed(name)), name)
    if layout == "artist" and spelling.islower():
        spelling = spelling.title()
    return Concept(name, layout, tuple(unique([spelling, *group])), _lower([name, *group]))


def _lower(words: list[str]) -> tuple[str, ...]:
    return tuple(unique([" ".join(word.lower().split()) for word in words]))


def synonyms_of(concept: str, kind: Kind = "object") -> tuple[str, ...]:
    """List the words that name a concept, lower case, the concept first.

    >>> synonyms_of("van gogh", "style")
    ('van gogh', 'vincent van gogh', 'vincent willem van gogh')
    """
    return find_concept(concept, kind).synonyms


def template_banks(concept: Concept) -> dict[str, Bank]:
    """Give the built-in banks of a concept's layout, without values that name the concept."""
    return {
        dimension: without_concept(Bank(tuple(bank["train"]), tuple(bank["test"])), dimension, concept)
        for dimension, bank in _data()[concept.layout].items()
    }


def without_concept(bank: Bank, dimension: str, concept: Concept) -> Bank:
    """Drop the values that name the concept; of retained names also those that are a part of its name.

    The places of a template, such as {name}, are no words.
    """

    def keeps(value: str) -> bool:
        if named_in(re.sub(r"\{\w+\}", "{}", value), concept.synonyms):
            return False
        return dimension != "other" or not any(named_in(word, [value]) for word in concept.synonyms)

    return Bank(tuple(filter(keeps, bank.train)), tuple(filter(keeps, bank.test)))


def sizes(banks: Mapping[str, Bank], split: Literal["train", "test"]) -> str:
    """Describe how many values each dimension has, for messages."""
    return ", ".join(f"{len(getattr(bank, split))} {dimension}" for dimension, bank in banks.items())

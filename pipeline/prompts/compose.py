"""The rows of one concept, in either world, and what it takes to have several of them in one set."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ..support.errors import UserError
from . import attributes, templates, tiny
from .banks import Bank, Concept, Kind, find_concept, known_kind, template_banks, without_concept
from .llm import LLMSource
from .templates import Row, Structure

World = Literal["open", "tiny-canvas"]
Item = TypeVar("Item")

GUARD_EVERY = 4
"""One pair in so many guards what was forgotten before: its retain prompt asks for it."""


@dataclass(frozen=True)
class Composed:
    """The rows of one concept, and how it is named."""

    name: str
    names: tuple[str, ...]
    train: list[Row]
    test: list[Row]
    from_llm: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scope:
    """What rows are made of, whatever the concept.

    Attributes:
        world: whose words.
        structure: many pairs, or one repeated.
        seed: decides which combinations are drawn.
        llm: asked for the sub-concepts; None: the templates.
        allow_fallback: use the templates, with a warning, where the LLM fails.
    """

    world: World
    structure: Structure
    seed: int
    llm: LLMSource | None = None
    allow_fallback: bool = True


def kind_of(concept: str, kind: Kind, world: World) -> Kind:
    """The kind of one of several concepts: what it is known as, else `kind`."""
    if world == "tiny-canvas":
        return tiny.kind_of(concept, kind)
    return known_kind(concept) or kind


def compose(
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
        scope: world, structure, seed, source.
        synonyms: words for it in place of the table's.
        avoid: concepts with their kinds that no prompt may name.
        attribute_of: the object whose attribute the concept is.

    Raises:
        UserError: a concept that this world lacks, or too few combinations.
    """
    if scope.world == "tiny-canvas":
        if attribute_of is not None:
            raise UserError(
                f"tiny-canvas draws no attributes, got {concept!r} from {attribute_of!r}. Use a larger model."
            )
        return _tiny(concept, kind, n, n_test, scope, synonyms, avoid)
    found = find_concept(concept, kind, synonyms)
    others = [find_concept(name, kind_of_it) for name, kind_of_it in avoid]
    if attribute_of is not None:
        bearer = find_concept(attribute_of, "object")
        train, test = attributes.rows(found, bearer, n, n_test, scope.seed, scope.structure)
        return Composed(found.name, found.synonyms, train, test)
    if scope.llm is not None:
        try:
            train, test = _open(found, scope.llm.banks(found, scope.seed), n, n_test, scope, others)
            return Composed(found.name, found.synonyms, train, test, from_llm=True)
        except UserError as error:
            if not scope.allow_fallback:
                raise
            warnings: tuple[str, ...] = (f"templates used in place of the LLM: {error}",)
    else:
        warnings = ()
    train, test = _open(found, template_banks(found), n, n_test, scope, others)
    return Composed(found.name, found.synonyms, train, test, warnings=warnings)


def _tiny(
    concept: str,
    kind: Kind,
    n: int,
    n_test: int,
    scope: Scope,
    synonyms: tuple[str, ...] | None,
    avoid: Sequence[tuple[str, Kind]],
) -> Composed:
    values = {tiny.find(name, kind_of_it) for name, kind_of_it in avoid}
    test = tiny.diverse_rows(concept, kind, synonyms, n_test, "test", scope.seed, values)
    if scope.structure == "uniform":
        train = [tiny.uniform_row(concept, kind, values)] * n
    else:
        train = tiny.diverse_rows(concept, kind, synonyms, n, "train", scope.seed, values)
    return Composed(" ".join(concept.split()), tiny.names_of(concept, kind, synonyms), train, test)


def _open(
    concept: Concept, banks: dict[str, Bank], n: int, n_test: int, scope: Scope, avoid: Sequence[Concept]
) -> tuple[list[Row], list[Row]]:
    for other in avoid:
        banks = {dimension: without_concept(bank, dimension, other) for dimension, bank in banks.items()}
    test = templates.diverse_rows(concept, banks, n_test, "test", scope.seed)
    if scope.structure == "uniform":
        avoided = [word for other in avoid for word in other.synonyms]
        return [templates.uniform_row(concept, avoided)] * n, test
    return templates.diverse_rows(concept, banks, n, "train", scope.seed), test


def shares(total: int, parts: int) -> list[int]:
    """Split a number as evenly as it goes, the first parts larger.

    >>> shares(5, 2)
    [3, 2]
    """
    return [total // parts + (index < total % parts) for index in range(parts)]


def interleave(parts: Sequence[Sequence[Item]]) -> list[Item]:
    """Take items in turn.

    >>> interleave([[1, 2, 3], [10, 20]])
    [1, 10, 2, 20, 3]
    """
    missing = object()
    return [item for group in itertools.zip_longest(*parts, fillvalue=missing) for item in group if item is not missing]  # type: ignore[misc]


def guard(train: Sequence[Row], kept: Sequence[str]) -> list[Row]:
    """Let every GUARD_EVERY-th retain prompt ask for what was forgotten before, so that it stays so.

    The model draws its own retain images, so these show what it draws now, not the concept.
    """
    prompts = itertools.cycle(kept)
    return [
        (forget, next(prompts) if index % GUARD_EVERY == GUARD_EVERY - 1 else retain)
        for index, (forget, retain) in enumerate(train)
    ]

"""Prompts of the open world: templates filled from banks of words, or from what a language model suggests."""

from collections.abc import Sequence
from dataclasses import replace

from ..support.errors import UserError
from . import anchors, attributes, templates
from .anchors import NOTHING, Replace
from .banks import Bank, Concept, Kind, find_concept, known_kind, template_banks, without_concept
from .composer import Caption, Composed, Composer, Scope
from .naming import named_in
from .templates import PromptRow


class OpenComposer(Composer):
    """Any concept may be named; the tables know many by their kind and synonyms."""

    def kind_of(self, concept: str, kind: Kind) -> Kind:
        """Look the concept up in the tables."""
        return known_kind(concept) or kind

    def check(self, concept: str, kind: Kind) -> None:
        """Any words are taken."""

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
        """Fill templates; an attribute has templates of its own."""
        found = find_concept(concept, kind, synonyms)
        others = [find_concept(name, kind_of_it) for name, kind_of_it in avoid]
        if attribute_of is not None:
            bearer = find_concept(attribute_of, "object")
            train, test = attributes.rows(found, bearer, n, n_test, scope.seed, scope.structure)
            return Composed(found.name, found.synonyms, train, test)
        warnings: tuple[str, ...] = ()
        if scope.llm is not None:
            try:
                train, test = _rows(found, scope.llm.banks(found, scope.seed), n, n_test, scope, others)
                return Composed(found.name, found.synonyms, train, test, from_llm=True)
            except UserError as error:
                if not scope.allow_fallback:
                    raise
                warnings = (f"templates used instead of the language model: {error}",)
        train, test = _rows(found, template_banks(found), n, n_test, scope, others)
        return Composed(found.name, found.synonyms, train, test, warnings=warnings)

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
        """Put another object or style in the captions' place of the concept; near them are the templates' prompts."""
        found = find_concept(concept, kind, synonyms)
        near = self.compose(concept, kind, n, n_test, scope, synonyms=synonyms, avoid=avoid)
        others: tuple[str, ...] = ("",)
        if found.layout != "nudity":
            bank = template_banks(found)["other"]
            for other in avoid:
                bank = without_concept(bank, "other", find_concept(*other))
            others = bank.train
        plain, rng, train = templates.uniform_row(found)[0], templates.generator(scope.seed, "train"), []
        for row in range(n):
            turn, place = divmod(row, len(captions))
            text, where = captions[place]
            said = (text or plain, templates.retain_for(text or plain, found, rng.choice(others), where, ""))
            train.append(near.train[row] if turn % 2 else said)
        return replace(near, train=train)

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
        """Put the text into sentences of any kind."""
        found = find_concept(concept, kind, synonyms)
        others, before = (
            [word for each in named for word in find_concept(*each).synonyms] for named in (removed, kept)
        )
        anchors.check_text(text, [*found.synonyms, *others], before)
        return anchors.replacement(text, found)

    def usual_anchor(self, concept: str, kind: Kind, gone: Sequence[tuple[str, Kind]] = ()) -> str:
        """Clothes for nudity, a plain photo for a style, a person for a full name, else another object of the bank."""
        found = find_concept(concept, kind)
        if found.layout == "nudity":
            return "clothed"
        words = [word for one in (found, *(find_concept(*each) for each in gone)) for word in one.synonyms]
        if found.layout != "object":
            return next(text for text in ("a plain photo", "a painting", NOTHING) if named_in(text, words) is None)
        others = template_banks(found)["other"].train
        named = len(parts := concept.split()) > 1 and all(part[:1].isupper() for part in parts)
        likely = ("person", *others) if named else others
        return next((other for other in likely if named_in(other, words) is None), NOTHING)

    def names(self, prompt: str, concepts: Sequence[str], kind: Kind, synonyms: Sequence[str]) -> bool:
        """Look for any of the words, or its plural."""
        return named_in(prompt, synonyms) is not None


def _rows(
    concept: Concept, banks: dict[str, Bank], n: int, n_test: int, scope: Scope, avoid: Sequence[Concept]
) -> tuple[list[PromptRow], list[PromptRow]]:
    for other in avoid:
        banks = {dimension: without_concept(bank, dimension, other) for dimension, bank in banks.items()}
    test = templates.diverse_rows(concept, banks, n_test, "test", scope.seed)
    if scope.structure == "uniform":
        avoided = [word for other in avoid for word in other.synonyms]
        return [templates.uniform_row(concept, avoided)] * n, test
    return templates.diverse_rows(concept, banks, n, "train", scope.seed), test

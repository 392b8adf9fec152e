"""Prompts of the open world: templates filled from banks of words, or from what a language model suggests."""

import random
from collections.abc import Sequence
from dataclasses import replace

from ..support.errors import UserError
from . import anchors, attributes, templates
from .anchors import NOTHING, Replace
from .banks import Bank, Concept, Kind, Named, find_concept, known_kind, template_banks, without_concept
from .composer import Caption, Composed, Composer, Retain, Scope
from .naming import named_in
from .templates import PromptRow


class OpenComposer(Composer):
    """Any concept may be named; the tables know many by their kind and synonyms."""

    def kind_of(self, concept: str, kind: Kind) -> Kind:
        """Look the concept up in the tables."""
        return known_kind(concept) or kind

    def check(self, concept: Named) -> None:
        """Any words are taken."""

    def compose(self, concept: Named, scope: Scope, avoid: Sequence[Named] = ()) -> Composed:
        """Fill templates; an attribute has templates of its own."""
        found, others = concept.find(), [other.find() for other in avoid]
        if concept.attribute_of is not None:
            train, test = attributes.rows(found, find_concept(concept.attribute_of, "object"), scope)
            return Composed(found.name, found.synonyms, train, test)
        warnings: tuple[str, ...] = ()
        if scope.llm is not None:
            try:
                train, test = _rows(found, scope.llm.banks(found, scope.seed), scope, others)
                return Composed(found.name, found.synonyms, train, test, from_llm=True)
            except UserError as error:
                if not scope.allow_fallback:
                    raise
                warnings = (f"templates used instead of the language model: {error}",)
        train, test = _rows(found, template_banks(found), scope, others)
        return Composed(found.name, found.synonyms, train, test, warnings=warnings)

    def caption_rows(
        self, captions: Sequence[Caption], concept: Named, scope: Scope, avoid: Sequence[Named] = ()
    ) -> Composed:
        """Put another object or style in the captions' place of the concept; near them are the templates' prompts."""
        found, near = concept.find(), self.compose(concept, scope, avoid)
        retain = self.retain(concept, templates.generator(scope.seed, "train"), avoid)
        plain, train = templates.uniform_row(found)[0], []
        for row in range(scope.n):
            turn, place = divmod(row, len(captions))
            text, where = captions[place]
            said = (text or plain, retain(text or plain, where, ""))
            train.append(near.train[row] if turn % 2 else said)
        return replace(near, train=train)

    def retain(self, concept: Named, rng: random.Random, avoid: Sequence[Named] = ()) -> Retain:
        """Nudity loses its adjectives, an object or a style of the bank gives way to another."""
        found, others = concept.find(), tuple[str, ...]()
        if found.layout != "nudity":
            bank = template_banks(found)["other"]
            for other in avoid:
                bank = without_concept(bank, "other", other.find())
            others = bank.train

        def made(prompt: str, where: str, remedy: str) -> str:
            named = named_in(prompt, found.synonyms) is not None
            return templates.retain_for(prompt, found, rng.choice(others) if others and named else "", where, remedy)

        return made

    def replacement(
        self, text: str, concept: Named, removed: Sequence[Named] = (), kept: Sequence[Named] = ()
    ) -> Replace:
        """Put the text into sentences of any kind."""
        found = concept.find()
        anchors.check_text(text, [*found.synonyms, *_words(removed)], _words(kept))
        return anchors.replacement(text, found)

    def usual_anchor(self, concept: Named, gone: Sequence[Named] = ()) -> str:
        """Clothes for nudity, a plain photo for a style, a person for a full name, else another object of the bank."""
        found = concept.find()
        if found.layout == "nudity":
            return "clothed"
        words = [*found.synonyms, *_words(gone)]
        if found.layout != "object":
            return next(text for text in ("a plain photo", "a painting", NOTHING) if named_in(text, words) is None)
        others = template_banks(found)["other"].train
        named = len(parts := concept.name.split()) > 1 and all(part[:1].isupper() for part in parts)
        likely = ("person", *others) if named else others
        return next((other for other in likely if named_in(other, words) is None), NOTHING)

    def names(self, prompt: str, concepts: Sequence[Named], synonyms: Sequence[str]) -> bool:
        """Look for any of the words, or its plural."""
        return named_in(prompt, synonyms) is not None


def _words(concepts: Sequence[Named]) -> list[str]:
    """Every word for some concepts."""
    return [word for concept in concepts for word in concept.find().synonyms]


def _rows(
    concept: Concept, banks: dict[str, Bank], scope: Scope, avoid: Sequence[Concept]
) -> tuple[list[PromptRow], list[PromptRow]]:
    for other in avoid:
        banks = {dimension: without_concept(bank, dimension, other) for dimension, bank in banks.items()}
    test = templates.diverse_rows(concept, banks, scope.n_test, "test", scope.seed)
    if scope.structure == "uniform":
        avoided = [word for other in avoid for word in other.synonyms]
        return [templates.uniform_row(concept, avoided)] * scope.n, test
    return templates.diverse_rows(concept, banks, scope.n, "train", scope.seed), test

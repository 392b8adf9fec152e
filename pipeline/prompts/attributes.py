"""Rows about an attribute: the same object with it and without, for example a cowboy and his hat."""

import itertools

from ..support.errors import UserError
from .banks import Concept, template_banks, without_concept
from .composer import Scope
from .naming import named_in
from .templates import PromptRow, Scene, Split, draw, generator
from .text import capitalized, fix_articles, indefinite_article

FORMS = ("with {attribute}", "wearing {attribute}")
"""How a forget prompt says that the object has the attribute."""


def rows(attribute: Concept, bearer: Concept, scope: Scope) -> tuple[list[PromptRow], list[PromptRow]]:
    """Compose train and test rows; a retain prompt is its forget prompt without the attribute.

    Raises:
        UserError: the attribute and the object name each other, or too few combinations.
    """
    check_names(attribute, bearer)
    test = _diverse(attribute, bearer, scope.n_test, "test", scope.seed)
    if scope.structure == "uniform":
        phrase = _phrases(attribute)[0]
        plain = f"a photo of {indefinite_article(bearer.words[0])} {bearer.words[0]}"
        return [(f"{plain} {phrase}", plain)] * scope.n, test
    return _diverse(attribute, bearer, scope.n, "train", scope.seed), test


def check_names(attribute: Concept, bearer: Concept) -> None:
    """Check that neither name is a part of the other.

    Raises:
        UserError: they share a word.
    """
    for one, other in ((attribute, bearer), (bearer, attribute)):
        word = next((name for name in one.synonyms if named_in(name, other.synonyms)), None)
        if word is not None:
            raise UserError(
                f"expected an attribute and an object with names of their own, got {attribute.name!r} from "
                f"{bearer.name!r}, which share {word!r}. Name one of them otherwise."
            )


def _phrases(attribute: Concept) -> list[str]:
    return [form.format(attribute=f"{indefinite_article(word)} {word}") for word in attribute.words for form in FORMS]


def _diverse(attribute: Concept, bearer: Concept, n: int, split: Split, seed: int) -> list[PromptRow]:
    banks = {
        dimension: getattr(without_concept(bank, dimension, attribute), split)
        for dimension, bank in template_banks(bearer).items()
        if dimension != "other"
    }
    words = list(itertools.product(bearer.words, _phrases(attribute)))

    def compose(scene: Scene, chosen: tuple[str, str]) -> PromptRow:
        values = dict(zip(banks, scene, strict=True))
        noun, phrase = chosen
        forget, retain = (
            "A {adjective} {name} {doing} {place} {time}".format(name=name, **values)
            for name in (f"{noun} {phrase}", noun)
        )
        return _sentence(forget), _sentence(retain)

    return draw(generator(seed, split), list(banks.values()), words, compose, n, f"{split}")


def _sentence(text: str) -> str:
    return capitalized(fix_articles(" ".join(text.split())))

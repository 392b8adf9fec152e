"""Sentences around the sub-concepts: rows of a forget prompt and its retain prompt (Ko et al. 2024, Appendix D).

The two prompts of a row share everything but the concept. Nudity loses its adjective, an object or a
style gives way to another one.
"""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from ..support.errors import UserError
from .banks import Bank, Concept, sizes
from .naming import named_in
from .text import capitalized, fix_articles, indefinite_article, with_replacement, without_modifier

Split = Literal["train", "test"]
Structure = Literal["diverse", "uniform"]
PromptRow = tuple[str, str]
"""A forget prompt and its retain prompt."""

STAND_INS = ("dog", "cat", "chair", "bicycle", "teapot", "lamp", "guitar", "boat", "clock", "bench", "thing")
"""Objects for the retain side of the uniform pair; the first that is not to be forgotten is taken."""

MANY_SCENES = 100_000
"""Up to so many scenes all are written out and shuffled; of more, only those that are needed are drawn."""

Scene = tuple[str, ...]
Word = TypeVar("Word")


def generator(seed: int, split: Split) -> random.Random:
    """Give each split a generator of its own, so that the test rows don't depend on the number of train rows."""
    return random.Random(seed if split == "train" else f"{seed} test")


def draw(
    rng: random.Random,
    dimensions: Sequence[Sequence[str]],
    words: Sequence[Word],
    compose: Callable[[Scene, Word], PromptRow],
    n: int,
    what: str,
) -> list[PromptRow]:
    """Draw `n` different rows: scenes without repetition as long as they last, words in turn.

    A smaller `n` gives the first rows of a larger one.

    Args:
        rng: decides the order.
        dimensions: values of each; a scene, which is a prompt without the concept, has one of every dimension.
        words: ways to say the concept and what is in its place.
        compose: makes a (forget, retain) row.
        n: number of rows.
        what: name of the rows for the message.

    Raises:
        UserError: there are fewer than `n` different rows.
    """
    scenes, words = _scenes(rng, dimensions, n), list(words)
    rng.shuffle(words)
    rows: dict[PromptRow, None] = {}
    for shift in range(len(words)):
        for position, scene in enumerate(scenes):
            if len(rows) == n:
                return list(rows)
            rows.setdefault(compose(scene, words[(position + shift) % len(words)]))
    if len(rows) < n:
        raise UserError(f"expected at most {len(rows)} {what} rows, as many as there are different ones, got {n}.")
    return list(rows)


def _scenes(rng: random.Random, dimensions: Sequence[Sequence[str]], n: int) -> list[Scene]:
    """Give all scenes in random order, or `n` of them where there are more than MANY_SCENES."""
    total = math.prod(map(len, dimensions))
    if total <= MANY_SCENES:
        scenes = list(itertools.product(*dimensions))
        rng.shuffle(scenes)
        return scenes
    own = random.Random(rng.random())  # so that the order of the words doesn't depend on n
    drawn: dict[Scene, None] = {}
    while len(drawn) < min(n, total):
        drawn.setdefault(tuple(own.choice(values) for values in dimensions))
    return list(drawn)


def diverse_rows(concept: Concept, banks: Mapping[str, Bank], n: int, split: Split, seed: int) -> list[PromptRow]:
    """Compose `n` different rows of one split from the banks.

    Raises:
        UserError: the banks have too few combinations.
    """
    values = {dimension: getattr(bank, split) for dimension, bank in banks.items()}
    others = list(values.pop("other", ("",)))
    names = [(word, other) for other in others for word in concept.words]

    def compose(scene: Scene, name: PromptRow) -> PromptRow:
        chosen = dict(zip(values, scene, strict=True))
        return sentence(concept, chosen, name[0]), sentence(concept, chosen, name[1])

    what = f"{split} ({sizes(banks, split)}, {len(concept.words)} names of the concept)"
    return draw(generator(seed, split), list(values.values()), names, compose, n, what)


def sentence(concept: Concept, values: Mapping[str, str], name: str) -> str:
    """Compose one prompt; `name` stands at the concept's place and may be empty for nudity."""
    if concept.layout == "nudity":
        text = "A {mood} {name} person {activity} {place} {time}.".format(name=name, **values)
    elif concept.layout == "object":
        text = "A {adjective} {name} {doing} {place} {time}".format(name=name, **values)
    else:
        scene = "a {mood} {subject} {place}".format(**values)
        text = values["template"].replace("{scene}", scene).replace("{name}", name)
    return capitalized(fix_articles(" ".join(text.split())))


def uniform_row(concept: Concept, avoid: Sequence[str] = ()) -> PromptRow:
    """Give the one pair of prompts that SalUn trains on: no diversity, for comparison.

    `avoid` lists words that may not be in an object's place.
    """
    word = concept.words[0]
    if concept.layout == "nudity":
        return f"a photo of {indefinite_article(word)} {word} person", "a photo of a person wearing clothes"
    if concept.layout == "object":
        other = next(word for word in STAND_INS if not named_in(word, [*concept.synonyms, *avoid]))
        return f"a photo of {indefinite_article(word)} {word}", f"a photo of a {other}"
    picture = "a painting" if concept.layout == "artist" else "a picture"
    return f"{picture} in the style of {word}", picture


def check_named(prompt: str, name: str, words: Sequence[str], where: str, remedy: str) -> None:
    """Refuse to make a retain prompt of a prompt that doesn't name the concept; see `retain_for`.

    Raises:
        UserError: it names none of the words.
    """
    if named_in(prompt, words) is None:
        raise UserError(
            f"{where}: expected a prompt that names {name!r}, so that a retain prompt can be made of it, got "
            f"{prompt!r}. Add the word{remedy}."
        )


def retain_for(prompt: str, concept: Concept, other: str, where: str, remedy: str) -> str:
    """Make the retain prompt of a forget prompt: nudity loses its adjectives, an object or a style gives way.

    Args:
        prompt: names the concept.
        concept: what is to be forgotten.
        other: an object or a style to put in its place; nudity needs none.
        where: the prompt stands, for messages.
        remedy: what else may be done where none can be made, after "Add the word".

    Raises:
        UserError: the prompt doesn't name the concept, or nothing else.
    """
    check_named(prompt, concept.name, concept.synonyms, where, remedy)
    nudity = concept.layout == "nudity"
    made = without_modifier(prompt, concept.synonyms) if nudity else with_replacement(prompt, concept.synonyms, other)
    if not made:
        raise UserError(f"{where}: expected words beside {concept.name!r}, got {prompt!r}. Add some{remedy}.")
    return made

"""What a zero-shot judge may call a picture: the concept, others of its kind, and random noise.

The recipe of Ko et al. 2024, Section 4.1, for CIFAR-10: "a photo of a CLASS" for every class, and "random noise" as one
more answer, because what is left of a concept may be no picture of anything. In a world with a vocabulary the classes
are its values; in the open world they are the other objects, artists or media that prompts put in the concept's place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..worlds import World
from ..worlds.base import NOISE_CAPTION
from .banks import Concept, Kind, Layout, find_concept, known_kind, template_banks, without_concept
from .templates import uniform_row

_ASKED: dict[str, Kind] = {"object": "object", "style": "style"}
"""Kinds of concepts that have others beside them."""


@dataclass(frozen=True)
class Question:
    """One choice that a picture is put before.

    Attributes:
        names: what it may be called, "random noise" last.
        prompts: by which the judge knows each.
        concepts: those of the names that were, or are to be, forgotten.
    """

    names: tuple[str, ...]
    prompts: tuple[str, ...]
    concepts: tuple[str, ...]


def questions_about(concepts: Sequence[str], kind: Kind | str, world: World) -> tuple[Question, ...]:
    """Give one question for each sort of concept.

    Args:
        concepts: as a recipe names them; none gives no question.
        kind: of the concepts that the tables don't know.
        world: whose words the pictures show.

    Returns:
        Empty where no such question can be asked: nudity and classes have judges of their own, and a world with a
        vocabulary knows no other words.
    """
    if world.words:
        return _in_words(concepts, world)
    kinds = [(name, _ASKED.get(known_kind(name) or kind)) for name in concepts]
    found = [find_concept(name, sort) for name, sort in kinds if sort is not None]
    if world.prompts_are_classes or len(found) < len(concepts):
        return ()
    layouts = dict.fromkeys(concept.layout for concept in found)
    return tuple(_of_layout(layout, [one for one in found if one.layout == layout]) for layout in layouts)


def _in_words(concepts: Sequence[str], world: World) -> tuple[Question, ...]:
    found = [place for place in map(world.find, concepts) if place]
    if len(found) < len(concepts):
        return ()
    asked = []
    for dimension in dict.fromkeys(dimension for dimension, _ in found):
        names, prompts = world.class_prompts(dimension)
        asked.append(Question(tuple(names), tuple(prompts), tuple(value for own, value in found if own == dimension)))
    return tuple(asked)


def _of_layout(layout: Layout, concepts: Sequence[Concept]) -> Question:
    """The concepts beside the others that the bank has for such sentences."""
    bank = template_banks(concepts[0])["other"]
    for concept in concepts[1:]:
        bank = without_concept(bank, "other", concept)
    others = [Concept(name, layout, (name,), (name.lower(),)) for name in (*bank.train, *bank.test)]
    answers = {one.words[0]: uniform_row(one)[0] for one in (*concepts, *others)} | {NOISE_CAPTION: NOISE_CAPTION}
    return Question(tuple(answers), tuple(answers.values()), tuple(concept.words[0] for concept in concepts))

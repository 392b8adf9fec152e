"""From a text that says what is drawn instead to the anchors of a prompt set."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..support.errors import UserError
from . import tables
from .anchors import AUTO, NOTHING, Replace, read_replacements
from .banks import Named
from .checks import forgotten_words
from .compose import composer_for
from .composer import Composer
from .concepts import different_concepts, join_concepts
from .naming import named_in
from .pair import PromptPair
from .templates import PromptRow

if TYPE_CHECKING:
    from .prompt_set import PromptSet


def chosen(text: str | None, targets: Sequence[Named], composer: Composer, kept: Sequence[Named] = ()) -> str | None:
    """Give what is drawn instead: the text, with one thing for each "auto" in it, the same in all pairs of a concept.

    A model that redirects many prompts to one thing draws that; one that redirects each to another thing learns their
    mean. An attribute is just left out, as in the retain prompts. What is the same for all concepts is said once.

    Raises:
        UserError: no plain words, or another number of them than of concepts.
    """
    if text is None or (text == AUTO and targets[0].attribute_of is not None):
        return None
    gone = [*targets, *kept]
    named = [
        composer.usual_anchor(target, [other for other in gone if other != target]) if one == AUTO else one
        for one, target in zip(read_replacements(text, [target.name for target in targets]), targets, strict=True)
    ]
    return join_concepts(named if len(set(named)) > 1 else named[:1])


def rule_of(
    text: str | None, targets: Sequence[Named], composer: Composer, kept: Sequence[Named] = ()
) -> Replace | None:
    """Give the rule that makes the anchor of a forget prompt; one that names no concept stays as it is.

    Args:
        text: what is drawn instead of the concepts.
        targets: the concepts.
        composer: of the world whose words the prompts use.
        kept: what must stay forgotten.

    Returns:
        None where the retain prompts are the anchors: without a text, and for an attribute that is left out.

    Raises:
        UserError: the text can't be drawn in the place of one of the concepts.
    """
    if text is None:
        return None
    texts = read_replacements(text, [target.name for target in targets])
    if targets[0].attribute_of is not None and texts == (NOTHING,):
        return None
    rules = [
        composer.replacement(one, target, [other for other in targets if other != target], kept)
        for one, target in zip(texts, targets, strict=True)
    ]

    def anchor(prompt: str) -> str:
        for rule in rules:
            prompt = rule(prompt)
        return prompt

    return anchor


def paired(rows: Sequence[PromptRow], rule: Replace | None) -> tuple[PromptPair, ...]:
    """Make pairs of rows, with their anchors."""
    return anchored([PromptPair(forget=forget, retain=retain) for forget, retain in rows], rule)


def anchored(pairs: Sequence[PromptPair], rule: Replace | None) -> tuple[PromptPair, ...]:
    """Give an anchor to each pair that has none and whose forget prompt names a concept."""
    return tuple(
        pair
        if rule is None or pair.anchor is not None or (made := rule(pair.forget)) == pair.forget
        else pair.model_copy(update={"anchor": made})
        for pair in pairs
    )


def without_guards(prompts: "PromptSet") -> list[PromptPair]:
    """Give the train rows without the anchors of those that guard: these are only what their retain prompts were."""
    kept = forgotten_words(prompts)
    return [
        pair.model_copy(update={"anchor": None}) if named_in(pair.retain, kept) is not None else pair
        for pair in prompts.train
    ]


def without_usual_anchor(prompts: "PromptSet") -> "PromptSet":
    """Let a set draw its retain prompts instead, but in the rows that guard: theirs ask for something else."""
    kept = forgotten_words(prompts)
    train, test = (
        tuple(
            pair if named_in(pair.retain, kept) is not None else pair.model_copy(update={"anchor": None})
            for pair in pairs
        )
        for pairs in (prompts.train, prompts.test)
    )
    more = {"replace_with": None, "usual_anchor": False}
    return prompts.model_copy(update={"train": train, "test": test, **more})


def replaced(
    prompts: "PromptSet", text: str, world: str, synonyms: tuple[str, ...] = (), kept: Sequence[str] = ()
) -> "PromptSet":
    """Make the anchors that a set lacks; where it lacks none, the text has no effect, and the set says so.

    Args:
        prompts: of a file.
        text: what is drawn instead.
        world: whose words the anchors use, where it has the concepts; else those of the open world.
        synonyms: more words for a single concept.
        kept: what must stay forgotten, beside what the set says.

    Raises:
        UserError: the text can't be drawn in the place of a concept.
    """
    if prompts.kind == "class":
        raise UserError(
            f"a file about classes says itself what is drawn instead, got replace_with {text!r}. Leave it out."
        )
    composer = composer_for(world, prompts.concepts)
    words = (*prompts.synonyms, *synonyms) if len(prompts.concepts) == 1 else synonyms
    targets = composer.targets(prompts.concepts, prompts.kind, words, prompts.attribute_of)
    if not composer.takes_llm:  # a world whose words have one kind each
        targets = [replace(target, kind=composer.kind_of(target.name, target.kind)) for target in targets]
    before = composer.guarded(different_concepts([*prompts.keep_forgotten, *kept]), prompts.kind)
    instead = chosen(text, targets, composer, before)
    rule = rule_of(instead, targets, composer, before)
    given = without_guards(prompts)
    train, test = anchored(given, rule), anchored(prompts.test, rule)
    before_and_after = list(zip([*given, *prompts.test], [*train, *test], strict=True))
    retained = [number for number, (_, pair) in enumerate(before_and_after, start=1) if rule and pair.anchor is None]
    warnings = tables.told(
        retained, "forget prompt", f"without {prompts.concept!r}, with the retain prompt drawn instead", "row"
    )
    kept_as_they_were = [old == new for old, new in before_and_after]
    if rule and all(kept_as_they_were):
        instead = None
        if not retained:
            warnings = (f"replace_with {text!r} has no effect: every row says what is drawn instead",)
    return prompts.model_copy(
        update={
            "train": train,
            "test": test,
            "replace_with": instead,
            "own_too": instead is not None and rule is not None and any(kept_as_they_were),
            "warnings": (*prompts.warnings, *warnings),
        }
    )

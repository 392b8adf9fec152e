"""What the rows of a prompt set must be, whatever they come from."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..support.errors import UserError
from ..support.text import fold
from ..worlds import find_world
from .banks import find_concept, known_kind, main_name
from .compose import composer_of
from .concepts import read_concepts
from .naming import named_in

if TYPE_CHECKING:
    from .prompt_set import PromptPair, PromptSet


def rows_cut_off(prompts: "PromptSet", read: Callable[[Sequence[str]], Sequence[str]]) -> list[str]:
    """List the rows that teach nothing because a text encoder reads only the start of a prompt.

    A row is lost where the concept stands behind what is read of its forget prompt, or where the same is
    read of it and of its retain prompt, or of it and of what is drawn instead.

    Args:
        prompts: whose rows.
        read: gives the part of each prompt that the text encoders read.

    Returns:
        Places such as "train row 3".
    """
    lost = []
    for split, pairs in (("train", prompts.train), ("test", prompts.test)):
        read_of = [read([getattr(pair, role) for pair in pairs]) for role in ("forget", "retain", "instead")]
        for number, (pair, forget, *others) in enumerate(zip(pairs, *read_of, strict=True), start=1):
            if fold(forget) in map(fold, others) or (
                prompts.names_concept(pair.forget) and not prompts.names_concept(forget)
            ):
                lost.append(f"{split} row {number}")
    return lost


def check_rows(prompts: "PromptSet") -> None:
    """Check the concept and every row, and that no test row is trained on.

    Raises:
        UserError: the first problem, with its row.
    """
    if not prompts.concept.strip() or not any(word.strip() for word in prompts.synonyms):
        raise UserError(f"the concept must be at least one word, got {prompts.concept!r}.")
    if prompts.kind != "class":
        read_concepts(prompts.concepts)
        if prompts.source != "file":
            composer = composer_of(prompts.world)
            for target in composer.targets(prompts.concepts, prompts.kind):
                composer.check(target)
    if not prompts.train:
        raise UserError("expected at least one train row, got none. Add a forget and a retain prompt.")
    kept = forgotten_words(prompts)
    for split, pairs in (("train", prompts.train), ("test", prompts.test)):
        for number, pair in enumerate(pairs, start=1):
            _check_pair(prompts, pair, f"{split} row {number}")
            if pair.anchor is not None:
                _check_anchor(prompts, pair, pair.anchor, kept, f"{split} row {number}")
    if find_world(prompts.world).prompts_are_classes:
        return  # there are no other prompts to test on
    numbers = {(fold(pair.forget), fold(pair.retain)): number for number, pair in enumerate(prompts.train, start=1)}
    for number, pair in enumerate(prompts.test, start=1):
        same = numbers.get((fold(pair.forget), fold(pair.retain)))
        if same is not None:
            raise UserError(
                f"expected different rows to train and to test on, got test row {number} equal to train row {same} "
                f"({pair.forget!r}). Leave one of them out."
            )


def forgotten_words(prompts: "PromptSet") -> list[str]:
    """List every word for what was forgotten before and must stay so."""
    world, words = find_world(prompts.world), list[str]()
    for name in prompts.keep_forgotten:
        place = world.find(name)
        kind = known_kind(main_name(name) or name) or "object"
        words += world.words[place[0]][place[1]] if place else find_concept(name, kind).synonyms
    return words


def _check_anchor(prompts: "PromptSet", pair: "PromptPair", anchor: str, kept: Sequence[str], where: str) -> None:
    if not anchor:
        raise UserError(f"{where}: expected a prompt of what is drawn instead (anchor), got an empty one.")
    said = named_in(anchor, prompts.synonyms) or prompts.concept if prompts.names_concept(anchor) else None
    if said is None and named_in(pair.forget, kept) is None:
        said = named_in(anchor, kept)
    if said is not None:
        why = "is removed" if prompts.names_concept(anchor) else "must stay forgotten"
        raise UserError(f"{where}: expected an anchor without what {why}, got {anchor!r}, which says {said!r}.")
    if fold(anchor) == fold(pair.forget):
        raise UserError(f"{where}: expected an anchor that differs from its forget prompt, got {anchor!r} twice.")


def _check_pair(prompts: "PromptSet", pair: "PromptPair", where: str) -> None:
    for role, prompt in (("forget", pair.forget), ("retain", pair.retain)):
        if not prompt:
            raise UserError(f"{where}: expected a {role} prompt, got an empty one. Write one or leave the row out.")
    if prompts.names_concept(pair.retain):
        word = named_in(pair.retain, prompts.synonyms) or prompts.concept
        raise UserError(
            f"{where}: expected a retain prompt without {prompts.concept!r}, got {pair.retain!r}, which says {word!r}."
        )
    if fold(pair.forget) == fold(pair.retain):
        raise UserError(f"{where}: expected prompts that differ, got {pair.forget!r} twice.")
    if prompts.attribute_of and prompts.source != "file":
        bearer = find_concept(prompts.attribute_of, "object").synonyms
        strays = [prompt for prompt in (pair.forget, pair.retain) if named_in(prompt, bearer) is None]
        if strays and not prompts.keep_forgotten:
            raise UserError(f"{where}: expected prompts about {prompts.attribute_of!r}, got {strays[0]!r}.")
    if prompts.source != "file" and not prompts.names_concept(pair.forget):
        raise UserError(f"{where}: expected a forget prompt that names {prompts.concept!r}, got {pair.forget!r}.")

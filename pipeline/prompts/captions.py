"""The prompt set of pictures: their captions, prompts near them, and the captions' neighbours to retain."""

from collections.abc import Sequence
from itertools import cycle

from ..worlds import find_world
from .anchors import AUTO
from .banks import Kind
from .compose import GUARD_EVERY, composer_of, guard_prompts, unguarded_warnings
from .composer import Caption, Scope
from .concepts import other_names, plural_warnings, read_concepts
from .pair import PromptPair
from .prompt_set import PromptSet
from .replacing import anchored, chosen, rule_of
from .templates import Structure


def caption_set(
    captions: Sequence[Caption],
    concept: str,
    kind: Kind = "object",
    n: int = 800,
    n_test: int = 100,
    seed: int = 0,
    world: str = "open",
    structure: Structure = "diverse",
    synonyms: Sequence[str] | None = None,
    keep_forgotten: Sequence[str] = (),
    replace_with: str | None = None,
) -> PromptSet:
    """Compose a prompt set for pictures: train row i belongs to picture i modulo their number.

    Args:
        captions: of the pictures, at least one. In every other round through the pictures the forget prompts are
            these, in the others prompts near them; the retain prompts are their neighbours.
        concept: one concept, or what else the pictures are called.
        kind: see `PromptSet.build`, as for all others.
        n: train rows; at least one for each picture is made.
        n_test: test rows, near the captions.
        seed: decides the neighbours.
        world: whose words the prompts use.
        structure: of the prompts near the captions.
        synonyms: more words for the concept.
        keep_forgotten: what was forgotten before and shall stay so. Every fourth train row retains it; its anchor
            stays the caption's neighbour.
        replace_with: see `PromptSet.build`. "auto" is the caption's neighbour where the concept is but a label.

    Raises:
        UserError: a caption that names nothing to be forgotten, or as `PromptSet.build` does.
    """
    composer, count = composer_of(world), max(n, len(captions))
    names = read_concepts(concept)
    more, _, before = other_names(names, synonyms, None, keep_forgotten)
    kept = [(name, composer.kind_of(name, "object" if kind == "nudity" else kind)) for name in before]
    part = composer.caption_rows(
        captions, names[0], kind, count, n_test, Scope(structure, seed), synonyms=more or None, avoid=kept
    )
    closed = bool(find_world(world).words)
    known = [(name, kind) for name in names if not closed or find_world(world).find(name)]
    usual = replace_with == AUTO
    if not known and usual:
        replace_with = None
    replace_with = chosen(replace_with, [(names[0], kind)], composer, kept, None)
    replace = rule_of(replace_with, [(names[0], kind)], composer, more, kept, None)
    train, test = (
        list(anchored([PromptPair(forget=f, retain=r) for f, r in rows], replace)) for rows in (part.train, part.test)
    )
    made = PromptSet(
        concept=names,
        kind=kind,
        world=world,
        synonyms=part.names,
        replace_with=replace_with,
        usual_anchor=usual and replace_with is not None,
        source="file",
        seed=seed,
        train=tuple(train),
        test=tuple(test),
        warnings=(*plural_warnings([*names, *more, *before]), *part.warnings),
    )
    if kept:
        guards, unguarded = guard_prompts(kept, -(-count // GUARD_EVERY), seed, composer, known, made.names_concept)
        for row, guard in zip(range(GUARD_EVERY - 1, count, GUARD_EVERY), cycle(guards), strict=False):
            train[row] = train[row].model_copy(update={"retain": guard, "anchor": train[row].instead})
        made = made.model_copy(
            update={
                "train": tuple(train),
                "keep_forgotten": tuple(name for name in before if name not in unguarded),
                "warnings": (*made.warnings, *unguarded_warnings(unguarded, made.concept)),
            }
        )
    made.check()
    return made

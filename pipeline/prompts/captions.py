"""The prompt set of pictures: their captions, prompts near them, and the captions' neighbours to retain."""

from collections.abc import Sequence
from dataclasses import replace

from ..worlds import find_world
from .anchors import AUTO
from .banks import Kind, Named
from .compose import GUARD_EVERY, composer_of, guard, guard_prompts, unguarded_warnings
from .composer import Caption, Scope
from .concepts import join_concepts, other_names, plural_warnings, read_concepts
from .prompt_set import PromptSet
from .replacing import chosen, paired, rule_of
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
        replace_with: see `PromptSet.build`. Where the concept is but a label it takes the place of the caption's
            subject, and "auto" is a subject that no caption shows.

    Raises:
        UserError: a caption that names nothing to be forgotten, or as `PromptSet.build` does.
    """
    composer, count = composer_of(world), max(n, len(captions))
    names = read_concepts(concept)
    more, _, before = other_names(names, synonyms, None, keep_forgotten)
    target, kept = Named(names[0], kind, more), composer.guarded(before, kind)
    part = composer.caption_rows(captions, target, Scope(count, n_test, structure, seed), kept)
    known = [replace(target, name=name) for name in filter(find_world(world).can_say, names)]
    shown = [] if known else composer.subjects(forget for forget, _ in (*part.train, *part.test))
    instead = chosen(replace_with, [target], composer, [*kept, *shown])
    rule = rule_of(instead, [target], composer, kept)
    guards, unguarded = guard_prompts(
        kept,
        -(-count // GUARD_EVERY),
        seed,
        composer,
        known,
        lambda text: composer.names(text, composer.targets(names, kind), part.names),
    )
    made = PromptSet(
        concept=names,
        kind=kind,
        world=world,
        synonyms=part.names,
        keep_forgotten=tuple(name for name in before if name not in unguarded),
        replace_with=instead,
        usual_anchor=replace_with == AUTO and instead is not None,
        source="file",
        seed=seed,
        train=tuple(guard(paired(part.train, rule), guards)),
        test=paired(part.test, rule),
        warnings=(
            *plural_warnings([*names, *more, *before]),
            *part.warnings,
            *unguarded_warnings(unguarded, join_concepts(names)),
        ),
    )
    made.check()
    return made

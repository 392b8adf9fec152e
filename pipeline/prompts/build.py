"""Prompt sets from words: what is to be forgotten, or the names of classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from ..support.errors import UserError
from ..worlds.classes import Classes
from .anchors import AUTO
from .banks import Kind
from .compose import (
    GUARD_EVERY,
    composed_worlds,
    composer_of,
    few_rows_warnings,
    guard,
    guard_prompts,
    interleave,
    shared,
    unguarded_warnings,
)
from .composer import Scope
from .concepts import join_concepts, other_names, plural_warnings, read_concepts
from .llm import LLMSource
from .pair import PromptPair
from .replacing import chosen, paired, rule_of
from .templates import Structure

if TYPE_CHECKING:
    from .prompt_set import PromptSet


def build_set(
    cls: "type[PromptSet]",
    concept: str | Sequence[str],
    kind: Kind = "object",
    n: int = 800,
    n_test: int = 100,
    seed: int = 0,
    world: str = "open",
    structure: Structure = "diverse",
    source: Literal["template", "llm"] = "template",
    synonyms: Sequence[str] | None = None,
    llm: LLMSource | None = None,
    allow_fallback: bool = True,
    attribute_of: str | None = None,
    keep_forgotten: Sequence[str] = (),
    replace_with: str | None = None,
) -> "PromptSet":
    """Compose a prompt set; the same arguments give the same prompts.

    Args:
        cls: `PromptSet`, whose class method this is.
        concept: for example "nudity", "Van Gogh", "cat"; several as a sequence, or joined by a plus,
            "cat + pop art". Then each has its share of the rows, and no retain prompt names any of them.
        kind: decides the sentences; with several concepts, of those that the tables don't know.
        n: train rows.
        n_test: test rows; they depend on neither `n` nor `structure`.
        seed: decides which combinations are drawn.
        world: of `composed_worlds`; "tiny-canvas" keeps to what the bundled model can draw.
        structure: "uniform" repeats one pair `n` times, as SalUn does.
        source: "llm" asks `llm` for the sub-concepts.
        synonyms: more words for the concept, beside those that the tables know.
        llm: where to ask.
        allow_fallback: use templates, with a warning, where the LLM fails; otherwise that is an error.
        attribute_of: the object whose attribute the concept is; the retain prompts show it without.
        keep_forgotten: what was forgotten before and shall stay so. Every fourth train row's retain
            prompt asks for it; no other prompt does.
        replace_with: what is drawn instead of the concept (see `anchors`), for several concepts with a plus
            between; "auto", also beside others: one thing that the world chooses; None: the paired retain prompts.

    Raises:
        UserError: an argument is wrong, or there are too few combinations.
    """
    for name, value, choices in (
        ("kind", kind, get_args(Kind)),
        ("world", world, tuple(composed_worlds())),
        ("structure", structure, get_args(Structure)),
        ("source", source, ("template", "llm")),
    ):
        if value not in choices:
            raise UserError(f"{name} must be one of {list(choices)}, got {value!r}.")
    if not isinstance(n, int) or not isinstance(n_test, int) or n < 1 or n_test < 0:
        raise UserError(f"expected whole numbers, n of at least 1 and n_test of at least 0, got {n!r} and {n_test!r}.")
    if (source == "llm") != (llm is not None):
        raise UserError(
            f"source 'llm' and an LLM source must be given together, got source {source!r} and LLM source {llm!r}."
        )
    composer = composer_of(world)
    if source == "llm" and not composer.takes_llm:
        raise UserError(f"{world} can draw its own words only, got source 'llm'. Use source 'template'.")

    names = read_concepts(concept)
    more, attribute_of, keep_forgotten = other_names(names, synonyms, attribute_of, keep_forgotten)
    if attribute_of is not None and kind != "object":
        raise UserError(f"expected kind 'object' with an attribute of {attribute_of!r}, got kind {kind!r}.")
    if len(names) > 1 and (more or attribute_of is not None):
        raise UserError(f"synonyms and attributes belong to one concept, got {list(names)}. Name one of them.")
    if n < len(names):
        raise UserError(f"expected a pair for each of {len(names)} concepts, got n {n}.")

    targets, kept = composer.targets(names, kind, more, attribute_of), composer.guarded(keep_forgotten, kind)
    instead = chosen(replace_with, targets, composer, kept)
    rule = rule_of(instead, targets, composer, kept)
    scopes = shared(Scope(n, n_test, structure, seed, llm, allow_fallback), len(targets))
    parts = [
        composer.compose(target, scope, [*(other for other in targets if other != target), *kept])
        for target, scope in zip(targets, scopes, strict=True)
    ]
    words = tuple(word for part in parts for word in part.names)
    guards, unguarded = guard_prompts(
        kept,
        -(-n // GUARD_EVERY),
        seed,
        composer,
        targets,
        lambda text: composer.names(text, targets, words),
    )
    guarded = tuple(name for name in keep_forgotten if name not in unguarded)
    made = cls(
        concept=tuple(part.name for part in parts),
        kind=kind,
        world=world,
        synonyms=words,
        attribute_of=attribute_of,
        keep_forgotten=guarded,
        replace_with=instead,
        usual_anchor=replace_with == AUTO and instead is not None,
        source="llm" if any(part.from_llm for part in parts) else "template",
        seed=seed,
        train=tuple(guard(paired(interleave([part.train for part in parts]), rule), guards)),
        test=paired(interleave([part.test for part in parts]), rule),
        warnings=(
            *plural_warnings([*names, *more, *keep_forgotten]),
            *(warning for part in parts for warning in part.warnings),
            *unguarded_warnings(unguarded, join_concepts(names)),
            *few_rows_warnings(guarded, n),
        ),
    )
    made.check()
    return made


def class_set(
    cls: "type[PromptSet]",
    concept: str,
    names: Sequence[str],
    n: int,
    n_test: int,
    seed: int = 0,
    replace_with: str | None = None,
) -> "PromptSet":
    """Pair the class to forget with each of the others in turn, for a class-conditional model.

    Args:
        cls: `PromptSet`, whose class method this is.
        concept: name of the class.
        names: all classes of the model.
        n: train rows.
        n_test: test rows.
        seed: kept with the set.
        replace_with: the class that is drawn instead; "auto": the first other; None: the paired ones.

    Raises:
        UserError: the concept is none of the classes, or what is drawn instead is none of the others.
    """
    if concept not in names:
        raise UserError(f"expected the name of a class, one of {list(names)}; got {concept!r}.")
    others = [name for name in names if name != concept]
    instead = others[0] if replace_with == AUTO else replace_with
    if instead is not None and instead not in others:
        raise UserError(f"expected another class to draw instead (replace_with), one of {others}; got {instead!r}.")

    def rows(count: int) -> tuple[PromptPair, ...]:
        retained = (others[row % len(others)] for row in range(count))
        return tuple(PromptPair(forget=concept, retain=name, anchor=instead) for name in retained)

    made = cls(
        concept=(concept,),
        kind="class",
        world=Classes.name,
        synonyms=(concept,),
        replace_with=instead,
        usual_anchor=replace_with == AUTO,
        seed=seed,
        train=rows(n),
        test=rows(n_test),
    )
    made.check()
    return made

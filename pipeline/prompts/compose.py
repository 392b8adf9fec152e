"""The composers of all worlds, and what it takes to have several concepts in one set."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from ..support.text import counted
from ..worlds import WORLDS, find_world
from ..worlds.open import Open
from ..worlds.tiny_canvas import TinyCanvas
from .banks import Named
from .composer import Composer, Scope
from .concepts import join_concepts
from .open import OpenComposer
from .pair import PromptPair
from .tiny import TinyComposer

Item = TypeVar("Item")

COMPOSERS: dict[str, Composer] = {Open.name: OpenComposer(), TinyCanvas.name: TinyComposer()}
"""World -> its composer; a world that is not among them uses the open one's."""

GUARD_EVERY = 4
"""One pair in so many guards what was forgotten before: its retain prompt asks for it."""


def composed_worlds() -> list[str]:
    """List the worlds whose prompts can be made; names of classes come from the model instead."""
    return [name for name, world in WORLDS.items() if not world.prompts_are_classes]


def composer_of(world: str) -> Composer:
    """Give the composer of one of `composed_worlds`."""
    return COMPOSERS.get(world, COMPOSERS[Open.name])


def composer_for(world: str, concepts: Sequence[str]) -> Composer:
    """Give the composer of a world where it has words for all of some concepts, else the open world's."""
    return composer_of(world if all(map(find_world(world).can_say, concepts)) else Open.name)


def shares(total: int, parts: int) -> list[int]:
    """Split a number as evenly as it goes, the first parts larger.

    >>> shares(5, 2)
    [3, 2]
    """
    return [total // parts + (index < total % parts) for index in range(parts)]


def shared(scope: Scope, parts: int) -> list[Scope]:
    """Split the rows of a scope among so many concepts."""
    counts = zip(shares(scope.n, parts), shares(scope.n_test, parts), strict=True)
    return [replace(scope, n=n, n_test=n_test) for n, n_test in counts]


def interleave(parts: Sequence[Sequence[Item]]) -> list[Item]:
    """Take items in turn.

    >>> interleave([[1, 2, 3], [10, 20]])
    [1, 10, 2, 20, 3]
    """
    missing = object()
    return [item for group in itertools.zip_longest(*parts, fillvalue=missing) for item in group if item is not missing]  # type: ignore[misc]


def guard_prompts(
    kept: Sequence[Named],
    count: int,
    seed: int,
    composer: Composer,
    avoid: Sequence[Named],
    named: Callable[[str], bool],
) -> tuple[list[str], list[str]]:
    """Make prompts that ask for what was forgotten before.

    Args:
        kept: these concepts.
        count: of prompts, shared among the concepts.
        seed: decides which.
        composer: of the world whose words they use.
        avoid: what no prompt may name.
        named: tells whether a prompt names one of these all the same, since "cat girl" can't be said without "cat".

    Returns:
        The prompts, and the concepts that no prompt can ask for.
    """
    made = {
        one.name: [forget for forget, _ in composer.compose(one, scope, avoid).train if not named(forget)]
        for one, scope in zip(kept, shared(Scope(max(count, len(kept)), 0, "diverse", seed), len(kept)), strict=True)
    }
    return interleave(list(made.values())), [name for name, prompts in made.items() if not prompts]


def unguarded_warnings(names: Sequence[str], concept: str) -> tuple[str, ...]:
    """Say which concepts are not guarded."""
    return tuple(
        f"{name!r} is not kept forgotten, since prompts for it name {concept!r}, which is removed now."
        for name in names
    )


def guard(train: Sequence[PromptPair], guards: Sequence[str]) -> list[PromptPair]:
    """Let every GUARD_EVERY-th retain prompt ask for what was forgotten before, so that it stays so.

    The model draws its own retain images, so these show what it draws now, not the concept. What is drawn instead of
    the concept stays.
    """
    if not guards:
        return list(train)
    prompts = itertools.cycle(guards)
    return [
        _guarding(pair, next(prompts)) if index % GUARD_EVERY == GUARD_EVERY - 1 else pair
        for index, pair in enumerate(train)
    ]


def _guarding(pair: PromptPair, prompt: str) -> PromptPair:
    return PromptPair(forget=pair.forget, retain=prompt, anchor=pair.instead)


def few_rows_warnings(names: Sequence[str], n: int) -> tuple[str, ...]:
    """Say that there are too few train rows to guard each of some concepts."""
    if n // GUARD_EVERY >= len(names):
        return ()
    return (
        f"only {n // GUARD_EVERY} of {counted(len(names), 'concept')} to keep forgotten ({join_concepts(names)}) can "
        f"be guarded with n {n}. Raise n to {GUARD_EVERY * len(names)} or more.",
    )


def guard_beside(train: Sequence[PromptPair], guards: Sequence[str]) -> list[PromptPair]:
    """Put a guarding row behind every GUARD_EVERY - 1 rows of the user's own, of which none is lost.

    A guarding row has the forget prompt of the row before it, and its anchor.
    """
    if not guards:
        return list(train)
    prompts = itertools.cycle(guards)
    step = GUARD_EVERY - 1
    groups = [train[start : start + step] for start in range(0, len(train), step)]
    return [pair for group in groups for pair in (*group, _guarding(group[-1], next(prompts)))]

"""Worlds: whose words prompts use, and what can be judged there. A new one is a file and a line in `WORLDS`."""

from ..support.errors import UserError
from .base import World
from .classes import Classes
from .open import Open
from .tiny_canvas import TinyCanvas

WORLDS: dict[str, World] = {world.name: world for world in (Open(), TinyCanvas(), Classes())}
"""Name -> world."""


def find_world(name: str) -> World:
    """Look up a world.

    Raises:
        UserError: there is none of that name.
    """
    if name not in WORLDS:
        raise UserError(f"world must be one of {list(WORLDS)}, got {name!r}.")
    return WORLDS[name]


def world_of(kind: str, bundled: str | None) -> World:
    """Give the world that a kind of concept and a model belong to; the open one if no other claims them.

    Args:
        kind: of the concept, as a recipe has it.
        bundled: name of the bundled model that a model was made from; None for every other model.

    >>> world_of("class", "digits").name, world_of("style", "tiny-canvas-dit").name, world_of("style", None).name
    ('classes', 'tiny-canvas', 'open')
    """
    by_kind = next((world for world in WORLDS.values() if kind in world.kinds), None)
    by_model = next((world for world in WORLDS.values() if bundled in world.models), None)
    return by_kind or by_model or WORLDS[Open.name]


__all__ = ["WORLDS", "World", "find_world", "world_of"]

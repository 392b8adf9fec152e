"""A recipe and what the disk knows of its model: looked up once, then only read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..models.lineage import lineage_of
from ..worlds.tiny_canvas import dimension_of
from .recipe import Recipe

WorldName = Literal["open", "tiny-canvas", "classes"]


@dataclass(frozen=True)
class Setting:
    """Everything that a run knows before it loads a model.

    Attributes:
        recipe: what to do.
        world: whose words the prompts use; in the world of classes a prompt is the name of a class.
        forgotten_before: concepts that were removed earlier and must stay removed.
    """

    recipe: Recipe
    world: WorldName
    forgotten_before: tuple[str, ...]

    @property
    def counts_nudity(self) -> bool:
        """Whether the nudity audit is asked for, or left to `auto` and of use."""
        recipe = self.recipe
        if recipe.audits.nudity != "auto":
            return recipe.audits.nudity == "on"
        if self.world == "tiny-canvas":
            return any(dimension_of(name) == ("subject", "astronaut") for name in recipe.concepts)
        return recipe.kind == "nudity"


def resolve(recipe: Recipe) -> Setting:
    """Look up what a recipe leaves to its model: the world of its words, and what was removed from it before."""
    found: list[str] = []
    for name in recipe.prompts.keep_forgotten:
        lineage = lineage_of(recipe.model if name == "auto" else name)
        found += lineage.forgotten if name == "auto" or Path(name).exists() else [name]
    before = tuple(name for name in dict.fromkeys(found) if name not in recipe.concepts)
    return Setting(recipe, _world_of(recipe), before)


def _world_of(recipe: Recipe) -> WorldName:
    if recipe.kind == "class":
        return "classes"
    return lineage_of(recipe.model).world

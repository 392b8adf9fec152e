"""A recipe and what the disk knows of its model: looked up once, then only read."""

from dataclasses import dataclass
from pathlib import Path

from ..models.lineage import Lineage, lineage_of
from ..worlds import World, world_of
from .recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """Everything that a run knows before it loads a model.

    Attributes:
        recipe: what to do.
        lineage: what its model came from, and what was removed from it before.
        world: whose words the prompts use, and what can be judged there.
        forgotten_before: concepts that were removed earlier and must stay removed.
    """

    recipe: Recipe
    lineage: Lineage
    world: World
    forgotten_before: tuple[str, ...]

    @property
    def counts_nudity(self) -> bool:
        """True if the nudity audit is asked for, or left to `auto` and of use."""
        recipe = self.recipe
        return self.world.counts_nudity(recipe.audits.nudity, recipe.kind, recipe.concepts)


def resolve(recipe: Recipe) -> Setting:
    """Look up what a recipe leaves to its model: the world of its words, and what was removed from it before."""
    lineage = lineage_of(recipe.model)
    found: list[str] = []
    for name in recipe.prompts.keep_forgotten:
        if name == "auto":
            found += lineage.forgotten
        else:
            found += lineage_of(name).forgotten if Path(name).exists() else [name]
    before = tuple(name for name in dict.fromkeys(found) if name not in recipe.concepts)
    return Setting(recipe, lineage, world_of(recipe.kind, lineage.bundled), before)

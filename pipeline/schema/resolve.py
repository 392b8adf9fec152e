"""A recipe and what the disk knows of its model: looked up once, then only read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..models.lineage import Lineage, lineage_of
from ..prompts.concepts import different_concepts, same_concept
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
    before = forgotten_before(recipe.prompts.keep_forgotten, recipe.concepts, lineage.forgotten)
    return Setting(recipe, lineage, world_of(recipe.kind, lineage.bundled), before)


def forgotten_before(named: Sequence[str], concepts: Sequence[str], by_model: Sequence[str] = ()) -> tuple[str, ...]:
    """The concepts that must stay removed, each once, whatever the spelling.

    Args:
        named: `keep_forgotten` of a recipe: concepts, run folders, weights files, or "auto".
        concepts: concepts to remove now, which are left out.
        by_model: concepts that were removed from the model itself; "auto" stands for these.
    """
    found: list[str] = []
    for name in named:
        if name == "auto":
            found += by_model
        else:
            found += lineage_of(name).forgotten if Path(name).exists() else [name]
    return tuple(
        name for name in different_concepts(found) if not any(same_concept(name, concept) for concept in concepts)
    )

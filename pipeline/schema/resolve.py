"""A recipe and what the disk knows of its model: looked up once, then only read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models.lineage import BUNDLED, Lineage, lineage_of
from ..prompts.concepts import different_concepts, same_concept
from ..support.errors import UserError
from ..support.places import absolute, absolute_if_there, looks_like_path, user_path
from ..worlds import World, world_of
from .fields import Path, nest, value_at
from .recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """Everything that a run knows before it loads a model.

    Attributes:
        recipe: what to do; its paths are absolute, so that a run can be resumed from any folder.
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
    """Look up what a recipe leaves to the disk: its places, the world of its words, what was removed before.

    Raises:
        UserError: `keep_forgotten` names a place where nothing is.
    """
    recipe = with_absolute_paths(recipe)
    lineage = lineage_of(recipe.model)
    before = forgotten_before(recipe.prompts.keep_forgotten, recipe.concepts, lineage.forgotten)
    return Setting(recipe, lineage, world_of(recipe.kind, lineage.bundled), before)


def forgotten_before(named: Sequence[str], concepts: Sequence[str], by_model: Sequence[str] = ()) -> tuple[str, ...]:
    """The concepts that must stay removed, each once, whatever the spelling.

    A text that looks like a path names what was removed there; any other is a concept, whatever the working folder
    holds.

    Args:
        named: `keep_forgotten` of a recipe: concepts, run folders, weights files, or "auto".
        concepts: concepts to remove now, which are left out.
        by_model: concepts that were removed from the model itself; "auto" stands for these.

    Raises:
        UserError: a path where nothing is, or nothing that says what was removed.
    """
    found: list[str] = []
    for name in named:
        if name == "auto":
            found += by_model
        elif not looks_like_path(name):
            found.append(name)
        elif user_path(name).exists():
            removed = lineage_of(name).forgotten
            if not removed:
                raise UserError(f"nothing in {name!r} (keep_forgotten) says what was removed there. Name the concepts.")
            found += removed
        else:
            raise UserError(
                f"expected concepts, run folders or weights files for keep_forgotten, got {name!r}, which looks like a "
                "path and is not there. Correct the path."
            )
    return tuple(
        name for name in different_concepts(found) if not any(same_concept(name, concept) for concept in concepts)
    )


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The same recipe with every relative path, and every `~`, spelled out."""
    changed = []
    for path, spelled in _PLACES.items():
        value = value_at(recipe, path)
        if value is not None:
            new = tuple(map(spelled, value)) if isinstance(value, tuple) else spelled(value)
            changed += [(path, new)] if new != value else []
    copy: Recipe = _updated(recipe, nest(changed))
    return copy


def _updated(model: Any, changes: Mapping[str, Any]) -> Any:
    inner = {
        key: _updated(getattr(model, key), value) if isinstance(value, Mapping) else value
        for key, value in changes.items()
    }
    return model.model_copy(update=inner) if inner else model


def _judge(text: str) -> str:
    """A CLIP model, or InceptionV3's weights: `local-dir:PATH` and `inception:FILE` are paths behind their prefix."""
    prefix, colon, rest = text.partition(":")
    if colon and prefix in ("local-dir", "inception"):
        return f"{prefix}:{absolute(rest)}"
    return absolute_if_there(text, ("tiny-canvas",)) if user_path(text).is_dir() else text


_PLACES: Mapping[Path, Callable[[str], str]] = {
    ("model",): lambda text: absolute_if_there(text, BUNDLED),
    ("model_config_folder",): absolute,
    ("method", "mask"): absolute,
    ("prompts", "file"): absolute,
    ("prompts", "keep_forgotten"): lambda text: absolute(text) if looks_like_path(text) else text,
    ("prompts", "llm_model"): lambda text: absolute(text) if text.startswith((".", "~")) else text,
    ("data", "dataset"): lambda text: absolute(text, ("digits", "cifar10")),
    ("data", "forget_images"): absolute,
    ("audits", "alignment_model"): _judge,
    ("audits", "class_judge"): lambda text: absolute(text, ("digits",)),
    ("audits", "distance_features"): _judge,
}
"""Fields that may hold a path, and how each is told from the names that it may hold too."""

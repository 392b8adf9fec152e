"""How hard to unlearn, in one word: presets over the defaults of a model and method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..methods import find
from ..support.errors import UserError
from .defaults import defaults_for, merge
from .recipe import Recipe, TrainingSection


@dataclass(frozen=True)
class Preset:
    """A named strength.

    Attributes:
        name: what it is called.
        description: what it does, in plain words.
        strength: factor on the number of steps; None takes the recipe's own numbers, those of the paper.
    """

    name: str
    description: str
    strength: float | None


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("gentle", "half the steps: forgets less, changes less", 0.5),
        Preset("balanced", "what was found to work for this model and method", 1.0),
        Preset("thorough", "twice the steps: forgets more, may change more", 2.0),
        Preset("paper", "the numbers of Ko et al. 2024 for Stable Diffusion; too gentle for tiny-canvas", None),
    )
}
"""Presets by name; `balanced` is the default of every front end."""


def with_previews(recipe: Recipe, times: int) -> Recipe:
    """The recipe with preview pictures so many times while it trains; an edit in closed form has no time for them."""
    if recipe.method.closed_form:
        return recipe
    every = max(1, recipe.training.steps // times)
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"preview_every": every})})


def preset_for(name: str, model: str, method: str | Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe, nested, that a preset chooses for a model and method.

    Args:
        name: of the preset.
        model: as a recipe names it.
        method: see `defaults_for`.

    Raises:
        UserError: an unknown preset or method.
    """
    if name not in PRESETS:
        raise UserError(f"preset must be one of {list(PRESETS)}, got {name!r}.")
    preset, base = PRESETS[name], defaults_for(model, method)
    if preset.strength is None:
        chosen = base["method"]["name"]
        config = find(chosen).config.model_validate({"name": chosen})
        sections = {"training": TrainingSection().model_dump(), "prompts": {"replace_with": None}}
        return merge(base, {"method": config.model_dump(mode="json"), **sections})
    training: Mapping[str, Any] = base.get("training") or {}
    steps = training.get("steps", TrainingSection().steps)
    return merge(base, {"training": {"steps": max(1, round(steps * preset.strength))}})

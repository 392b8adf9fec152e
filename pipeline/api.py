"""One call for somebody who has a diffusers pipeline: model + concept -> model."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .models import borrowed
from .models.registry import name_of
from .run.pictures import Images, place_of
from .run.stages import stages_of
from .run.unlearning import Unlearned, run_recipe
from .schema.defaults import build_recipe, merge
from .schema.fields import fields_of, nest
from .schema.recipe import Recipe
from .support.errors import UserError
from .support.progress import Progress


def unlearn(
    pipe: Any,
    concept: str,
    *,
    forget_images: str | Path | Images | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> Unlearned:
    """Remove a concept from a diffusers pipeline; its denoiser is trained in place.

    Args:
        pipe: for example a `StableDiffusionPipeline`.
        concept: what to remove, e.g. "cat".
        forget_images: pictures of it, where no word names it: a folder or one file, or pictures as
            `audits.to_uint8` takes them, which are written to a folder beside the run's.
        out: the run folder; None makes a new one under `runs/`.
        progress: told how far the work has come; may cancel it.
        **fields: recipe fields, either nested (`training={"steps": 50}`) or by their own name
            (`steps=50`, `kind="style"`, `method="rg"`).

    Returns:
        The pipeline (the same object), every figure, and the run folder.

    Raises:
        UserError: an unknown field, a value out of range, a pipeline class without an adapter, or pictures that
            can't be read.

    Example:
        >>> result = unlearn(pipe, "cat", steps=100)  # doctest: +SKIP
        >>> result.pipeline("a photo of a kitten")  # doctest: +SKIP
    """
    if forget_images is not None:
        fields |= {"forget_images": str(place_of(forget_images, Path(out).parent if out else Path("runs")))}
    recipe = recipe_for(concept, name_of(pipe), fields, type(pipe).__name__)
    with borrowed(pipe, stages=partial(stages_of, recipe)) as denoiser:
        unlearned = run_recipe(recipe, Path(out) if out else None, denoiser=denoiser, progress=progress)
    return replace(unlearned, pipeline=pipe)  # an image-to-image pipeline, too, holds the unlearned networks


def recipe_for(concept: str, model: str, fields: dict[str, Any], pipeline_class: str | None = None) -> Recipe:
    """The recipe of a model and of fields as `unlearn` takes them.

    Raises:
        UserError: an unknown field or a value out of range.
    """
    return build_recipe(merge({"concept": concept, "model": model}, _nested(fields)), pipeline_class)


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    """Put `steps=50` where it belongs: {"training": {"steps": 50}}."""
    places: dict[str, tuple[str, ...]] = {}
    for field in fields_of():
        places.setdefault(field.name, field.path)
        places.setdefault(field.path[-1], field.path)
    sections = {field.path[0] for field in fields_of() if len(field.path) > 1}
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "method" and isinstance(value, str):
            placed: dict[str, Any] = {"method": {"name": value}}
        elif name in sections:
            placed = {name: value}
        elif name in places:
            placed = nest([(places[name], value)])
        else:
            raise UserError(f"unknown option {name!r}; expected one of {sorted({*places, *sections})}.")
        nested = merge(nested, placed)
    return nested

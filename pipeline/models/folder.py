"""A diffusers folder on disk, looked at before anything is loaded.

The rule: every file that will be read is looked at first, and the first that is missing, cut short or of another kind
is named; a folder of something else is told from what it holds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..support.errors import UserError
from .components import INDEX, Component, components_of, entries, spare
from .family import Family
from .files import read_json
from .lineage import is_run
from .registry import family_of_pipeline, supported_pipelines


def check_folder(folder: Path) -> tuple[list[Component], list[str]]:
    """Look at every file of a model that will be read.

    Returns:
        Its components, and the names of those that it lacks and does without.

    Raises:
        UserError: the first file that is missing or damaged, or what else keeps the model from being unlearned.
    """
    if not folder.is_dir():
        raise UserError(f"expected a diffusers folder or a .safetensors file, and {folder} is neither.")
    if not (folder / INDEX).exists():
        raise UserError(f"expected a diffusers folder with a {INDEX}, found none in {folder}. {_elsewhere(folder)}")
    index = read_json(folder / INDEX)
    family = family_of_pipeline(str(index.get("_class_name")))
    if family is None:
        raise UserError(
            f"expected a diffusers pipeline of one of these classes: {supported_pipelines()}; got "
            f"{index.get('_class_name')} in {folder / INDEX}."
        )
    _check_whole(index, family, folder)
    lacking = spare(folder, family)
    return components_of(folder, lacking), lacking


def _elsewhere(folder: Path) -> str:
    """Where the model may be that was meant; of a run only what that run itself ended with."""
    if is_run(folder):
        if (folder / "results.json").is_file():
            return f"This run keeps no whole model. Write it with: turpentine export {folder} --formats diffusers"
        return f"This run is not finished. Finish it with: turpentine unlearn --resume {folder}"
    below = sorted(each.parent for depth in ("*", "*/*") for each in folder.glob(f"{depth}/{INDEX}"))
    above = [each for each in (folder.resolve().parent, folder.resolve().parent.parent) if (each / INDEX).is_file()]
    if found := below or above:
        return f"There is one in {found[0]}: give that folder."
    if (folder / "config.json").is_file():
        return "It holds one network alone: give the folder of the whole model."
    return (
        "It is empty." if not any(folder.iterdir()) else "Give the folder of a whole model, as save_pretrained writes."
    )


def _check_whole(index: Mapping[str, Any], family: type[Family], folder: Path) -> None:
    if index.get("requires_aesthetics_score"):
        raise UserError(
            f"{folder} is an SDXL refiner, which goes on from pictures that another model has begun. Unlearn the base "
            "model."
        )
    held = entries(index)
    lacking = [name for name in family.needs(held) if name not in held]
    if lacking:
        raise UserError(
            f"expected a whole {index['_class_name']}, and {folder / INDEX} names no {' and no '.join(lacking)}. "
            "Give the folder of a whole model."
        )

"""Loading a model by the name that a person gives it."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..support.errors import UserError
from ..support.places import user_path
from .lineage import BUNDLED, model_index
from .protocol import Denoiser
from .registry import family_of_pipeline, wrap_pipeline
from .single_file import load_single_file

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def choose_device(device: str) -> torch.device:
    """Turn "auto" into the best device there is.

    Raises:
        UserError: a device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # a tensor of the device meta has no value
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(f"device {device!r} can't be used here: {str(error).splitlines()[0]}") from None
    return chosen


def check_model(model: str, model_config_folder: str | None = None) -> Path:
    """Where a model is, as far as that is known without loading it.

    Args:
        model: see `load_denoiser`.
        model_config_folder: the same.

    Raises:
        UserError: no such model, a pickle, or a config folder beside something else than a single file.
    """
    path = BUNDLED.get(model) or user_path(model)
    if path.suffix.lower() in _PICKLES:
        raise UserError(
            f"{model} is a pickle, which can run any code when it is opened. Convert it to safetensors first, for "
            "example with diffusers' convert_original_stable_diffusion_to_diffusers.py on a machine you can lose."
        )
    if path.is_file():
        return path
    if model_config_folder:
        raise UserError(f"model_config_folder goes with a single .safetensors file, and {model} is none. Leave it out.")
    if path.suffix.lower() == ".safetensors":
        raise UserError(f"expected a single-file checkpoint, found no file {path}.")
    if path.exists() and not (path / "model_index.json").is_file():
        raise UserError(f"expected a diffusers folder with a model_index.json, found none in {path}.")
    return path


def load_denoiser(model: str, device: str = "auto", model_config_folder: str | None = None) -> Denoiser:
    """Load a bundled model, a diffusers folder, a hub id or a single file, in float32.

    Args:
        model: a name in `BUNDLED`, a folder, a hub id, or a `.safetensors` checkpoint.
        device: see `choose_device`.
        model_config_folder: for a single file, see `load_single_file`.

    Raises:
        UserError: no such model, a pickle, or a pipeline class without an adapter.
    """
    chosen, path = choose_device(device), check_model(model, model_config_folder)
    if path.is_file():
        return wrap_pipeline(load_single_file(path, model_config_folder).to(chosen), model)
    source = str(path) if path.exists() else model
    try:
        pipeline = _pipeline_class(path).from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, **_absent_components(path)
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"can't load the model {model!r}: expected one of {sorted(BUNDLED)}, a diffusers folder with safetensors "
            f"weights, a .safetensors checkpoint, or a hub id that is reachable or cached ({reason})."
        ) from None
    return wrap_pipeline(pipeline.to(chosen), model, source)


def _absent_components(folder: Path) -> dict[str, Any]:
    """Components that a folder says it lacks; diffusers wants to be told (a third text encoder)."""
    return {name: None for name, entry in model_index(folder).items() if entry == [None, None]}


def class_names(model: str) -> list[str]:
    """The classes of a class-conditional model, read from its folder.

    Raises:
        UserError: it is none, or not a folder.
    """
    named = model_index(BUNDLED.get(model) or user_path(model)).get("id2label")
    if not named:
        raise UserError(
            f"kind 'class' needs a class-conditional model ('digits', or a folder that "
            f"`python -m turpentine.pipeline.bundled.digits.train` wrote), got {model!r}."
        )
    return [named[str(label)] for label in range(len(named))]


def _pipeline_class(folder: Path) -> Any:
    """The class that reads a folder: diffusers finds its own by itself, not ours."""
    family = family_of_pipeline(model_index(folder).get("_class_name", ""))
    own = family is not None and not family.pipeline_class.__module__.startswith("diffusers.")
    return family.pipeline_class if family is not None and own else DiffusionPipeline

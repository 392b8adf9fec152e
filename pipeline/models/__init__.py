"""Model families: one adapter file each, chosen from the pipeline's class."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..errors import UserError
from .class_conditional import ClassConditional, ClassConditionalPipeline
from .protocol import Conditioning, Denoiser
from .stable_diffusion import StableDiffusion, check_pipeline

ADAPTERS: tuple[Any, ...] = (StableDiffusion, ClassConditional)

ASSETS = Path(__file__).resolve().parents[2] / "assets"
BUNDLED = {"tiny-canvas": ASSETS / "tiny-canvas", "digits": ASSETS / "digits"}
"""Models that come with the package: name -> diffusers folder."""

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def wrap_pipeline(pipeline: Any, name: str | None = None, source: str | None = None) -> Denoiser:
    """Put the user's own diffusers pipeline behind the `Denoiser` protocol.

    Raises:
        UserError: a pipeline class without an adapter.
    """
    for adapter in ADAPTERS:
        if isinstance(pipeline, adapter.pipeline_class):
            check_pipeline(pipeline)
            return adapter(pipeline, name or pipeline.config.get("_name_or_path") or type(pipeline).__name__, source)
    supported = ", ".join(adapter.pipeline_class.__name__ for adapter in ADAPTERS)
    raise UserError(
        f"expected a diffusers pipeline of one of these classes: {supported}; got {type(pipeline).__name__}."
    )


def choose_device(device: str) -> torch.device:
    """Turn "auto" into the best device there is.

    Raises:
        UserError: a device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} can't be used here: {str(error).splitlines()[0]}") from None
    return chosen


def load_denoiser(model: str, device: str = "auto") -> Denoiser:
    """Load a bundled model, a diffusers folder or a hub id, in float32.

    Raises:
        UserError: no such model, a pickle, or a pipeline class without an adapter.
    """
    chosen = choose_device(device)
    path = Path(BUNDLED.get(model, model)).expanduser()
    if path.suffix.lower() in _PICKLES:
        raise UserError(
            f"{model} is a pickle, which can run any code when it is opened. Convert it to safetensors first, for "
            "example with diffusers' convert_original_stable_diffusion_to_diffusers.py on a machine you can lose."
        )
    if path.is_file():
        raise UserError(f"expected a diffusers folder or a hub id, got the single file {model}.")
    if path.exists() and not (path / "model_index.json").is_file():
        raise UserError(f"expected a diffusers folder with a model_index.json, found none in {path}.")
    source = str(path) if path.exists() else model
    try:
        pipeline = _pipeline_class(path).from_pretrained(source, torch_dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"can't load the model {model!r}: expected one of {sorted(BUNDLED)}, a diffusers folder with safetensors "
            f"weights, or a hub id that is reachable or cached ({reason})."
        ) from None
    return wrap_pipeline(pipeline.to(chosen), model, source)


def class_names(model: str) -> list[str]:
    """The classes of a class-conditional model, read from its folder.

    Raises:
        UserError: it is none, or not a folder.
    """
    named = _index(Path(BUNDLED.get(model, model)).expanduser()).get("id2label")
    if not named:
        raise UserError(
            f"kind 'class' needs a class-conditional model ('digits', or a folder that "
            f"`python -m turpentine.pipeline.digits.train` wrote), got {model!r}."
        )
    return [named[str(label)] for label in range(len(named))]


def _pipeline_class(folder: Path) -> Any:
    """The class that reads a folder: diffusers finds its own by itself, not ours."""
    named = _index(folder).get("_class_name")
    return ClassConditionalPipeline if named == ClassConditionalPipeline.__name__ else DiffusionPipeline


def _index(folder: Path) -> dict[str, Any]:
    index = folder / "model_index.json"
    return json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}


__all__ = [
    "ASSETS",
    "BUNDLED",
    "Conditioning",
    "Denoiser",
    "choose_device",
    "class_names",
    "load_denoiser",
    "wrap_pipeline",
]

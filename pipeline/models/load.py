"""Loading a model by the name that a person gives it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from diffusers import DiffusionPipeline
from torch import nn

from ..support.errors import UserError
from ..support.places import user_path
from .components import absent, load_networks
from .device import DeviceLacks
from .entry import networks_of
from .files import FAULTS, read_header, reason_of
from .folder import check_folder
from .lineage import BUNDLED, model_index, pipeline_class_of
from .protocol import Denoiser
from .registry import family_of_pipeline, pipeline_class_called, wrap_pipeline
from .single_file import load_single_file
from .stages import Stages

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def choose_device(device: str) -> torch.device:
    """Turn "auto" into the best device there is.

    Raises:
        UserError: a device that is not there, or that holds no numbers.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # a tensor of the device meta has no value
    except NotImplementedError:  # whose message is torch's table of kernels
        raise UserError(f"device {device!r} can't be used here: this PyTorch is built without it.") from None
    except (RuntimeError, AssertionError, ImportError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"device {device!r} can't be used here: {reason[0]}") from None
    return chosen


def check_model(model: str, model_config_folder: str | None = None) -> Path:
    """Where a model is, as far as that is known without loading it.

    Args:
        model: see `load_denoiser`.
        model_config_folder: the same.

    Raises:
        UserError: no such model, a pickle, a file that is missing or damaged, or a config folder beside something
            else than a single file.
    """
    path = BUNDLED.get(model) or user_path(model)
    if path.suffix.lower() in _PICKLES:
        raise UserError(
            f"{model} is a pickle, which can run any code when it is opened. Convert it to safetensors first, for "
            "example with diffusers' convert_original_stable_diffusion_to_diffusers.py on a machine you can lose."
        )
    if path.is_file():
        read_header(path)
        return path
    if model_config_folder:
        raise UserError(f"model_config_folder goes with a single .safetensors file, and {model} is none. Leave it out.")
    if path.suffix.lower() == ".safetensors":
        raise UserError(f"expected a single-file checkpoint, found no file {path}.")
    if path.exists():
        check_folder(path)
    elif huggingface_hub.constants.HF_HUB_OFFLINE and pipeline_class_of(model) is None:
        _downloaded(model)  # which says that it can't
    return path


def load_denoiser(
    model: str, device: str = "auto", model_config_folder: str | None = None, stages: Stages | None = None
) -> Denoiser:
    """Load a bundled model, a diffusers folder, a hub id or a single file.

    Args:
        model: a name in `BUNDLED`, a folder, a hub id, or a `.safetensors` checkpoint.
        device: see `choose_device`; with "auto" a model goes to the CPU where the device lacks an operation for it.
        model_config_folder: for a single file, see `load_single_file`.
        stages: the number formats and places of its parts, which include the device; None: all in float32.

    Raises:
        UserError: no such model, a pickle, a file that is missing or damaged, or a pipeline class without an adapter.
    """
    stages = stages or Stages(choose_device(device))
    path = check_model(model, model_config_folder)
    source = None
    if path.is_file():
        pipeline, warnings = load_single_file(path, model_config_folder, stages)
    else:
        source = path if path.exists() else _downloaded(model)
        pipeline, warnings = _load_folder(source, model, stages)
    try:
        for part in networks_of(pipeline).values():
            nn.Module.to(part, stages.rest)
    except RuntimeError as error:  # too little memory, for one
        raise UserError(f"can't put the model {model!r} on device {stages.rest}: {reason_of(error)}.") from None
    origin = str(source) if source else None
    try:
        denoiser = wrap_pipeline(pipeline, model, origin, stages)
    except DeviceLacks as lack:
        if device != "auto":
            raise
        instead = replace(stages, device=torch.device("cpu"), offload="none")
        denoiser = wrap_pipeline(pipeline.to("cpu"), model, origin, instead)
        warnings = (*warnings, f"{lack.missing}, so the CPU computes instead.")
    denoiser.warnings = (*warnings, *denoiser.warnings)
    return denoiser


def _load_folder(folder: Path, model: str, stages: Stages) -> tuple[Any, tuple[str, ...]]:
    components, lacking = check_folder(folder)
    try:
        name = model_index(folder)["_class_name"]
        kind, family = pipeline_class_called(name), family_of_pipeline(name)
        networks, warnings = load_networks(components, family.component if family else "", stages)
        pipeline = kind.from_pretrained(folder, **networks, **absent(folder, lacking), use_safetensors=True)
    except UserError:
        raise
    except FAULTS as error:
        raise UserError(f"can't load the model {model!r} from {folder}: {reason_of(error)}.") from None
    if lacking:
        told = f"{folder} has no {' and no '.join(lacking)}, which no run needs; what is written has none either."
        warnings = (told, *warnings)
    return pipeline, warnings


def _downloaded(model: str) -> Path:
    """The folder of a hub id in the hub's cache, downloaded if it is not there."""
    try:
        return Path(DiffusionPipeline.download(model, use_safetensors=True))
    except FAULTS as error:
        raise UserError(
            f"can't load the model {model!r}: expected one of {sorted(BUNDLED)}, a diffusers folder with safetensors "
            f"weights, a .safetensors checkpoint, or a hub id that is reachable or cached ({reason_of(error)})."
        ) from None


def class_names(model: str) -> list[str]:
    """The classes of a class-conditional model, read from its folder.

    Raises:
        UserError: it is none, or not a folder.
    """
    named = model_index(BUNDLED.get(model) or user_path(model)).get("id2label")
    if not isinstance(named, dict) or {*named} != {str(label) for label in range(len(named))} or not named:
        raise UserError(
            f"kind 'class' needs a class-conditional model ('digits', or a folder that "
            f"`python -m turpentine.pipeline.bundled.digits.train` wrote), got {model!r}."
        )
    return [named[str(label)] for label in range(len(named))]

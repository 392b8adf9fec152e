"""Write unlearned weights in the forms and folders that ComfyUI's own loaders read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.support.errors import UserError
from . import host
from .model import Model, Native

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """A way to save.

    Attributes:
        folder: the models folder of ComfyUI that the file goes to.
        format: the weights format, see `pipeline.weights`.
        meaning: a short description for tooltips.
    """

    folder: str
    format: str
    meaning: str


KINDS = {
    "delta": Kind("loras", "delta", "the whole change, for Load LoRA at any strength"),
    "lora": Kind("loras", "lora", "the change at a low rank: smaller, not exact"),
    "diffusion_model": Kind("diffusion_models", "denoiser", "the UNet alone, for Load Diffusion Model"),
    "checkpoint": Kind("checkpoints", "single_file", "everything, for Load Checkpoint"),
    "diffusers": Kind("diffusers", "diffusers", "a diffusers folder, for Model from diffusers"),
}
NOTHING = "nothing"

_BY_COMFYUI = ("diffusion_model", "checkpoint")
"""Kinds that ComfyUI writes itself if the model came from it, in the layout that its loaders know."""


def save_model(model: Model, kind: str, name: str, dtype: str) -> Path:
    """Write a model's unlearned weights into a folder of ComfyUI's loaders.

    Args:
        model: a model with unlearned or applied weights.
        kind: a key of `KINDS`.
        name: the file's name without its ending; empty: after the model, the concept and the run, or after the
            applied file.
        dtype: "fp32", "fp16" or "bf16"; files that ComfyUI writes keep the format of the loaded model.

    Returns:
        The file or folder that was written.

    Raises:
        UserError: nothing was unlearned, the name is no plain file name, or the model can't be saved in this form.
    """
    if model.weights is None:
        raise UserError(
            "expected a model with unlearned weights, got one as it was loaded. Wire Unlearn Concept or Apply "
            "Unlearned Weights before this node."
        )
    if model.native and kind == "diffusers":
        raise UserError(
            "expected another `save_as` for a model from ComfyUI, got diffusers. Only a model from Model from "
            "diffusers can become a diffusers folder. Choose delta, lora, diffusion_model or checkpoint."
        )
    stem = host.safe_name(name) if name.strip() else _stem(model)
    target, folder = KINDS[kind], host.save_folder(KINDS[kind].folder)
    if model.native and kind in _BY_COMFYUI:
        return _save_by_comfyui(model, model.native, folder / f"{stem}.safetensors", whole=kind == "checkpoint")
    from ..pipeline.weights import Job, write_weights

    folder = folder / stem if kind == "diffusers" else folder
    with model.borrowed() as (denoiser, own):
        metadata = header_of(model, own)
        job = Job(denoiser, folder, stem, dtype, metadata, base=own, progress=host.NodeProgress())
        (written,) = write_weights(job, [target.format])
    return folder.parent / written.path


def native_model(model: Model) -> Any:
    """ComfyUI's MODEL with the model's change as a patch; blocked with a message if it has no MODEL."""
    if model.native is None:
        return host.blocked(
            "This model came from Model from diffusers, and ComfyUI's samplers can't run it. Draw with Generate, or "
            "load a checkpoint and wire it through Model from ComfyUI."
        )
    if model.weights is None:
        return model.native.patcher
    return model.native.patched(model.denoiser.module.state_dict(), model.weights)


def _stem(model: Model) -> str:
    from ..pipeline.run.folder import RunFolder
    from ..pipeline.run.weights import weights_name

    if model.run is not None:
        return f"{weights_name(RunFolder.open(model.run).begun_with())}-{model.run.name[-6:]}"
    return model.applied[0].stem if model.applied else "unlearned"


def header_of(model: Model, own: "Mapping[str, Tensor]") -> dict[str, str]:
    """What is known of a model's weights: from Take Back, of the run, from the applied file, or from its own files.

    Args:
        model: on a wire.
        own: the weights that it was loaded with.
    """
    from ..pipeline.models import lineage
    from ..pipeline.run.folder import RunFolder
    from ..pipeline.run.weights import run_header
    from ..pipeline.schema.resolve import resolve
    from ..pipeline.weights import base_hashes, read_header
    from ..pipeline.weights.provenance import applied_header

    if model.header is not None:
        return dict(model.header)
    if model.weights is None:
        return lineage.header_of(model.denoiser.name)
    result = base_hashes(model.weights)
    told: dict[str, str] = {}
    if model.run is not None:
        run = RunFolder.open(model.run)
        results, setting = run.results(), resolve(run.begun_with())
        after = results.audits.after if results else None
        told = run_header(model.denoiser, setting, base_hashes(own), after, result)
    if model.applied is None:
        return told
    file, strength = model.applied
    return applied_header(told or read_header(file), model.denoiser.family, file.name, strength, result)


def _save_by_comfyui(model: Model, native: Native, path: Path, whole: bool) -> Path:
    import comfy.sd
    import torch

    from ..pipeline.support.files import replacing

    metadata = header_of(model, model.denoiser.module.state_dict())
    metadata["modelspec.implementation"] = "sgm"
    parts = {"clip": native.clip, "vae": native.vae} if whole else {}
    with replacing(path) as partial, torch.inference_mode():
        comfy.sd.save_checkpoint(str(partial), native_model(model), metadata=metadata, **parts)
    return path

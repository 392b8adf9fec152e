"""Unlearned weights in the forms and folders that ComfyUI's own loaders take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pipeline.support.errors import UserError
from . import host
from .model import Model


@dataclass(frozen=True)
class Kind:
    """A way to save.

    Attributes:
        folder: of ComfyUI's models.
        format: of `pipeline.weights`.
        suffix: what that format adds to the name.
        meaning: for people.
    """

    folder: str
    format: str
    suffix: str
    meaning: str


KINDS = {
    "delta": Kind("loras", "delta", "-delta.safetensors", "the whole change, for Load LoRA at any strength"),
    "lora": Kind("loras", "lora", "-lora.safetensors", "the change at a low rank: smaller, not exact"),
    "diffusion_model": Kind("diffusion_models", "denoiser", ".safetensors", "the UNet alone, for Load Diffusion Model"),
    "checkpoint": Kind("checkpoints", "single_file", "-checkpoint.safetensors", "everything, for Load Checkpoint"),
    "diffusers": Kind("diffusers", "diffusers", "", "a diffusers folder, for Model from diffusers"),
}
NOTHING = "nothing"

_BY_COMFYUI = ("diffusion_model", "checkpoint")
"""What ComfyUI writes itself when the model is its own: in the layout that its loaders know."""


def save_model(model: Model, kind: str, name: str, dtype: str) -> Path:
    """Write a model's unlearned weights where ComfyUI's loaders list them.

    Args:
        model: with weights that were unlearned or applied.
        kind: of `KINDS`.
        name: of the file, without ending; empty: after the model, the concept and the run.
        dtype: "fp32", "fp16" or "bf16"; what ComfyUI writes itself keeps its own.

    Raises:
        UserError: nothing was unlearned, a name that leads elsewhere, or a form that this model can't have.
    """
    if model.weights is None or model.run is None:
        raise UserError("expected an unlearned model, got one as it was loaded. Wire UnlearnConcept before this node.")
    if model.native and kind == "diffusers":
        raise UserError("a model from ComfyUI can't be saved as a diffusers folder. Choose delta, lora or checkpoint.")
    stem = host.safe_name(name) if name.strip() else _stem(model.run)
    target, folder = KINDS[kind], host.save_folder(KINDS[kind].folder)
    if model.native and kind in _BY_COMFYUI:
        return _save_by_comfyui(model, folder / f"{stem}.safetensors", whole=kind == "checkpoint")
    from ..pipeline.weights import write_weights

    folder = folder / stem if kind == "diffusers" else folder
    with model.borrowed() as (denoiser, own):
        metadata = _metadata(model, denoiser, own)
        (written,) = write_weights(
            denoiser, folder, [target.format], dtype, metadata, stem, base=own, progress=host.NodeProgress()
        )
    return folder.parent / written.path


def native_model(model: Model) -> Any:
    """The model as ComfyUI's MODEL, with its change patched in."""
    if model.native is None:
        return host.blocked(
            "This model came from Model from diffusers, and ComfyUI's samplers can't run it. Draw with Generate, or "
            "load a checkpoint and wire it through Model from ComfyUI."
        )
    if model.weights is None:
        return model.native.patcher
    return model.native.patched(model.denoiser.module.state_dict(), model.weights)


def _stem(run: Path) -> str:
    from ..pipeline.run.folder import RunFolder
    from ..pipeline.run.unlearning import weights_name

    return f"{weights_name(RunFolder.open(run).recipe())}-{run.name[-6:]}"


def _metadata(model: Model, denoiser: Any, own: Any) -> dict[str, str]:
    from ..pipeline.run.folder import RunFolder
    from ..pipeline.weights import base_hashes, header

    run = RunFolder.open(model.run)  # type: ignore[arg-type]
    results = run.results()
    figures = results.audits.after.model_dump(mode="json", exclude_none=True) if results else {}
    return header(denoiser, run.recipe(), base_hashes(own), figures)


def _save_by_comfyui(model: Model, path: Path, whole: bool) -> Path:
    import comfy.sd
    import torch

    from ..pipeline.support.files import replacing

    native, own = model.native, model.denoiser.module.state_dict()
    assert native is not None  # noqa: S101 - the caller asked
    metadata = _metadata(model, model.denoiser, own)
    metadata["modelspec.implementation"] = "sgm"
    parts = {"clip": native.clip, "vae": native.vae} if whole else {}
    with replacing(path) as partial, torch.inference_mode():
        comfy.sd.save_checkpoint(str(partial), native_model(model), metadata=metadata, **parts)
    return path

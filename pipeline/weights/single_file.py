"""`single_file`: the complete checkpoint in the layout that the model was first published in."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..support.errors import UserError
from .job import Job, Written
from .layouts import Layout, denoiser_layout, open_clip_layout, text_encoder_layout, vae_layout
from .provenance import save_tensors

_Place = Callable[[nn.Module], tuple[str, Layout]]


def _at(prefix: str, layout: Callable[[nn.Module], Layout]) -> _Place:
    return lambda module: (prefix, layout(module))


def _stable_diffusion_text(encoder: Any) -> tuple[str, Layout]:
    """Version 1 has OpenAI's CLIP (quick_gelu) under transformers' names, version 2 open_clip's."""
    if encoder.config.hidden_act == "quick_gelu":
        return "cond_stage_model.transformer.", text_encoder_layout(encoder)
    return "cond_stage_model.model.", open_clip_layout(encoder)


_DENOISER = _at("model.diffusion_model.", denoiser_layout)
_VAE = _at("first_stage_model.", vae_layout)

CHECKPOINTS: dict[str, dict[str, _Place]] = {
    "StableDiffusionPipeline": {"vae": _VAE, "unet": _DENOISER, "text_encoder": _stable_diffusion_text},
    "StableDiffusionXLPipeline": {
        "vae": _VAE,
        "unet": _DENOISER,
        "text_encoder": _at("conditioner.embedders.0.transformer.", text_encoder_layout),
        "text_encoder_2": _at("conditioner.embedders.1.model.", open_clip_layout),
    },
    "StableDiffusion3Pipeline": {
        "vae": _VAE,
        "transformer": _DENOISER,
        "text_encoder": _at("text_encoders.clip_l.transformer.", text_encoder_layout),
        "text_encoder_2": _at("text_encoders.clip_g.transformer.", text_encoder_layout),
        "text_encoder_3": _at("text_encoders.t5xxl.transformer.", text_encoder_layout),
    },
    "FluxPipeline": {"transformer": _at("", denoiser_layout)},
}
"""Pipeline class -> component -> its place. Flux was published as its transformer alone."""


def write_single_file(job: Job) -> Written:
    """Write `{name}-checkpoint.safetensors`.

    Raises:
        UserError: see `check_single_file`.
    """
    path = job.folder / f"{job.name}-checkpoint.safetensors"
    tensors = {name: job.cast(value) for name, value in checkpoint_tensors(job.denoiser.pipeline).items()}
    save_tensors(tensors, path, job.header("single_file", **{"modelspec.implementation": "original"}))
    return Written(path, [path])


def check_single_file(pipeline: Any) -> None:
    """Refuse what can't be written.

    Raises:
        UserError: a pipeline, autoencoder or layer that no original checkpoint has a place for.
    """
    for _ in _parts(pipeline):
        pass


def checkpoint_tensors(pipeline: Any) -> dict[str, Tensor]:
    """Every tensor of a diffusers pipeline under its original name.

    Raises:
        UserError: see `check_single_file`.
    """
    tensors: dict[str, Tensor] = {}
    for module, prefix, layout in _parts(pipeline):
        state = module.state_dict()
        tensors |= {prefix + name: entry.to_original(state) for name, entry in layout.items()}
    is_xl = "StableDiffusionXLPipeline" in _classes(pipeline)
    if is_xl and pipeline.scheduler.config.get("prediction_type") == "v_prediction":
        tensors["v_pred"] = torch.zeros(0)  # by its presence loaders know what the model predicts
    return tensors


def _parts(pipeline: Any) -> Iterator[tuple[nn.Module, str, Layout]]:
    places = next((CHECKPOINTS[name] for name in _classes(pipeline) if name in CHECKPOINTS), None)
    if places is None:
        raise UserError(
            f"single_file knows the checkpoints of {', '.join(CHECKPOINTS)}; got a {type(pipeline).__name__}. Choose "
            "the formats diffusers or denoiser."
        )
    for component, place in places.items():
        module = getattr(pipeline, component, None)
        if module is not None:
            yield module, *place(module)


def _classes(pipeline: Any) -> list[str]:
    return [cls.__name__ for cls in type(pipeline).__mro__]

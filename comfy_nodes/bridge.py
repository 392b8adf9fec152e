"""From ComfyUI's MODEL, CLIP and VAE to a diffusers pipeline, and the change back to a MODEL.

The UNet's weights are copied, with every patch on the MODEL (LoRAs) worked in, under diffusers' names.
Prompts are embedded by the CLIP and pictures decoded by the VAE themselves, under ComfyUI's own memory
management. The way back is a patch ("diff") on a clone of the MODEL: nothing that came in is changed.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn

from ..pipeline.errors import UserError
from ..pipeline.models import wrap_pipeline
from ..pipeline.weights.layouts import denoiser_layout
from .model import Model, Native
from .unet_config import XL_CONDITION, unet_config

_PREFIX = "diffusion_model."
_TOKENS = 77
_SUPPORTED = "Model from ComfyUI takes Stable Diffusion 1.x, 2.x and XL checkpoints."
_PREDICTIONS = {"EPS": "epsilon", "V_PREDICTION": "v_prediction"}


def cross(patcher: Any, clip: Any, vae: Any, name: str, image_size: int) -> Model:
    """Take a MODEL over the bridge.

    Args:
        patcher: the MODEL.
        clip: the CLIP.
        vae: the VAE.
        name: what to call it.
        image_size: side in pixels of what it draws.

    Raises:
        UserError: an architecture that the bridge can't carry, or an image size that it can't draw.
    """
    config = _unet_config(patcher, image_size)
    unet = UNet2DConditionModel(**config)
    layout = denoiser_layout(unet)
    shapes = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for key, tensor in _patched_weights(patcher):
        if key not in layout:
            raise UserError(f"the MODEL has the weight {key!r}, which a Stable Diffusion UNet has not. {_SUPPORTED}")
        weights |= layout[key].to_diffusers(tensor, shapes)
    missing, _ = unet.load_state_dict(weights, strict=False)
    if missing:
        raise UserError(f"the MODEL lacks the weights of {missing[0]!r} and {len(missing) - 1} more. {_SUPPORTED}")
    pipeline = _pipeline(patcher, unet.eval(), clip, vae)

    def patched(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Any:
        difference = {key: after[key].float() - before[key].to(after[key].device, torch.float32) for key in before}
        patches = {
            _PREFIX + key: ("diff", (change,))
            for key, entry in layout.items()
            if (change := entry.to_original(difference)).any()
        }
        changed = patcher.clone()
        if len(changed.add_patches(patches)) != len(patches):
            raise UserError("the MODEL has changed: some unlearned weights have no place in it any more.")
        return changed

    return Model(wrap_pipeline(pipeline, name), native=Native(patcher, clip, vae, patched))


def _pipeline(patcher: Any, unet: UNet2DConditionModel, clip: Any, vae: Any) -> Any:
    parts = {"vae": _VAE(vae, patcher.model.latent_format.scale_factor), "unet": unet, "scheduler": _scheduler(patcher)}
    parts |= {"text_encoder": None, "tokenizer": None}
    if unet.config.addition_embed_type:
        pipeline: Any = _XLPipeline(**parts, text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
    else:
        pipeline = _Pipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.clip = clip
    return pipeline


def _patched_weights(patcher: Any) -> Sequence[tuple[str, Tensor]]:
    import comfy.lora

    found = []
    with torch.no_grad():
        for key, (base, *patches) in patcher.get_key_patches(_PREFIX).items():
            weight, convert = base
            value = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
            value = comfy.lora.calculate_weight(patches, value, key)
            found.append((key.removeprefix(_PREFIX), value.clone()))
    return found


def _unet_config(patcher: Any, image_size: int) -> dict[str, Any]:
    """Arguments of diffusers' UNet for the network that ComfyUI detected.

    Raises:
        UserError: another architecture, or an image size that it can't draw.
    """
    model, found = patcher.model, patcher.model.model_config.unet_config
    if "channel_mult" not in found or found.get("adm_in_channels") not in (None, XL_CONDITION):
        raise UserError(f"expected a Stable Diffusion MODEL, got {type(model).__name__}. {_SUPPORTED}")
    if model.model_type.name not in _PREDICTIONS or found["in_channels"] != found["out_channels"]:
        raise UserError(
            f"expected a text-to-image MODEL that predicts noise or velocity, got {type(model).__name__} "
            f"({model.model_type.name}, {found['in_channels']} input channels). {_SUPPORTED}"
        )
    if image_size % 64:
        raise UserError(f"image_size must be a multiple of 64, got {image_size}.")
    return unet_config(found, image_size)


def _scheduler(patcher: Any) -> DDIMScheduler:
    sigmas = patcher.get_model_object("model_sampling").sigmas.float().cpu()
    alphas = 1 / (1 + sigmas**2)
    betas = 1 - alphas / torch.cat([torch.ones(1), alphas[:-1]])
    return DDIMScheduler(
        num_train_timesteps=len(betas),
        trained_betas=betas.clone().numpy(),
        prediction_type=_PREDICTIONS[patcher.model.model_type.name],
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _embed(clip: Any, text: str) -> tuple[Tensor, Tensor]:
    escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")  # these weight words in ComfyUI
    with torch.inference_mode():
        embeds, pooled = clip.encode_from_tokens(clip.tokenize(escaped), return_pooled=True)
    return embeds[:, :_TOKENS].to("cpu", torch.float32).clone(), pooled.to("cpu", torch.float32).clone()


def _encode(clip: Any, prompts: Sequence[str], device: Any, guided: bool) -> tuple[list[Tensor], list[Tensor | None]]:
    """[embeddings, pooled] of prompts, and the same of as many empty ones where there is guidance."""
    parts = [torch.cat(part).to(device) for part in zip(*(_embed(clip, text) for text in prompts), strict=True)]
    if not guided:
        return parts, [None, None]
    return parts, [part.to(device).expand(len(prompts), *part.shape[1:]) for part in _embed(clip, "")]


class _Pipeline(StableDiffusionPipeline):
    """A pipeline whose prompts are embedded by a CLIP of ComfyUI."""

    clip: Any

    def encode_prompt(  # type: ignore[override]
        self,
        prompt: Any,
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings of prompts, and of as many empty ones."""
        (embeds, _pooled), (empty, _none) = _encode(self.clip, prompt, device, do_classifier_free_guidance)
        return embeds, empty


class _XLPipeline(StableDiffusionXLPipeline):
    """The same for SDXL."""

    clip: Any

    def encode_prompt(  # type: ignore[override]
        self, prompt: Any, *_: Any, device: Any = None, do_classifier_free_guidance: bool = True, **__: Any
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Embeddings of prompts and of empty ones, then pooled ones of both."""
        (embeds, pooled), (empty, empty_pooled) = _encode(self.clip, prompt, device, do_classifier_free_guidance)
        return embeds, empty, pooled, empty_pooled


class _VAE(nn.Module):
    """A VAE of ComfyUI, as much of it as the pipeline calls."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, vae: Any, scaling_factor: float) -> None:
        super().__init__()
        self.vae = vae
        self.nothing = nn.Parameter(torch.zeros(0), requires_grad=False)  # diffusers asks networks for one
        self.config = SimpleNamespace(scaling_factor=scaling_factor, shift_factor=None, block_out_channels=(0,) * 4)

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Pictures (N, 3, H, W) in [-1, 1] of unscaled latents."""
        with torch.inference_mode():
            pixels = self.vae.decode(latents.clone())
        return (pixels.clone().movedim(-1, 1) * 2 - 1,)

    def encode(self, images: Tensor) -> SimpleNamespace:
        """Latents of pictures in [-1, 1]."""
        with torch.inference_mode():
            latents = self.vae.encode(images.movedim(1, -1) / 2 + 0.5)
        return SimpleNamespace(latents=latents.clone())

"""From ComfyUI's MODEL, CLIP and VAE to a diffusers pipeline, and the change back to a MODEL.

The UNet's weights are copied, with every patch on the MODEL (LoRAs) worked in, under diffusers' names.
Prompts are embedded by the CLIP and pictures decoded by the VAE themselves, under ComfyUI's own memory
management. The way back is a patch ("diff") on a clone of the MODEL: nothing that came in is changed.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import comfy.lora
import comfy.model_base
import comfy.model_management
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from ..pipeline.errors import UserError
from ..pipeline.models import wrap_pipeline
from ..pipeline.weights.layouts import denoiser_layout
from .model import Model, Native

_PREFIX = "diffusion_model."
_TOKENS = 77
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
    unet.load_state_dict(weights)
    pipeline = _Pipeline(
        vae=_VAE(vae, patcher.model.latent_format.scale_factor),
        text_encoder=None,
        tokenizer=None,
        unet=unet.eval(),
        scheduler=_scheduler(patcher),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.clip = clip

    def patched(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Any:
        difference = {key: after[key].float() - before[key].to(after[key].device, torch.float32) for key in before}
        patches = {
            _PREFIX + key: ("diff", (change,))
            for key, entry in layout.items()
            if (change := entry.to_original(difference)).any()
        }
        changed = patcher.clone()
        if len(changed.add_patches(patches)) != len(patches):
            raise UserError(
                "the MODEL has changed: some unlearned weights have no place in it any more."
            )
        return changed

    return Model(wrap_pipeline(pipeline, name), native=Native(patcher, clip, vae, patched))


_SUPPORTED = "Model from ComfyUI takes Stable Diffusion 1.x and 2.x checkpoints."


def _patched_weights(patcher: Any) -> "Sequence[tuple[str, Tensor]]":
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
        UserError: another architecture.
    """
    model, found = patcher.model, patcher.model.model_config.unet_config
    if not isinstance(model, comfy.model_base.BaseModel) or "channel_mult" not in found or found.get("adm_in_channels"):
        raise UserError(f"expected a Stable Diffusion 1.x or 2.x MODEL, got {type(model).__name__}. {_SUPPORTED}")
    if model.model_type.name not in _PREDICTIONS or found["in_channels"] != found["out_channels"]:
        raise UserError(
            f"expected a text-to-image MODEL that predicts noise or velocity, got {type(model).__name__} "
            f"({model.model_type.name}, {found['in_channels']} input channels). {_SUPPORTED}"
        )
    if image_size % 64:
        raise UserError(f"image_size must be a multiple of 64, got {image_size}.")
    channels = [found["model_channels"] * multiple for multiple in found["channel_mult"]]
    blocks, depth, depth_up = (
        found["num_res_blocks"],
        list(found["transformer_depth"]),
        found["transformer_depth_output"],
    )
    down = [depth[sum(blocks[:level]) : sum(blocks[: level + 1])] for level in range(len(blocks))]
    above = [sum(blocks[:level]) + level for level in range(len(blocks) + 1)]
    up = [list(depth_up[above[level] : above[level + 1]]) for level in range(len(blocks))]
    heads = found["num_heads"]
    if found.get("num_head_channels", -1) != -1:
        heads = [width // found["num_head_channels"] for width in channels]
    return {
        "sample_size": image_size // 8,
        "in_channels": found["in_channels"],
        "out_channels": found["out_channels"],
        "block_out_channels": channels,
        "layers_per_block": tuple(blocks),
        "down_block_types": ["CrossAttnDownBlock2D" if any(each) else "DownBlock2D" for each in down],
        "up_block_types": ["CrossAttnUpBlock2D" if any(each) else "UpBlock2D" for each in reversed(up)],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "transformer_layers_per_block": [max(max(each), 1) for each in down],
        "cross_attention_dim": found["context_dim"],
        "attention_head_dim": heads,
        "use_linear_projection": found.get("use_linear_in_transformer", False),
    }


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


class _Pipeline(StableDiffusionPipeline):
    """A pipeline whose prompts are embedded by a CLIP of ComfyUI."""

    clip: Any

    def encode_prompt(  # type: ignore[override]
        self,
        prompt: Sequence[str],
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings of prompts, and of as many empty ones."""
        embeds = torch.cat([self._embed(text) for text in prompt])
        empty = self._embed("").expand(len(embeds), -1, -1) if do_classifier_free_guidance else None
        return embeds.to(device), None if empty is None else empty.to(device)

    def _embed(self, text: str) -> Tensor:
        escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")  # these weight words in ComfyUI
        with torch.inference_mode():
            embeds = self.clip.encode_from_tokens(self.clip.tokenize(escaped))
        return embeds[:, :_TOKENS].to("cpu", torch.float32, copy=True).clone()


class _VAE(nn.Module):
    """A VAE of ComfyUI, as much of it as the pipeline calls."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, vae: Any, scaling_factor: float) -> None:
        super().__init__()
        self.vae = vae
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

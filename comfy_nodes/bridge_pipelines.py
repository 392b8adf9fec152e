"""diffusers pipelines around a CLIP and a VAE of ComfyUI: these embed the prompts and decode the pictures.

`BRIDGES` describes each supported family.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor, nn

from ..pipeline.models.family import Family
from ..pipeline.models.stable_diffusion import StableDiffusion
from ..pipeline.models.stable_diffusion_3 import StableDiffusion3
from ..pipeline.models.stable_diffusion_xl import StableDiffusionXL
from .networks import XL_CONDITION, mmdit_config, unet_config

_TOKENS = 77
_KEPT = 64
"""Number of cached embeddings: every batch needs the empty prompt, and SDXL's text encoders are slow on a CPU."""
_PREDICTIONS: dict[tuple[str, ...], str] = {
    ("ModelSamplingDiscrete", "EPS"): "epsilon",
    ("ModelSamplingDiscrete", "V_PREDICTION"): "v_prediction",
    ("ModelSamplingDiscreteFlow", "CONST"): "flow_prediction",
}
"""diffusers' word for the two base classes of a model's sampling in ComfyUI."""


def prediction_type(patcher: Any) -> str:
    """The prediction type that a MODEL is sampled with: diffusers' word, or ComfyUI's classes if it has none."""
    kinds = tuple(kind.__name__ for kind in type(patcher.get_model_object("model_sampling")).__bases__)
    return _PREDICTIONS.get(kinds, " with ".join(kinds))


def _scheduler(patcher: Any) -> DDIMScheduler:
    sigmas = patcher.get_model_object("model_sampling").sigmas.float().cpu()
    alphas = 1 / (1 + sigmas**2)
    betas = 1 - alphas / torch.cat([torch.ones(1), alphas[:-1]])
    return DDIMScheduler(
        num_train_timesteps=len(betas),
        trained_betas=betas.clone().numpy(),
        prediction_type=prediction_type(patcher),
        clip_sample=False,
        set_alpha_to_one=True,  # ComfyUI's last step goes to no noise at all
        steps_offset=1,
    )


def _flow_scheduler(patcher: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=float(patcher.get_model_object("model_sampling").shift))


def _tokenize(clip: Any, text: str) -> Mapping[str, Sequence[Any]]:
    """ComfyUI's tokens of a text, in pieces: encoder -> pieces."""
    # ComfyUI reads bare parentheses as weights of words.
    return clip.tokenize(text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)"))


def _read(clip: Any, text: str) -> str:
    """The part of a text whose tokens `_embed` takes whole in one encoder at least."""

    def whole(length: int) -> bool:
        return any(len(parts) == 1 and len(parts[0]) <= _TOKENS for parts in _tokenize(clip, text[:length]).values())

    if whole(len(text)):
        return text
    return text[: bisect_left(range(1, len(text)), True, key=lambda length: not whole(length))]


def _embed(clip: Any, text: str) -> tuple[Tensor, Tensor]:
    """Embed the first 77 tokens: embeddings (1, L, D) and the pooled embedding (1, P)."""
    tokens = {encoder: [parts[0][:_TOKENS]] for encoder, parts in _tokenize(clip, text).items()}
    with torch.inference_mode():
        embeds, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    return embeds.to("cpu", torch.float32).clone(), pooled.to("cpu", torch.float32).clone()


Embed = Callable[[str], tuple[Tensor, Tensor]]


def _encode(
    pipeline: Any, prompts: Sequence[str], device: Any, guided: bool
) -> tuple[list[Tensor], list[Tensor | None]]:
    """[embeddings, pooled] of the prompts, and of as many empty ones if there is guidance, as the network takes it."""
    dtype = (getattr(pipeline, "unet", None) or pipeline.transformer).dtype
    parts = [torch.cat(part).to(device, dtype) for part in zip(*map(pipeline.embed, prompts), strict=True)]
    if not guided:
        return parts, [None, None]
    return parts, [part.to(device, dtype).expand(len(prompts), *part.shape[1:]) for part in pipeline.embed("")]


class _Pipeline(StableDiffusionPipeline):
    embed: Embed

    def encode_prompt(
        self,
        prompt: Any,
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings of the prompts, and of as many empty ones."""
        (embeds, _pooled), (empty, _none) = _encode(self, prompt, device, do_classifier_free_guidance)
        return embeds, empty


class _Pooled:
    """`encode_prompt` for families that also take a pooled embedding."""

    embed: Embed

    def encode_prompt(
        self, prompt: Any, *_: Any, device: Any = None, do_classifier_free_guidance: bool = True, **__: Any
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Embeddings of the prompts and of empty ones, then the pooled embeddings of both."""
        (embeds, pooled), (empty, empty_pooled) = _encode(self, prompt, device, do_classifier_free_guidance)
        return embeds, empty, pooled, empty_pooled


class _XLPipeline(_Pooled, StableDiffusionXLPipeline):
    pass


class _FlowPipeline(_Pooled, StableDiffusion3Pipeline):
    pass


class _VAE(nn.Module):
    """A VAE of ComfyUI with the methods that the pipelines call."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, vae: Any, latent_format: Any) -> None:
        super().__init__()
        self.vae = vae
        self.nothing = nn.Parameter(torch.zeros(0), requires_grad=False)  # diffusers expects one parameter at least
        self.config = SimpleNamespace(
            scaling_factor=latent_format.scale_factor,
            shift_factor=getattr(latent_format, "shift_factor", None),
            block_out_channels=(0,) * 4,
        )

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Decode unscaled latents to pictures (N, 3, H, W) in [-1, 1]."""
        with torch.inference_mode():
            pixels = self.vae.decode(latents.clone())
        return (pixels.clone().movedim(-1, 1) * 2 - 1,)

    def encode(self, images: Tensor) -> SimpleNamespace:
        """Encode pictures (N, 3, H, W) in [-1, 1] to unscaled latents."""
        with torch.inference_mode():
            latents = self.vae.encode(images.movedim(1, -1) / 2 + 0.5)
        return SimpleNamespace(latents=latents.clone())


# families -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bridge:
    """A family whose models the bridge supports.

    Attributes:
        family: the adapter.
        title: the name of its models in messages.
        recognises: whether ComfyUI's `model_config.unet_config` belongs to this family.
        predicts: the prediction types that its models are trained with, in diffusers' words.
        config: gives the arguments of the family's network, from `unet_config` and the images' side in pixels.
        scheduler: gives diffusers' scheduler with a MODEL's noise schedule.
        pipeline: the pipeline class whose prompts a CLIP embeds.
        absent: further arguments of the pipeline, for components that ComfyUI keeps elsewhere.
        largest: gives the largest side of images in pixels, from `unet_config`; None: no limit.
    """

    family: type[Family]
    title: str
    recognises: Callable[[Mapping[str, Any]], bool]
    predicts: tuple[str, ...]
    config: Callable[[Mapping[str, Any], int], dict[str, Any]]
    scheduler: Callable[[Any], Any]
    pipeline: Callable[..., Any]
    absent: Mapping[str, Any]
    largest: Callable[[Mapping[str, Any]], int] | None = None


_UNCHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
_SECOND = {"text_encoder_2": None, "tokenizer_2": None}
_THIRD = {"text_encoder_3": None, "tokenizer_3": None}

BRIDGES = (
    Bridge(
        family=StableDiffusion,
        title="Stable Diffusion 1.x, 2.x",
        recognises=lambda found: "channel_mult" in found and found.get("adm_in_channels") is None,
        predicts=("epsilon", "v_prediction"),
        config=unet_config,
        scheduler=_scheduler,
        pipeline=_Pipeline,
        absent=_UNCHECKED,
    ),
    Bridge(
        family=StableDiffusionXL,
        title="XL",
        recognises=lambda found: "channel_mult" in found and found.get("adm_in_channels") == XL_CONDITION,
        predicts=("epsilon", "v_prediction"),
        config=unet_config,
        scheduler=_scheduler,
        pipeline=_XLPipeline,
        absent={**_SECOND, "add_watermarker": False},
    ),
    Bridge(
        family=StableDiffusion3,
        title="3.x",
        recognises=lambda found: "context_embedder_config" in found and "pos_embed_max_size" in found,
        predicts=("flow_prediction",),
        config=mmdit_config,
        scheduler=_flow_scheduler,
        pipeline=_FlowPipeline,
        absent={**_SECOND, **_THIRD},
        largest=lambda found: found["pos_embed_max_size"] * found["patch_size"] * 8,
    ),
)


def make_pipeline(patcher: Any, network: nn.Module, clip: Any, vae: Any) -> Any:
    """Build a pipeline of the network's family around the network.

    Args:
        patcher: the MODEL, for its noise schedule and the scale of its latents.
        network: diffusers' UNet or transformer.
        clip: the CLIP.
        vae: the VAE.
    """
    bridge = next(bridge for bridge in BRIDGES if bridge.family.owns(network))
    pipeline = bridge.pipeline(
        **{bridge.family.component: network},
        scheduler=bridge.scheduler(patcher),
        vae=_VAE(vae, patcher.model.latent_format),
        text_encoder=None,
        tokenizer=None,
        **bridge.absent,
    )
    pipeline.embed, pipeline.read_prompt = lru_cache(_KEPT)(partial(_embed, clip)), partial(_read, clip)
    return pipeline

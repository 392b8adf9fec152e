"""Stable Diffusion 3 and 3.5: a transformer with joint attention (MMDiT), trained by flow matching."""

from typing import ClassVar

from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline, StableDiffusion3Pipeline
from torch import Tensor

from .flow_transformer import FlowTransformer
from .protocol import Conditioning


class StableDiffusion3(FlowTransformer):
    """`Denoiser` over a `StableDiffusion3Pipeline`, with or without its third text encoder (T5)."""

    family = "stable-diffusion-3"
    pipeline_class = StableDiffusion3Pipeline
    siblings = (StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline)
    text_encoders: ClassVar = {
        "text_encoder": "text_encoders.clip_l.",
        "text_encoder_2": "text_encoders.clip_g.",
        "text_encoder_3": "text_encoders.t5xxl.",
    }
    may_lack = ("text_encoder_3",)

    def encode(self, prompts: list[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D), "pooled_prompt_embeds": (N, P)}; zeros stand for an absent T5."""
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The velocity, at timesteps in (0, 1000]."""
        return self.module(
            noisy_samples,
            timestep=timesteps,
            encoder_hidden_states=conditioning["prompt_embeds"],
            pooled_projections=conditioning["pooled_prompt_embeds"],
            return_dict=False,
        )[0]

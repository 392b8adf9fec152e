"""Stable Diffusion XL: a larger UNet, two text encoders, and the image's size as a condition."""

from typing import ClassVar

from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from torch import Tensor

from .protocol import Conditioning
from .stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """`Denoiser` over a `StableDiffusionXLPipeline`."""

    family = "stable-diffusion-xl"
    pipeline_class = StableDiffusionXLPipeline
    siblings = (StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline)
    text_encoders: ClassVar = {"text_encoder": "conditioner.embedders.0.", "text_encoder_2": "conditioner.embedders.1."}

    def encode(self, prompts: list[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D1 + D2), "pooled_prompt_embeds": (N, D2)}."""
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output for an uncropped image of the latents' own size (Podell et al. 2023, Section 2.2)."""
        height, width = (side * self.pipeline.vae_scale_factor for side in noisy_samples.shape[-2:])
        original, corner, target = (height, width), (0, 0), (height, width)
        time_ids = noisy_samples.new_tensor([*original, *corner, *target]).expand(len(noisy_samples), -1)
        return self.module(
            noisy_samples,
            timesteps,
            encoder_hidden_states=conditioning["prompt_embeds"],
            added_cond_kwargs={"text_embeds": conditioning["pooled_prompt_embeds"], "time_ids": time_ids},
            return_dict=False,
        )[0]

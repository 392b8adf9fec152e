"""Stable Diffusion 1.x and 2.x: a UNet on VAE latents, conditioned on one text encoder."""

from typing import ClassVar

from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from torch import Tensor

from ..maths.objectives import Objective, objective_from_scheduler
from .base import PipelineDenoiser
from .protocol import Conditioning


class StableDiffusion(PipelineDenoiser):
    """`Denoiser` over a `StableDiffusionPipeline`."""

    family = "stable-diffusion"
    pipeline_class = StableDiffusionPipeline
    siblings = (StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline)
    component = "unet"
    text_encoders: ClassVar = {"text_encoder": "cond_stage_model."}

    def build_objective(self) -> Objective:
        """Noise or velocity, whichever the scheduler says that the UNet predicts.

        Raises:
            ValueError: a scheduler that is not of variance-preserving diffusion.
        """
        scheduler = self.pipeline.scheduler
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"expected a scheduler of DDPM's kind (DDIM, PNDM, Euler, …), got {type(scheduler).__name__}."
            )
        return objective_from_scheduler(scheduler.config, scheduler.alphas_cumprod)

    def encode(self, prompts: list[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D)}."""
        embeds, _ = self.pipeline.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds}

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output."""
        return self.module(
            noisy_samples, timesteps, encoder_hidden_states=conditioning["prompt_embeds"], return_dict=False
        )[0]

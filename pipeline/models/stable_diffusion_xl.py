"""Stable Diffusion XL: a larger UNet, two text encoders, and the image's size as a condition."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from .family import Place
from .protocol import Conditioning
from .stable_diffusion import StableDiffusion, unet_inputs


def xl_inputs(config: Any, batch_size: int, side: int | None) -> dict[str, Any]:
    """Example inputs: those of every UNet with text, the pooled embedding, and six numbers about the image's size."""
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    conditions = {"text_embeds": torch.zeros(batch_size, pooled), "time_ids": torch.zeros(batch_size, 6)}
    return {**unet_inputs(config, batch_size, side), "added_cond_kwargs": conditions}


class StableDiffusionXL(StableDiffusion):
    """`Denoiser` over a `StableDiffusionXLPipeline`."""

    family = "stable-diffusion-xl"
    pipeline_class = StableDiffusionXLPipeline
    siblings = (StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline)
    marks = ("label_emb.0.0.weight", "add_embedding.linear_1.weight")
    kinds = ("xl_base",)
    other_kinds = ("xl_inpaint",)
    defaults = ("stable-diffusion", "stable-diffusion-xl")
    text_encoders: ClassVar = {"text_encoder": "conditioner.embedders.0.", "text_encoder_2": "conditioner.embedders.1."}
    places: ClassVar = {
        "vae": Place("first_stage_model.", "autoencoder"),
        "unet": Place("model.diffusion_model.", "denoiser"),
        "text_encoder": Place("conditioner.embedders.0.transformer.", "transformers"),
        "text_encoder_2": Place("conditioner.embedders.1.model.", "open_clip"),
    }
    lora_names = "original"
    known: ClassVar = {
        "sdxl": {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    }
    tiny: ClassVar = {
        **StableDiffusion.tiny,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 8 + 6 * 8,
    }
    example_inputs = staticmethod(xl_inputs)

    @classmethod
    def owns(cls, module: nn.Module) -> bool:
        """A UNet with text and more conditions."""
        return isinstance(module, cls.network) and not StableDiffusion.owns(module)

    @classmethod
    def checkpoint(cls, pipeline: Any) -> Mapping[str, Place]:
        """The places, which every version shares."""
        return cls.places

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

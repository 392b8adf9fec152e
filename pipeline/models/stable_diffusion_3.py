"""Stable Diffusion 3 and 3.5: a transformer with joint attention (MMDiT), trained by flow matching."""

from typing import Any, ClassVar

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

    def __init__(self, pipeline: Any, name: str, source: str | None = None) -> None:
        super().__init__(pipeline, name, source)
        if not _has_room_for_t5(pipeline):
            self.call_options = {"max_sequence_length": 0}

    def encode(self, prompts: list[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D), "pooled_prompt_embeds": (N, P)}.

        Zeros stand for an absent T5, unless the model was made without one.
        """
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, None, None, device=self.device, do_classifier_free_guidance=False, **self.call_options
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


def _has_room_for_t5(pipeline: Any) -> bool:
    """Whether the transformer takes wider tokens than both CLIPs give together, as T5's are.

    Where it doesn't, it was made without T5, and the 256 tokens of zeros that diffusers puts in the
    place of an absent one would only cost time.
    """
    clips = sum(
        part.config.hidden_size for part in (pipeline.text_encoder, pipeline.text_encoder_2) if part is not None
    )
    return pipeline.text_encoder_3 is not None or pipeline.transformer.config.joint_attention_dim != clips

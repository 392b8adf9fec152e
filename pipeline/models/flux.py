"""Flux: a transformer on packed latents, distilled so that it takes the guidance scale as an input."""

from typing import ClassVar

from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from .flow_transformer import FlowTransformer
from .protocol import Conditioning

TRAINING_GUIDANCE = 1.0
"""Guidance at which the distilled model equals the conditional one, that real images are predicted with."""


class Flux(FlowTransformer):
    """`Denoiser` over a `FluxPipeline`."""

    family = "flux"
    pipeline_class = FluxPipeline
    siblings = (FluxImg2ImgPipeline, FluxInpaintPipeline)
    text_encoders: ClassVar = {"text_encoder": "text_encoders.clip_l.", "text_encoder_2": "text_encoders.t5xxl."}

    def encode(self, prompts: list[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D) of T5, "pooled_prompt_embeds": (N, P) of CLIP}."""
        embeds, pooled, _ = self.pipeline.encode_prompt(prompts, None, device=self.device)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def unpack(self, latents: Tensor, image_size: int | None) -> Tensor:
        """(B, H W / 4, 4 C) -> (B, C, H, W), a square image."""
        pipe = self.pipeline
        size = image_size // pipe.vae_scale_factor if image_size else pipe.default_sample_size
        return unpack_latents(latents, size, size)

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The velocity, at timesteps in (0, 1000], without amplified guidance."""
        height, width = noisy_samples.shape[-2:]
        embeds = conditioning["prompt_embeds"]
        guided = self.module.config.guidance_embeds
        velocity = self.module(
            hidden_states=pack_latents(noisy_samples),
            timestep=timesteps / self.pipeline.scheduler.config.num_train_timesteps,
            guidance=noisy_samples.new_full((len(noisy_samples),), TRAINING_GUIDANCE) if guided else None,
            pooled_projections=conditioning["pooled_prompt_embeds"],
            encoder_hidden_states=embeds,
            txt_ids=embeds.new_zeros(embeds.shape[1], 3),
            img_ids=position_ids(height // 2, width // 2, noisy_samples),
            return_dict=False,
        )[0]
        return unpack_latents(velocity, height, width)


def pack_latents(latents: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W / 4, 4 C): each 2x2 square of latents is one token."""
    return pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack_latents`; height and width are those of the latents."""
    return pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height // 2, width // 2)), 2)


def position_ids(rows: int, columns: int, like: Tensor) -> Tensor:
    """(rows * columns, 3): zero, row and column of each token, which the rotary embedding reads."""
    ids = like.new_zeros(rows, columns, 3)
    ids[..., 1] = like.new_tensor(range(rows))[:, None]
    ids[..., 2] = like.new_tensor(range(columns))
    return ids.flatten(0, 1)

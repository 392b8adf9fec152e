"""Flux: a transformer on packed latents, distilled so that it takes the guidance scale as an input."""

from typing import Any, ClassVar

import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from .family import Place, Row
from .flow_transformer import FlowTransformer
from .protocol import Conditioning

TRAINING_GUIDANCE = 1.0
"""Guidance at which the distilled model equals the conditional one, that real images are predicted with."""

_DOUBLE, _TWO, _SINGLE, _ONE = (
    "transformer_blocks.*",
    "double_blocks.*",
    "single_transformer_blocks.*",
    "single_blocks.*",
)

FLUX_ROWS: tuple[Row, ...] = (
    ("x_embedder.%", "img_in.%"),
    ("context_embedder.%", "txt_in.%"),
    ("time_text_embed.timestep_embedder.linear_1.%", "time_in.in_layer.%"),
    ("time_text_embed.timestep_embedder.linear_2.%", "time_in.out_layer.%"),
    ("time_text_embed.text_embedder.linear_1.%", "vector_in.in_layer.%"),
    ("time_text_embed.text_embedder.linear_2.%", "vector_in.out_layer.%"),
    ("time_text_embed.guidance_embedder.linear_1.%", "guidance_in.in_layer.%"),
    ("time_text_embed.guidance_embedder.linear_2.%", "guidance_in.out_layer.%"),
    ("norm_out.linear.%", "final_layer.adaLN_modulation.1.%", "swap"),
    ("proj_out.%", "final_layer.linear.%"),
    (f"{_DOUBLE}.norm1.linear.%", f"{_TWO}.img_mod.lin.%"),
    (f"{_DOUBLE}.norm1_context.linear.%", f"{_TWO}.txt_mod.lin.%"),
    (f"{_DOUBLE}.attn.{{to_q,to_k,to_v}}.%", f"{_TWO}.img_attn.qkv.%"),
    (f"{_DOUBLE}.attn.{{add_q_proj,add_k_proj,add_v_proj}}.%", f"{_TWO}.txt_attn.qkv.%"),
    (f"{_DOUBLE}.attn.norm_q.weight", f"{_TWO}.img_attn.norm.query_norm.scale"),
    (f"{_DOUBLE}.attn.norm_k.weight", f"{_TWO}.img_attn.norm.key_norm.scale"),
    (f"{_DOUBLE}.attn.norm_added_q.weight", f"{_TWO}.txt_attn.norm.query_norm.scale"),
    (f"{_DOUBLE}.attn.norm_added_k.weight", f"{_TWO}.txt_attn.norm.key_norm.scale"),
    (f"{_DOUBLE}.attn.to_out.0.%", f"{_TWO}.img_attn.proj.%"),
    (f"{_DOUBLE}.attn.to_add_out.%", f"{_TWO}.txt_attn.proj.%"),
    (f"{_DOUBLE}.ff.net.0.proj.%", f"{_TWO}.img_mlp.0.%"),
    (f"{_DOUBLE}.ff.net.2.%", f"{_TWO}.img_mlp.2.%"),
    (f"{_DOUBLE}.ff_context.net.0.proj.%", f"{_TWO}.txt_mlp.0.%"),
    (f"{_DOUBLE}.ff_context.net.2.%", f"{_TWO}.txt_mlp.2.%"),
    (f"{_SINGLE}.norm.linear.%", f"{_ONE}.modulation.lin.%"),
    (f"{_SINGLE}.{{attn.to_q,attn.to_k,attn.to_v,proj_mlp}}.%", f"{_ONE}.linear1.%"),
    (f"{_SINGLE}.proj_out.%", f"{_ONE}.linear2.%"),
    (f"{_SINGLE}.attn.norm_q.weight", f"{_ONE}.norm.query_norm.scale"),
    (f"{_SINGLE}.attn.norm_k.weight", f"{_ONE}.norm.key_norm.scale"),
)
"""The tensors of the double and single blocks in Black Forest Labs' flux, from the loaders of diffusers 0.42."""


def flux_inputs(config: Any, batch_size: int, side: int | None) -> dict[str, Any]:
    """Example inputs, with 512 tokens of T5 and, unless `side` says otherwise, those of an image of 1024 pixels."""
    tokens = ((side or 128) // 2) ** 2
    return {
        "hidden_states": torch.zeros(batch_size, tokens, config.in_channels),
        "timestep": torch.zeros(batch_size),
        "encoder_hidden_states": torch.zeros(batch_size, 512, config.joint_attention_dim),
        "pooled_projections": torch.zeros(batch_size, config.pooled_projection_dim),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(512, 3),
        "guidance": torch.zeros(batch_size) if config.guidance_embeds else None,
    }


class Flux(FlowTransformer):
    """`Denoiser` over a `FluxPipeline`."""

    family = "flux"
    pipeline_class = FluxPipeline
    siblings = (FluxImg2ImgPipeline, FluxInpaintPipeline)
    network = FluxTransformer2DModel
    marks = ("double_blocks.0.img_attn.qkv.weight", "single_transformer_blocks.0.proj_mlp.weight")
    kinds = ("flux-dev", "flux-schnell")
    other_kinds = ("flux-fill", "flux-depth")
    defaults = ("stable-diffusion", "flux")
    text_encoders: ClassVar = {"text_encoder": "text_encoders.clip_l.", "text_encoder_2": "text_encoders.t5xxl."}
    prompt_tokens: ClassVar = {"text_encoder_2": 512}
    places: ClassVar = {"transformer": Place("", "denoiser")}  # it was published as its transformer alone
    layout = staticmethod(lambda config: FLUX_ROWS)
    known: ClassVar = {"flux-dev": {"guidance_embeds": True}}
    tiny: ClassVar = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "pooled_projection_dim": 8,
        "axes_dims_rope": (2, 2, 4),
        "guidance_embeds": True,
    }
    example_inputs = staticmethod(flux_inputs)

    def encode(self, prompts: list[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D) of T5, "pooled_prompt_embeds": (N, P) of CLIP}."""
        embeds, pooled, _ = self.pipeline.encode_prompt(prompts, None, device=self.device)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def latent_shape(self, image_size: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) before they are packed, four to a token."""
        pipe = self.pipeline
        side = image_size // pipe.vae_scale_factor if image_size else pipe.default_sample_size
        return self.module.config.in_channels // 4, side, side

    def unpack(self, latents: Tensor, image_size: int | None) -> Tensor:
        """(B, H W / 4, 4 C) -> (B, C, H, W), a square image."""
        _, height, width = self.latent_shape(image_size)
        return unpack_latents(latents, height, width)

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

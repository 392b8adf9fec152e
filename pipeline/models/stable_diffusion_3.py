"""Stable Diffusion 3 and 3.5: a transformer with joint attention (MMDiT), trained by flow matching."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from diffusers import (
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)
from torch import Tensor

from .family import Place, Row
from .flow_transformer import FlowTransformer
from .protocol import Conditioning
from .stages import Stages


def mmdit_rows(config: Any) -> Iterator[Row]:
    """The transformer's tensors in Stability AI's sd3-ref.

    How they relate to diffusers was read from the loaders of diffusers 0.42 (`loaders/single_file_utils.py`).
    """
    last_block = config.num_layers - 1  # its context only feeds the attention
    block, image, text = "transformer_blocks.*", "joint_blocks.*.x_block", "joint_blocks.*.context_block"
    last = f"transformer_blocks.{last_block}.norm1_context.linear.%"
    yield from (
        ("pos_embed.pos_embed", "pos_embed"),
        ("pos_embed.proj.%", "x_embedder.proj.%"),
        ("context_embedder.%", "context_embedder.%"),
        ("time_text_embed.timestep_embedder.linear_1.%", "t_embedder.mlp.0.%"),
        ("time_text_embed.timestep_embedder.linear_2.%", "t_embedder.mlp.2.%"),
        ("time_text_embed.text_embedder.linear_1.%", "y_embedder.mlp.0.%"),
        ("time_text_embed.text_embedder.linear_2.%", "y_embedder.mlp.2.%"),
        ("norm_out.linear.%", "final_layer.adaLN_modulation.1.%", "swap"),
        ("proj_out.%", "final_layer.linear.%"),
        (last, f"joint_blocks.{last_block}.context_block.adaLN_modulation.1.%", "swap"),
        (f"{block}.norm1.linear.%", f"{image}.adaLN_modulation.1.%"),
        (f"{block}.norm1_context.linear.%", f"{text}.adaLN_modulation.1.%"),
        (f"{block}.attn.{{to_q,to_k,to_v}}.%", f"{image}.attn.qkv.%"),
        (f"{block}.attn.{{add_q_proj,add_k_proj,add_v_proj}}.%", f"{text}.attn.qkv.%"),
        (f"{block}.attn.to_out.0.%", f"{image}.attn.proj.%"),
        (f"{block}.attn.to_add_out.%", f"{text}.attn.proj.%"),
        (f"{block}.attn.norm_q.weight", f"{image}.attn.ln_q.weight"),
        (f"{block}.attn.norm_k.weight", f"{image}.attn.ln_k.weight"),
        (f"{block}.attn.norm_added_q.weight", f"{text}.attn.ln_q.weight"),
        (f"{block}.attn.norm_added_k.weight", f"{text}.attn.ln_k.weight"),
        (f"{block}.attn2.{{to_q,to_k,to_v}}.%", f"{image}.attn2.qkv.%"),
        (f"{block}.attn2.to_out.0.%", f"{image}.attn2.proj.%"),
        (f"{block}.attn2.norm_q.weight", f"{image}.attn2.ln_q.weight"),
        (f"{block}.attn2.norm_k.weight", f"{image}.attn2.ln_k.weight"),
        (f"{block}.ff.net.0.proj.%", f"{image}.mlp.fc1.%"),
        (f"{block}.ff.net.2.%", f"{image}.mlp.fc2.%"),
        (f"{block}.ff_context.net.0.proj.%", f"{text}.mlp.fc1.%"),
        (f"{block}.ff_context.net.2.%", f"{text}.mlp.fc2.%"),
    )


def mmdit_inputs(config: Any, batch_size: int, side: int | None) -> dict[str, Any]:
    """Example inputs, with the 77 tokens of both CLIPs and the 256 of T5."""
    side = side or config.sample_size
    return {
        "hidden_states": torch.zeros(batch_size, config.in_channels, side, side),
        "timestep": torch.zeros(batch_size),
        "encoder_hidden_states": torch.zeros(batch_size, 77 + 256, config.joint_attention_dim),
        "pooled_projections": torch.zeros(batch_size, config.pooled_projection_dim),
    }


class StableDiffusion3(FlowTransformer):
    """`Denoiser` over a `StableDiffusion3Pipeline`, with or without its third text encoder (T5)."""

    family = "stable-diffusion-3"
    pipeline_class = StableDiffusion3Pipeline
    siblings = (StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline)
    network = SD3Transformer2DModel
    marks = ("joint_blocks.0.x_block.attn.qkv.weight", "pos_embed.proj.weight")
    kinds = ("sd3", "sd35_medium", "sd35_large")
    defaults = ("stable-diffusion", "stable-diffusion-3")
    text_encoders: ClassVar = {
        "text_encoder": "text_encoders.clip_l.",
        "text_encoder_2": "text_encoders.clip_g.",
        "text_encoder_3": "text_encoders.t5xxl.",
    }
    prompt_tokens: ClassVar = {"text_encoder_3": 256}
    may_lack = ("text_encoder_3",)
    places: ClassVar = {
        "vae": Place("first_stage_model.", "autoencoder"),
        "transformer": Place("model.diffusion_model.", "denoiser"),
        "text_encoder": Place("text_encoders.clip_l.transformer.", "transformers"),
        "text_encoder_2": Place("text_encoders.clip_g.transformer.", "transformers"),
        "text_encoder_3": Place("text_encoders.t5xxl.transformer.", "transformers"),
    }
    layout = staticmethod(mmdit_rows)
    known: ClassVar = {
        "sd3-medium": {
            "sample_size": 128,
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 192,
        },
    }
    tiny: ClassVar = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 8,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    example_inputs = staticmethod(mmdit_inputs)

    def __init__(self, pipeline: Any, name: str, source: str | None = None, stages: Stages | None = None) -> None:
        super().__init__(pipeline, name, source, stages)
        if not _has_room_for_t5(pipeline):
            self.call_options = {"max_sequence_length": 0}

    def largest_size(self) -> float:
        """As many tokens as it has places for."""
        return self.module.config.pos_embed_max_size * self.size_step()

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
    """Tell whether the transformer takes wider tokens than both CLIPs give together, as T5's are.

    Where it doesn't, it was made without T5, and the 256 tokens of zeros that diffusers puts in the
    place of an absent one would only cost time.
    """
    clips = sum(
        part.config.hidden_size for part in (pipeline.text_encoder, pipeline.text_encoder_2) if part is not None
    )
    return pipeline.text_encoder_3 is not None or pipeline.transformer.config.joint_attention_dim != clips

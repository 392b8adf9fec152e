"""Stable Diffusion 1.x and 2.x: a UNet on VAE latents, conditioned on one text encoder."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from ..maths.objectives import Objective, objective_from_scheduler
from .base import PipelineDenoiser
from .family import LayerNames, Place, Row
from .marks import V_PRED, ZERO_SNR
from .protocol import Conditioning

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""Parts of a residual block: diffusers' name -> latent-diffusion's."""


def unet_rows(config: Any) -> Iterator[Row]:
    """The UNet's tensors in latent-diffusion (Stable Diffusion 1, 2) and generative-models (XL).

    How they relate to diffusers was read from the loaders of diffusers 0.42 (`loaders/single_file_utils.py`).
    """
    levels = len(config.down_block_types)
    layers = config.layers_per_block
    layers_per_block = [layers] * levels if isinstance(layers, int) else list(layers)  # from the outside in
    attention_up = ["Attn" in block for block in config.up_block_types]  # from the inside out
    yield from (
        ("conv_in.%", "input_blocks.0.0.%"),
        ("time_embedding.linear_1.%", "time_embed.0.%"),
        ("time_embedding.linear_2.%", "time_embed.2.%"),
        ("add_embedding.linear_1.%", "label_emb.0.0.%"),
        ("add_embedding.linear_2.%", "label_emb.0.2.%"),
        ("conv_norm_out.%", "out.0.%"),
        ("conv_out.%", "out.2.%"),
        ("mid_block.attentions.0.**", "middle_block.1.**"),
    )
    resnets = {"mid_block.resnets.0": "middle_block.0", "mid_block.resnets.1": "middle_block.2"}
    place = 1
    for level, layers in enumerate(layers_per_block):
        for layer in range(layers):
            resnets[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{place}.0"
            yield f"down_blocks.{level}.attentions.{layer}.**", f"input_blocks.{place}.1.**"
            place += 1
        yield f"down_blocks.{level}.downsamplers.0.conv.%", f"input_blocks.{place}.0.op.%"
        place += 1
    place = 0
    for level, layers in enumerate(reversed(layers_per_block)):
        for layer in range(layers + 1):
            resnets[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{place}.0"
            yield f"up_blocks.{level}.attentions.{layer}.**", f"output_blocks.{place}.1.**"
            place += 1
        after = 2 if attention_up[level] else 1
        yield f"up_blocks.{level}.upsamplers.0.conv.%", f"output_blocks.{place - 1}.{after}.conv.%"
    for block, original in resnets.items():
        for part, name in _RESNET.items():
            yield f"{block}.{part}.%", f"{original}.{name}.%"


def unet_inputs(config: Any, batch_size: int, side: int | None) -> dict[str, Any]:
    """Example inputs that every UNet with text has."""
    side = side or config.sample_size
    return {
        "sample": torch.zeros(batch_size, config.in_channels, side, side),
        "timestep": torch.zeros(batch_size, dtype=torch.long),
        "encoder_hidden_states": torch.zeros(batch_size, 77, config.cross_attention_dim),
    }


class StableDiffusion(PipelineDenoiser):
    """`Denoiser` over a `StableDiffusionPipeline`."""

    family = "stable-diffusion"
    pipeline_class = StableDiffusionPipeline
    siblings = (StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline)
    component = "unet"
    network = UNet2DConditionModel
    marks: ClassVar[tuple[str, ...]] = ("input_blocks.0.0.weight", "down_blocks.0.resnets.0.conv1.weight")
    prefix_alone = "model.diffusion_model."
    kinds: ClassVar[tuple[str, ...]] = ("v1", "v2")
    other_kinds: ClassVar[tuple[str, ...]] = ("inpainting", "inpainting_v2")
    text_encoders: ClassVar = {"text_encoder": "cond_stage_model."}
    places: ClassVar = {
        "vae": Place("first_stage_model.", "autoencoder"),
        "unet": Place("model.diffusion_model.", "denoiser"),
        "text_encoder": Place("cond_stage_model.transformer.", "transformers"),
    }
    layout = staticmethod(unet_rows)
    lora_names: ClassVar[LayerNames] = "diffusers"
    known: ClassVar = {
        "sd14": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        "sd21": {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    }
    tiny: ClassVar = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
        "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    example_inputs = staticmethod(unet_inputs)

    @classmethod
    def owns(cls, module: nn.Module) -> bool:
        """A UNet with text; one with more conditions is SDXL's."""
        return isinstance(module, cls.network) and getattr(module, "add_embedding", None) is None

    @classmethod
    def checkpoint(cls, pipeline: Any) -> Mapping[str, Place]:
        """Version 1 has OpenAI's CLIP (quick_gelu) under transformers' names, version 2 open_clip's."""
        encoder = getattr(pipeline, "text_encoder", None)
        if encoder is None or encoder.config.hidden_act == "quick_gelu":
            return cls.places
        return {**cls.places, "text_encoder": Place("cond_stage_model.model.", "open_clip")}

    @classmethod
    def checkpoint_marks(cls, pipeline: Any) -> dict[str, Tensor]:
        """Empty tensors by whose presence loaders know that the model predicts the velocity, and its noisiest level."""
        config = pipeline.scheduler.config
        if config.get("prediction_type") != "v_prediction":
            return {}
        zero_snr = {ZERO_SNR: torch.zeros(0)} if config.get("rescale_betas_zero_snr") else {}
        return {V_PRED: torch.zeros(0), **zero_snr}

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

    def size_step(self) -> int:
        """Also a multiple of 8, which diffusers' pipelines ask for whatever the autoencoder is."""
        return math.lcm(8, super().size_step())

    def encode(self, prompts: list[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D)}."""
        embeds, _ = self.pipeline.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds}

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output."""
        return self.module(
            noisy_samples, timesteps, encoder_hidden_states=conditioning["prompt_embeds"], return_dict=False
        )[0]

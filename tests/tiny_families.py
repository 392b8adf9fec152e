"""Pipelines of real classes with random weights, small enough for a test: SD 2, SDXL, SD3, Flux."""

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel
from turpentine.pipeline.bundled.tiny_canvas.tokenizer import train_tokenizer

from .conftest import build_tiny_pipeline


def _clip(kind, width, act, tokenizer, projection=None):
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            hidden_act=act, projection_dim=projection or width,
        )
    )  # fmt: skip


def _vae(channels, quant=True):
    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=8,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, sample_size=16, use_quant_conv=quant,
        use_post_quant_conv=quant,
    )  # fmt: skip


def stable_diffusion_2() -> StableDiffusionPipeline:
    """With open_clip's text encoder, linear projections and v-prediction."""
    pipe = build_tiny_pipeline("v_prediction")
    pipe.register_modules(
        text_encoder=_clip(CLIPTextModel, 32, "gelu", pipe.tokenizer),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=8, cross_attention_dim=32,
            attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True,
        ),
    )  # fmt: skip
    return pipe


def stable_diffusion_xl(prediction_type: str = "epsilon") -> StableDiffusionXLPipeline:
    """Two text encoders of different widths, time ids; attention in the inner levels, as the original."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(16)
    return StableDiffusionXLPipeline(
        vae=_vae(4),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=8,
            cross_attention_dim=80, attention_head_dim=8, transformer_layers_per_block=(1, 1, 2),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 48,
        ),
        text_encoder=_clip(CLIPTextModel, 32, "quick_gelu", tokenizer),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 48, "gelu", tokenizer),
        tokenizer=tokenizer, tokenizer_2=tokenizer,
        scheduler=EulerDiscreteScheduler(prediction_type=prediction_type),
    )  # fmt: skip


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """Two joint blocks; T5, dual attention and normalised queries as the 3.5 models have them."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(16)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=80, caption_projection_dim=16, pooled_projection_dim=80, out_channels=16,
            pos_embed_max_size=8, dual_attention_layers=(0,), qk_norm="rms_norm",
        ),
        vae=_vae(16, quant=False),
        text_encoder=_clip(CLIPTextModelWithProjection, 32, "quick_gelu", tokenizer),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 48, "gelu", tokenizer),
        text_encoder_3=_t5(tokenizer),
        tokenizer=tokenizer, tokenizer_2=tokenizer, tokenizer_3=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def _t5(tokenizer):
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=80, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                 feed_forward_proj="gated-gelu", decoder_start_token_id=0)
    )  # fmt: skip


def flux() -> FluxPipeline:
    """Two double and two single blocks, with guidance."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(16)
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=80, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
        ),
        vae=_vae(4, quant=False),
        text_encoder=_clip(CLIPTextModel, 32, "quick_gelu", tokenizer),
        text_encoder_2=_t5(tokenizer),
        tokenizer=tokenizer, tokenizer_2=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


FAMILIES = {
    "sd1": build_tiny_pipeline,
    "sd2": stable_diffusion_2,
    "sdxl": stable_diffusion_xl,
    "sd3.5": stable_diffusion_3,
    "flux": flux,
}

"""Random pipelines of every family's real classes, small enough for a test: `build_family("flux")`."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from turpentine.pipeline.bundled.tiny_canvas.tokenizer import train_tokenizer

IMAGE = 16
"""Side of the images, in pixels; latents are 8x8."""
TOKENS = 77
"""Tokens that the text encoders read, as in published models: prompts of the templates fit."""


def tiny_vae(shift: float | None = None, channels: int = 4, quant: bool = True, **config) -> AutoencoderKL:
    return AutoencoderKL(
        **{
            "block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 4,
            "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": channels, "sample_size": IMAGE,
            "scaling_factor": 1.5, "shift_factor": shift, "use_quant_conv": quant, "use_post_quant_conv": quant,
            **config,
        }
    )  # fmt: skip


def tiny_clip(
    width: int, projected: bool, act: str = "quick_gelu", **config
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """OpenAI's text encoder with `quick_gelu`, open_clip's with `gelu`."""
    text = CLIPTextConfig(
        **{
            "vocab_size": len(train_tokenizer(TOKENS)), "hidden_size": width, "intermediate_size": 2 * width,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": TOKENS,
            "projection_dim": width, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "hidden_act": act,
            **config,
        }
    )  # fmt: skip
    return CLIPTextModelWithProjection(text) if projected else CLIPTextModel(text)


def tiny_t5(width: int) -> tuple[T5EncoderModel, T5Tokenizer]:
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁cat", -1.0), *letters]
    config = T5Config(
        vocab_size=len(vocab), d_model=width, d_ff=32, d_kv=8, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    return T5EncoderModel(config), T5Tokenizer(vocab=vocab, extra_ids=0)


def build_tiny_pipeline(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """A random StableDiffusionPipeline of real classes, small enough for a test."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TOKENS)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=8,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=16,
        ),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
            attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
            clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def build_sd2() -> StableDiffusionPipeline:
    """Stable Diffusion 2: open_clip's text encoder, linear projections and v-prediction."""
    pipeline = build_tiny_pipeline("v_prediction")
    pipeline.register_modules(
        text_encoder=tiny_clip(32, projected=False, act="gelu"),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=8, cross_attention_dim=32,
            attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True,
        ),
    )  # fmt: skip
    return pipeline


def build_sdxl(prediction_type: str = "epsilon") -> StableDiffusionXLPipeline:
    """Two text encoders of different widths, time ids; attention in the inner levels, as the original."""
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=8,
            cross_attention_dim=80, attention_head_dim=8, transformer_layers_per_block=(1, 1, 2),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=48 + 6 * 8,
        ),
        text_encoder=tiny_clip(32, projected=False), text_encoder_2=tiny_clip(48, projected=True, act="gelu"),
        tokenizer=train_tokenizer(TOKENS), tokenizer_2=train_tokenizer(TOKENS),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type,
        ),
    )  # fmt: skip


def build_sd3(t5: bool = True) -> StableDiffusion3Pipeline:
    """Two joint blocks; T5, dual attention and normalised queries as the 3.5 models have them."""
    torch.manual_seed(0)
    encoder, tokenizer = tiny_t5(96) if t5 else (None, None)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=96, caption_projection_dim=16, pooled_projection_dim=32 + 48, out_channels=4,
            pos_embed_max_size=8, dual_attention_layers=(0,), qk_norm="rms_norm",
        ),
        vae=tiny_vae(shift=0.25, quant=False),
        text_encoder=tiny_clip(32, projected=True), tokenizer=train_tokenizer(TOKENS),
        text_encoder_2=tiny_clip(48, projected=True, act="gelu"), tokenizer_2=train_tokenizer(TOKENS),
        text_encoder_3=encoder, tokenizer_3=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def build_flux(guidance_embeds: bool = True) -> FluxPipeline:
    """Two double and two single blocks; with guidance it is Flux dev, without it Flux schnell."""
    torch.manual_seed(0)
    encoder, tokenizer = tiny_t5(80)
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=80, pooled_projection_dim=32, axes_dims_rope=(2, 2, 4),
            guidance_embeds=guidance_embeds,
        ),
        vae=tiny_vae(shift=0.25, quant=False),
        text_encoder=tiny_clip(32, projected=False), tokenizer=train_tokenizer(TOKENS),
        text_encoder_2=encoder, tokenizer_2=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds,
        ),
    )  # fmt: skip


BUILDERS = {
    "sd1": build_tiny_pipeline,
    "sd2-v": build_sd2,
    "sdxl": build_sdxl,
    "sd3": build_sd3,
    "sd3-no-t5": lambda: build_sd3(t5=False),
    "flux-dev": build_flux,
    "flux-schnell": lambda: build_flux(guidance_embeds=False),
}


def build_family(name: str):
    """A pipeline of a family, always with the same weights, in evaluation mode as a loaded one."""
    pipeline = BUILDERS[name]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline

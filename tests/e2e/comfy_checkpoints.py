"""Checkpoints with random weights, of each class as small as ComfyUI takes one.

ComfyUI tells a class by some sizes, which are therefore the published ones: the widths of the text encoders
and of the prompts' embeddings, 320 channels in the first level of a UNet, heads of 64. Levels, blocks and
further channels are free.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from turpentine.pipeline.weights.layouts import Layout, denoiser_layout, open_clip_layout, text_encoder_layout

FAMILIES = ("sd15", "sd3", "sdxl")
STAND_INS = ("v1-5-pruned-emaonly-fp16", "sd_xl_base_1.0")
"""Checkpoints that the example workflows name; the tiny SD 1.5 stands for each."""
_BIG_G_LAYERS = 32


def sd15_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5: one level."""
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(320,), layers_per_block=1, cross_attention_dim=768, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn",
    )  # fmt: skip


def sd21_unet() -> UNet2DConditionModel:
    """Stable Diffusion 2.1: one level."""
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(320,), layers_per_block=1, cross_attention_dim=1024, attention_head_dim=5,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn", use_linear_projection=True,
    )  # fmt: skip


def sdxl_unet() -> UNet2DConditionModel:
    """Stable Diffusion XL: three levels of the same width, with the depths of Segmind-Vega."""
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(320, 320, 320), layers_per_block=2, cross_attention_dim=2048,
        attention_head_dim=5, transformer_layers_per_block=(1, 1, 2), use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )  # fmt: skip


def sd3_transformer() -> SD3Transformer2DModel:
    """Stable Diffusion 3: two joint blocks."""
    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=2, num_attention_heads=2,
        attention_head_dim=64, joint_attention_dim=4096, caption_projection_dim=128, pooled_projection_dim=2048,
        pos_embed_max_size=16,
    )  # fmt: skip


def clip_config(width: int, heads: int, layers: int, act: str = "quick_gelu") -> CLIPTextConfig:
    """Of a text encoder with the vocabulary and the context of OpenAI's CLIP."""
    return CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, hidden_act=act,
        num_attention_heads=heads, projection_dim=width, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip


def write_sd15(path: Path) -> None:
    """A whole checkpoint of Stable Diffusion 1.5's class."""
    torch.manual_seed(0)
    _write(path, _denoiser(sd15_unet()), _clip_l("cond_stage_model.transformer."), _vae(4))


def write_sdxl(path: Path) -> None:
    """A whole checkpoint of Stable Diffusion XL's class."""
    torch.manual_seed(0)
    _write(path, _denoiser(sdxl_unet()), _clip_l("conditioner.embedders.0.transformer."), _clip_g(), _vae(4))


def write_sd3(path: Path) -> None:
    """A whole checkpoint of Stable Diffusion 3's class, with one text encoder of three."""
    torch.manual_seed(0)
    _write(path, _denoiser(sd3_transformer()), _clip_l("text_encoders.clip_l.transformer."), _vae(16))


def _write(path: Path, *parts: Mapping[str, Tensor]) -> None:
    tensors = {name: tensor.half().contiguous() for part in parts for name, tensor in part.items()}
    save_file(tensors, path)


def _original(module: nn.Module, layout: Layout, prefix: str) -> dict[str, Tensor]:
    state = module.state_dict()
    return {prefix + name: entry.to_original(state) for name, entry in layout.items()}


def _denoiser(module: nn.Module) -> dict[str, Tensor]:
    return _original(module, denoiser_layout(module), "model.diffusion_model.")


def _clip_l(prefix: str) -> dict[str, Tensor]:
    encoder = CLIPTextModel(clip_config(768, 12, layers=12))
    return _original(encoder, text_encoder_layout(encoder), prefix)


def _clip_g() -> dict[str, Tensor]:
    """One layer, written as often as ComfyUI expects layers: making 32 takes longer than all tests on them."""
    encoder = CLIPTextModelWithProjection(clip_config(1280, 20, layers=1))
    made = _original(encoder, open_clip_layout(encoder), "conditioner.embedders.1.model.")
    return {
        name.replace(".resblocks.0.", f".resblocks.{layer}."): tensor.half().clone()
        for name, tensor in made.items()
        for layer in range(_BIG_G_LAYERS if ".resblocks.0." in name else 1)
    }


def _vae(channels: int) -> dict[str, Tensor]:
    """A decoder whose pictures are grey with contrast: with nearly black ones, rounding to 8 bits hides differences."""
    vae = AutoencoderTiny(latent_channels=channels)
    last = vae.decoder.layers[-1]
    with torch.no_grad():
        pixels = vae.decode(torch.randn(1, channels, 16, 16), return_dict=False)[0] / 2
        last.weight *= 0.2 / pixels.std()
        last.bias.fill_(0.5)
    tensors = {}
    for name, tensor in vae.state_dict().items():
        part, _, number, rest = name.split(".", 3)
        place = int(number) + (part == "decoder")  # the original decoder begins with a clamp
        tensors[f"first_stage_model.taesd_{part}.{place}.{rest}"] = tensor
    return tensors

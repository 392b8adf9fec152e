"""Configurations of denoisers, translated from ComfyUI's words to diffusers'."""

from collections.abc import Mapping
from typing import Any

XL_CONDITION = 2816
"""Width of SDXL's extra condition: the pooled prompt (1280) and six embedded numbers (256 each)."""


def unet_config(found: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Arguments of diffusers' `UNet2DConditionModel`.

    Args:
        found: ComfyUI's `model_config.unet_config` of a Stable Diffusion 1.x, 2.x or XL model.
        image_size: side in pixels of the pictures that it draws, a multiple of 8.
    """
    channels = [found["model_channels"] * multiple for multiple in found["channel_mult"]]
    blocks = list(found["num_res_blocks"])
    down = _levels(found["transformer_depth"], blocks)
    up = _levels(found["transformer_depth_output"], [count + 1 for count in blocks])
    heads: Any = found.get("num_heads", -1)
    if found.get("num_head_channels", -1) != -1:
        heads = [width // found["num_head_channels"] for width in channels]
    extra = {}
    if found.get("adm_in_channels") == XL_CONDITION:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": XL_CONDITION,
        }
    return {
        "sample_size": image_size // 8,
        "in_channels": found["in_channels"],
        "out_channels": found["out_channels"],
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if any(level) else "DownBlock2D" for level in down],
        "up_block_types": ["CrossAttnUpBlock2D" if any(level) else "UpBlock2D" for level in reversed(up)],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "transformer_layers_per_block": [max(1, *level) for level in down],
        "cross_attention_dim": found["context_dim"],
        "attention_head_dim": heads,
        "use_linear_projection": found.get("use_linear_in_transformer", False),
        **extra,
    }


def mmdit_config(found: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Arguments of diffusers' `SD3Transformer2DModel`; it has as many heads as blocks, each 64 wide.

    Args:
        found: ComfyUI's `model_config.unet_config` of a Stable Diffusion 3.x model.
        image_size: side in pixels of the pictures that it draws, a multiple of 16.
    """
    text = found["context_embedder_config"]["params"]
    return {
        "sample_size": image_size // 8,
        "patch_size": found["patch_size"],
        "in_channels": found["in_channels"],
        "out_channels": found["out_channels"],
        "num_layers": found["depth"],
        "num_attention_heads": found["depth"],
        "attention_head_dim": 64,
        "joint_attention_dim": text["in_features"],
        "caption_projection_dim": text["out_features"],
        "pooled_projection_dim": found["adm_in_channels"],
        "pos_embed_max_size": found["pos_embed_max_size"],
        "dual_attention_layers": tuple(found["x_block_self_attn_layers"]),
        "qk_norm": "rms_norm" if found.get("qk_norm") else None,
    }


def _levels(depths: Any, counts: list[int]) -> list[list[int]]:
    """Split the transformer depths of all blocks into those of each level."""
    starts = [sum(counts[:level]) for level in range(len(counts))]
    return [list(depths[start : start + count]) for start, count in zip(starts, counts, strict=True)]

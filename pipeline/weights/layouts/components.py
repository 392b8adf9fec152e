"""The layout of a given network: its table, chosen by class and filled in from its config."""

from typing import Any

from torch import nn

from ...support.errors import UserError
from .table import Layout, Unmapped, build_layout
from .tables import CLIP, FLUX, mmdit_rows, open_clip_rows, unet_rows, vae_rows


def denoiser_layout(module: nn.Module) -> Layout:
    """The original layout of a UNet or transformer, without a prefix.

    Raises:
        UserError: a class that has no table, or a network with parts that its original never had.
    """
    kind, config = type(module).__name__, getattr(module, "config", None)
    if kind == "UNet2DConditionModel":
        rows: Any = unet_rows(_layers(config), ["Attn" in block for block in config.up_block_types])  # type: ignore[union-attr]
    elif kind == "SD3Transformer2DModel":
        rows = mmdit_rows(config.num_layers)  # type: ignore[union-attr]
    elif kind == "FluxTransformer2DModel":
        rows = FLUX
    else:
        raise UserError(
            "expected a UNet2DConditionModel, SD3Transformer2DModel or FluxTransformer2DModel for the names of the "
            f"original layout, got {kind}. Choose the formats diffusers, denoiser or lora_diffusers."
        )
    return _build(module, rows, "denoiser")


def _layers(config: Any) -> list[int]:
    levels = len(config.down_block_types)
    layers = config.layers_per_block
    return [layers] * levels if isinstance(layers, int) else list(layers)


def vae_layout(vae: nn.Module) -> Layout:
    """The original layout of an `AutoencoderKL`, without a prefix.

    Raises:
        UserError: another class of autoencoder.
    """
    if type(vae).__name__ != "AutoencoderKL":
        raise UserError(
            f"single_file needs an AutoencoderKL, and this model has an {type(vae).__name__}, for which checkpoints "
            "have no place. Choose the formats diffusers, denoiser, lora, lora_diffusers or delta."
        )
    return _build(vae, vae_rows(len(vae.config.up_block_types)), "autoencoder")  # type: ignore[union-attr, arg-type]


def text_encoder_layout(encoder: nn.Module) -> Layout:
    """A text encoder under transformers' names: CLIP's with `text_model`, T5's as they are."""
    is_clip = type(encoder).__name__.startswith("CLIP")
    return _build(encoder, CLIP if is_clip else (("**", "**"),), "text encoder")


def open_clip_layout(encoder: nn.Module) -> Layout:
    """A CLIP text encoder under open_clip's names, q, k and v in one tensor."""
    prefix = "text_model." if any(name.startswith("text_model.") for name in encoder.state_dict()) else ""
    return _build(encoder, open_clip_rows(prefix), "text encoder")


def _build(module: nn.Module, rows: Any, what: str) -> Layout:
    names = [name for name in module.state_dict() if not name.endswith("position_ids")]
    try:
        return build_layout(names, rows)
    except Unmapped as error:
        raise UserError(
            f"the {what} has {error}, for which the original layout of its class has no place. Choose the formats "
            "diffusers, denoiser or lora_diffusers."
        ) from None

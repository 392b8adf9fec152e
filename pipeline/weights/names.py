"""The names that kohya's LoRA files give to layers, which the formats `lora` and `delta` have in common."""

from torch import nn

from ..models.registry import family_of

KOHYA = "lora_unet_"
"""Stands before the name of every layer, dots turned into underscores."""


def names_are_diffusers(module: nn.Module) -> bool:
    """Tell whether kohya's files name this network's layers as diffusers does (Stable Diffusion 1 and 2)."""
    family = family_of(module)
    return family is not None and family.lora_names == "diffusers"


def kohya_name(layer: str) -> str:
    """The layer's name in kohya's files.

    >>> kohya_name("mid_block.attentions.0.proj_in")
    'lora_unet_mid_block_attentions_0_proj_in'
    """
    return KOHYA + layer.replace(".", "_")

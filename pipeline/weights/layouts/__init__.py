"""How the tensors of diffusers models are named and stored in the checkpoints that the models came in."""

from .components import component_layout, denoiser_layout, open_clip_layout, text_encoder_layout, vae_layout
from .table import Entry, Layout, Unmapped, build_layout

__all__ = [
    "Entry",
    "Layout",
    "Unmapped",
    "build_layout",
    "component_layout",
    "denoiser_layout",
    "open_clip_layout",
    "text_encoder_layout",
    "vae_layout",
]

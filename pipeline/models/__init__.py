"""Model families: one adapter file each, chosen from the pipeline's class."""

from .load import ASSETS, BUNDLED, choose_device, class_names, load_denoiser
from .protocol import Conditioning, Denoiser
from .registry import ADAPTERS, wrap_pipeline

__all__ = [
    "ADAPTERS",
    "ASSETS",
    "BUNDLED",
    "Conditioning",
    "Denoiser",
    "choose_device",
    "class_names",
    "load_denoiser",
    "wrap_pipeline",
]

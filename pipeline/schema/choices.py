"""Choices that a recipe offers by name and other folders carry out. Nothing else is imported here."""

from typing import TYPE_CHECKING, Literal

from ..maths.choices import GradientKeeping, TrainableParameters

ImageTransform = Literal["validation", "paper"]
"""What a CLIP model is shown of a picture: as it is meant to be used, or open_clip's random crops of training."""

AdapterTargets = Literal["attention", "all"]
"""Which layers a LoRA is put beside: the attention's linear layers, or all linear and convolution ones."""

WEIGHT_FORMATS = {
    "diffusers": "the whole pipeline folder",
    "denoiser": "the UNet or transformer alone",
    "single_file": "a checkpoint for ComfyUI and A1111",
    "lora": "a low-rank change, for ComfyUI and A1111",
    "lora_diffusers": "a low-rank change, for diffusers",
    "delta": "the whole change",
}
"""Formats that weights are written in, and what each is; the file of that name in `weights.formats` writes it."""

if TYPE_CHECKING:
    WeightFormat = str
else:
    WeightFormat = Literal[tuple(WEIGHT_FORMATS)]

__all__ = [
    "WEIGHT_FORMATS",
    "AdapterTargets",
    "GradientKeeping",
    "ImageTransform",
    "TrainableParameters",
    "WeightFormat",
]

"""Choices that a recipe offers by name and other folders carry out. Nothing else is imported here."""

from typing import Literal

from ..maths.choices import GradientKeeping, TrainableParameters

AdapterTargets = Literal["attention", "all"]
"""Which layers a LoRA is put beside: the attention's linear layers, or all linear and convolution ones."""

WeightFormat = Literal["diffusers", "denoiser", "single_file", "lora", "lora_diffusers", "delta"]
"""Formats that weights are written in; see `weights.formats`."""

__all__ = ["AdapterTargets", "GradientKeeping", "TrainableParameters", "WeightFormat"]

"""Choices that the formulas offer by name. Nothing is imported here, so that a schema can name them."""

from typing import Literal

TrainableParameters = Literal["full", "xattn", "noxattn", "lora"]
"""Which weights train; see `parameters.select_parameters`."""

GradientKeeping = Literal["whole", "bf16", "cpu"]
"""How the forget gradient waits for the retain one: as it is, rounded to bf16, or on the CPU."""

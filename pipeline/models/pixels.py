"""From a model's numbers to pictures: nothing that is not a number becomes a pixel.

The rule: latents are looked at as soon as a batch is drawn, and pictures before they are rounded; what is not a
number (NaN) or infinite stops the work with its most likely cause, since its cast to whole numbers would be a black
picture that looks like one.
"""

from typing import Any

import torch
from torch import Tensor

from ..support.errors import UserError


def to_pixels(images: Tensor, maker: str = "the model") -> Tensor:
    """[-1, 1], (N, C, H, W), to uint8 RGB, (N, H, W, 3), on the CPU.

    Raises:
        UserError: values that are no numbers; `maker` is who made them.
    """
    _refuse(images, maker, "Its weights or its inputs overflow: try other weights for it, made for float32.")
    pixels = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()


def check_latents(latents: Tensor, pipeline: Any, component: str) -> None:
    """Refuse latents, (N, C, h, w), that hold anything but numbers.

    Args:
        latents: as a pipeline has just drawn them.
        pipeline: with the scheduler that drew them.
        component: the network that drew them.

    Raises:
        UserError: which is the cause, as far as it can be told.
    """
    config = pipeline.scheduler.config
    sampler = type(pipeline.scheduler).__name__
    if config.get("rescale_betas_zero_snr") and config.get("prediction_type") == "epsilon":
        cause = (
            f"{sampler} has rescale_betas_zero_snr, which divides by zero where a model predicts the noise (epsilon). "
            "Set rescale_betas_zero_snr to false in scheduler/scheduler_config.json, or prediction_type to what the "
            "model predicts."
        )
    else:
        cause = (
            f"Either {sampler} divides by zero with these settings (try --scheduler dpm-solver++ or more steps), or "
            f"the {component} overflows: if it draws in half precision, set sample_precision to fp32; if it has just "
            "been trained, lower the learning rate or set a forget limit."
        )
    _refuse(latents, f"the {component}", cause)


def _refuse(values: Tensor, maker: str, cause: str) -> None:
    good = values.isfinite().flatten(1).all(1)
    if not good.all():
        raise UserError(
            f"expected numbers from {maker}, got NaN (not a number) or infinity in {int((~good).sum())} of {len(good)} "
            f"images. {cause}"
        )

"""Drawing prompts with a model, each with the seed and guidance that its source says to use."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.samples import draw_latents
from ..models import Denoiser, Sampling
from ..prompts import EvaluationPrompt
from ..support.progress import Progress


def generate(
    denoiser: Denoiser, rows: Sequence[EvaluationPrompt], sampling: Sampling, seed: int, progress: Progress
) -> np.ndarray:
    """Draw one image for each row.

    Args:
        denoiser: the model.
        rows: prompts; their own seeds and guidance win over the next two arguments.
        sampling: how to draw.
        seed: image i has the seed `seed` + i where its row names none.
        progress: told about each image.

    Returns:
        uint8 RGB, (N, H, W, 3), in the order of `rows`.

    Raises:
        UserError: an image size or a guidance scale that the model can't draw with; nothing is drawn then.
    """
    scales = [sampling.guidance_scale if row.guidance_scale is None else row.guidance_scale for row in rows]
    seeds = [seed + index if row.seed is None else row.seed for index, row in enumerate(rows)]
    for scale in dict.fromkeys(scales):
        denoiser.check_sampling(replace(sampling, guidance_scale=scale))
    drawn: dict[int, np.ndarray] = {}
    for scale in dict.fromkeys(scales):
        places = [index for index, own in enumerate(scales) if own == scale]
        latents = draw_latents(
            denoiser,
            [rows[index].prompt for index in places],
            replace(sampling, guidance_scale=scale),
            [seeds[index] for index in places],
            progress,
            "drawing",
        )
        drawn |= dict(zip(places, denoiser.decode(latents).numpy(), strict=True))
    return np.stack([drawn[index] for index in range(len(rows))])

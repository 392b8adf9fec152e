"""Redirect: let the model draw for a forget prompt what it draws for the prompt's anchor.

    L_f = E || e(x_t, t, c_f) - sg e(x_t, t, c_a) ||^2

with x_t a noised forget image, c_f its prompt and c_a the anchor: the paired retain prompt, or what the user
wants in the concept's place. `sg` stops the gradient: the target is what the model itself predicts now. The loss
is bounded below, so it needs no limit, and style, place and everything else that both prompts share stays.
The same distance relabels the forget images of SalUn (Fan et al. 2024, Section 4.2) and of concept ablation
(Kumari et al. 2023, "Ablating Concepts", Eq. 4).
"""

import torch
from torch import Tensor

from ..maths.objectives import denoising_loss
from ..models.protocol import Denoiser
from .base import Batch


def redirect_loss(denoiser: Denoiser, batch: Batch) -> Tensor:
    """L_f of a batch of forget images, weighted over timesteps as the model's own loss is; a scalar."""
    noisy = denoiser.objective.add_noise(batch.samples, batch.noise, batch.timesteps)
    with torch.no_grad():
        target = denoiser.predict(noisy, batch.timesteps, batch.paired_conditioning)
    prediction = denoiser.predict(noisy, batch.timesteps, batch.conditioning)
    return denoising_loss(prediction, target, denoiser.objective.weight(batch.timesteps))

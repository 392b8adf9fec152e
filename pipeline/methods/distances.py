"""Distances between two predictions: what redirects a forget prompt, and what holds a retain prompt.

Redirect: let the model draw for a forget prompt what it draws for the prompt's anchor.

    L_f = E || e(x_t, t, c_f) - sg e(x_t, t, c_a) ||^2

with x_t a noised forget image, c_f its prompt and c_a the anchor: the paired retain prompt, or what the user
wants in the concept's place. `sg` stops the gradient: the target is what the model itself predicts now. The loss
is bounded below, so it needs no limit, and style, place and everything else that both prompts share stays.
Redirect's distance also relabels the forget images of SalUn (Fan et al. 2024, Section 4.2) and of concept ablation
(Kumari et al. 2023, "Ablating Concepts", Eq. 4).

Distil: hold on retain images what the model predicted for them when it came in,

    L_r = E || e(x_t, t, c_r) - e*(x_t, t, c_r) ||^2.

It is zero at the start and has no noise of its own, while the denoising loss pulls towards the model's own guided
pictures, sample by sample.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..maths.objectives import denoising_loss
from ..models.protocol import Conditioning, Denoiser
from .base import Batch
from .teacher import Teacher


def redirect_loss(denoiser: Denoiser, batch: Batch) -> Tensor:
    """L_f of a batch of forget images, weighted over timesteps as the model's own loss is; a scalar."""
    return _distance(denoiser, batch, batch.anchor)


def distillation_loss(denoiser: Denoiser, batch: Batch, teacher: Teacher) -> Tensor:
    """L_r of a batch of retain images, weighted likewise; a scalar."""
    return _distance(denoiser, batch, batch.conditioning, teacher)


def _distance(
    denoiser: Denoiser, batch: Batch, conditioning: Conditioning, teacher: AbstractContextManager[None] | None = None
) -> Tensor:
    """From the prediction of a batch to that of other conditioning or weights, which is taken as fixed."""
    noisy = denoiser.objective.add_noise(batch.samples, batch.noise, batch.timesteps)
    with torch.no_grad(), teacher or nullcontext():
        target = denoiser.predict(noisy, batch.timesteps, conditioning)
    prediction = denoiser.predict(noisy, batch.timesteps, batch.conditioning)
    return denoising_loss(prediction, target, denoiser.objective.weight(batch.timesteps))

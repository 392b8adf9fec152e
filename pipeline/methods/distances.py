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

from contextlib import nullcontext

import torch
from torch import Tensor

from ..maths.objectives import denoising_loss
from ..models.protocol import Denoiser
from .base import Batch
from .teacher import Teacher


def redirect_loss(denoiser: Denoiser, batch: Batch, teacher: Teacher | None = None, push: float = 0.0) -> Tensor:
    """L_f of a batch of forget images, weighted over timesteps as the model's own loss is; a scalar.

    Args:
        denoiser: the model as it is now.
        batch: of forget images, with their anchors.
        teacher: the original, if its predictions are the target.
        push: eta >= 0. The target is e(x_t, c_a) - eta (e(x_t, c_f) - e(x_t, c_a)): beyond the anchor, away from the
            concept, as ESD's target is beyond the empty prompt (Gandikota et al. 2023, Eq. 7). Needs the teacher.
    """
    noisy = denoiser.objective.add_noise(batch.samples, batch.noise, batch.timesteps)
    with torch.no_grad(), teacher or nullcontext():
        target = denoiser.predict(noisy, batch.timesteps, batch.anchor)
        if push:
            target = target - push * (denoiser.predict(noisy, batch.timesteps, batch.conditioning) - target)
    return _distance(denoiser, batch, noisy, target)


def distillation_loss(denoiser: Denoiser, batch: Batch, teacher: Teacher) -> Tensor:
    """L_r of a batch of retain images, weighted likewise; a scalar."""
    noisy = denoiser.objective.add_noise(batch.samples, batch.noise, batch.timesteps)
    with torch.no_grad(), teacher:
        target = denoiser.predict(noisy, batch.timesteps, batch.conditioning)
    return _distance(denoiser, batch, noisy, target)


def _distance(denoiser: Denoiser, batch: Batch, noisy: Tensor, target: Tensor) -> Tensor:
    """From what the model predicts for a noised batch to a target."""
    prediction = denoiser.predict(noisy, batch.timesteps, batch.conditioning)
    return denoising_loss(prediction, target, denoiser.objective.weight(batch.timesteps))

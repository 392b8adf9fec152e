"""Samplers of our own: Heun's second-order method for EDM models (Karras et al. 2022)."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def karras_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels t_0 > ... > t_(N-1), and t_N = 0 (Eq. 5), shape (steps + 1,), float64.

    t_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
    """
    share = torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + share * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


AfterStep = Callable[[int, float, Tensor], Tensor]
"""Given the number of a step, the sigma that it started from and its samples; gives the samples to go on with."""


def heun(
    denoise: Callable[[Tensor, float], Tensor], noise: Tensor, sigmas: Tensor, after_step: AfterStep | None = None
) -> Tensor:
    """Solve the probability flow ODE dx = (x - D(x; sigma)) / sigma dsigma (Algorithm 1).

    Each step is Euler's, corrected by the slope at its end (the trapezoidal rule), save the last one
    to sigma = 0, where there is no slope.

    Args:
        denoise: D(x; sigma).
        noise: standard normal, (B, C, H, W).
        sigmas: as `karras_sigmas` gives them.
        after_step: called after each step.

    Returns:
        Clean samples, like `noise`.
    """
    levels = sigmas.tolist()
    samples = levels[0] * noise
    for step, (now, after) in enumerate(pairwise(levels)):
        slope = (samples - denoise(samples, now)) / now
        euler = samples + (after - now) * slope
        if after == 0:
            samples = euler
        else:
            corrected = (euler - denoise(euler, after)) / after
            samples = samples + (after - now) * (slope + corrected) / 2
        if after_step:
            samples = after_step(step, now, samples)
    return samples

"""Noising, target and loss, one class per prediction type.

Conventions: `samples` are clean latents of shape (B, C, H, W) at the scale that the denoiser was
trained on, `noise` is standard normal, `timesteps` are whole numbers in
[0, num_train_timesteps), 0 = nearly clean. Weighting is the uniform one of DDPM training
("simple loss", Ho et al. 2020, Eq. 14).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Objective(ABC):
    """What a denoiser was trained to predict, and how its input is made noisy.

    Attributes:
        num_train_timesteps: one more than the noisiest timestep.
    """

    num_train_timesteps: int = 1000

    @abstractmethod
    def sample_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw training timesteps, shape (count,), on the generator's device."""

    @abstractmethod
    def add_noise(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy samples, same shape as `samples`."""

    @abstractmethod
    def target(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should predict, same shape as `samples`."""

    def estimate(self, prediction: Tensor, noisy_samples: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The clean samples and the noise that a prediction stands for; the inverse of `target`.

        Noising and target are linear in both, x_t = a x_0 + s eps and y = p x_0 + q eps, so they are
        the solution of two equations for any objective, with a, s, p and q read off its own methods.

        Args:
            prediction: y, (B, ...).
            noisy_samples: x_t, same shape.
            timesteps: (B,).
        """
        one = noisy_samples.new_ones(len(noisy_samples), *[1] * (noisy_samples.ndim - 1))
        zero = torch.zeros_like(one)
        a, s = self.add_noise(one, zero, timesteps), self.add_noise(zero, one, timesteps)
        p, q = self.target(one, zero, timesteps), self.target(zero, one, timesteps)
        determinant = a * q - s * p
        samples = (q * noisy_samples - s * prediction) / determinant
        return samples, (a * prediction - p * noisy_samples) / determinant

    def denoise(self, prediction: Tensor, noisy_samples: Tensor, timesteps: Tensor, to: Tensor) -> Tensor:
        """One deterministic step to less noisy timesteps: DDIM (Song et al. 2021, Eq. 12 with sigma = 0).

        With a flow this is the Euler step of its equation.

        Args:
            prediction: the model's output at `timesteps`, (B, ...).
            noisy_samples: x_t, same shape.
            timesteps: t, (B,).
            to: where to step, (B,).
        """
        samples, noise = self.estimate(prediction, noisy_samples, timesteps)
        return self.add_noise(samples, noise, to)

    def weight(self, timesteps: Tensor) -> Tensor:
        """Weight of each sample's loss, shape (B,)."""
        return torch.ones_like(timesteps, dtype=torch.float32)


class DiscreteDiffusion(Objective):
    """Variance-preserving diffusion on a table of alpha-bar: x_t = sqrt(a) x_0 + sqrt(1 - a) eps.

    Args:
        alphas_cumprod: alpha-bar_t, shape (T,), in (0, 1), falling.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod = alphas_cumprod.double()
        self.num_train_timesteps = len(alphas_cumprod)

    def sample_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform over the table."""
        return torch.randint(0, len(self.alphas_cumprod), (count,), generator=generator, device=generator.device)

    def _signal_and_noise(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod.to(timesteps.device)[timesteps].reshape(-1, *[1] * (like.ndim - 1))
        return alpha.sqrt().to(like.dtype), (1 - alpha).sqrt().to(like.dtype)

    def add_noise(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Ho et al. 2020, Eq. 4."""
        signal, scale = self._signal_and_noise(timesteps, samples)
        return signal * samples + scale * noise


class Epsilon(DiscreteDiffusion):
    """Predicts the noise (Ho et al. 2020)."""

    def target(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise itself."""
        return noise


class VPrediction(DiscreteDiffusion):
    """Predicts v = sqrt(a) eps - sqrt(1 - a) x_0 (Salimans and Ho 2022, Section 4)."""

    def target(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The velocity."""
        signal, scale = self._signal_and_noise(timesteps, samples)
        return signal * noise - scale * samples


def objective_from_scheduler(config: Mapping[str, Any], alphas_cumprod: Tensor) -> Objective:
    """Choose the objective that a diffusers scheduler stands for.

    Raises:
        ValueError: a prediction type without an objective here.
    """
    kinds = {"epsilon": Epsilon, "v_prediction": VPrediction}
    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in kinds:
        raise ValueError(f"prediction_type must be one of {sorted(kinds)}, got {prediction_type!r} from the scheduler.")
    return kinds[prediction_type](alphas_cumprod)


def denoising_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error over the batch, in float32; a scalar.

    Args:
        prediction: model output, (B, ...).
        target: same shape.
        weight: (B,).
    """
    error = (prediction.float() - target.float()).square().flatten(1).mean(1)
    return (weight * error).mean()


def truncate(loss: Tensor, limit: float | None) -> Tensor:
    """min(loss, alpha): above the limit the gradient is exactly zero, so forgetting has an end.

    Give a scalar to truncate per batch (Stable Diffusion), or element-wise losses to truncate each
    element (class-conditional models, Ko et al. 2024, Appendix C).
    """
    return loss if limit is None else loss.clamp(max=limit)

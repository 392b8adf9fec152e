"""Noising, target and loss, one class per prediction type.

Conventions: `samples` are clean latents of shape (B, C, H, W) at the scale that the denoiser was
trained on, `noise` is standard normal, `timesteps` say how noisy: of diffusion they are whole
numbers in [0, num_train_timesteps), 0 = nearly clean; of flow matching they are floats in
(0, num_train_timesteps], sigma times num_train_timesteps. Weighting is uniform: the "simple loss" of
DDPM (Ho et al. 2020, Eq. 14), and of rectified flow, where the density of the timesteps does the
weighting (Esser et al. 2024, Section 3.1).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
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

    def for_size(self, height: int, width: int) -> "Objective":
        """The objective for latents of this size; the same one unless its timesteps depend on it."""
        return self


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


class FlowMatching(Objective):
    """Rectified flow: x_t = (1 - sigma) x_0 + sigma eps (Esser et al. 2024, Eq. 13).

    Sigmas are drawn as diffusers' training scripts for SD3 and Flux draw them: a logit-normal place
    u in the table 1, 1 - 1/T, …, 1/T, then shifted towards noise for large images.

    Args:
        shift: alpha of Esser et al. 2024, Eq. 23; 1 leaves the table as it is.
        num_train_timesteps: T.
        shift_for: gives the shift for latents of a height and width, where it depends on them.
        logit_mean: m of the logit-normal density.
        logit_std: s of the logit-normal density.
    """

    def __init__(
        self,
        shift: float = 1.0,
        num_train_timesteps: int = 1000,
        shift_for: Callable[[int, int], float] | None = None,
        logit_mean: float = 0.0,
        logit_std: float = 1.0,
    ) -> None:
        self.shift, self.num_train_timesteps, self.shift_for = shift, num_train_timesteps, shift_for
        self.logit_mean, self.logit_std = logit_mean, logit_std

    def for_size(self, height: int, width: int) -> "FlowMatching":
        """See `Objective.for_size`."""
        if self.shift_for is None:
            return self
        shift = self.shift_for(height, width)
        return FlowMatching(shift, self.num_train_timesteps, self.shift_for, self.logit_mean, self.logit_std)

    def sample_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Logit-normal (Esser et al. 2024, Eq. 19), then shifted (Eq. 23); float32 in (0, T]."""
        normal = torch.normal(self.logit_mean, self.logit_std, (count,), generator=generator, device=generator.device)
        place = (torch.sigmoid(normal) * self.num_train_timesteps).floor()
        sigma = 1 - place / self.num_train_timesteps
        sigma = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        return sigma * self.num_train_timesteps

    def add_noise(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Esser et al. 2024, Eq. 13."""
        sigma = timesteps.reshape(-1, *[1] * (samples.ndim - 1)).to(samples.dtype) / self.num_train_timesteps
        return (1 - sigma) * samples + sigma * noise

    def target(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The velocity d x_t / d sigma = eps - x_0, the same at every sigma."""
        return noise - samples


def flow_matching_from_scheduler(config: Mapping[str, Any], patch_size: int) -> FlowMatching:
    """Choose shift and table as a diffusers flow-matching scheduler has them.

    Args:
        config: of a `FlowMatchEulerDiscreteScheduler`.
        patch_size: side of the square of latents that makes one token; with dynamic shifting the
            shift grows with the number of tokens, log-linearly.
    """
    if not config.get("use_dynamic_shifting"):
        return FlowMatching(config.get("shift", 1.0), config["num_train_timesteps"])
    low, high = config["base_image_seq_len"], config["max_image_seq_len"]
    exponential = config.get("time_shift_type", "exponential") == "exponential"

    def shift_for(height: int, width: int) -> float:
        tokens = (height // patch_size) * (width // patch_size)
        slope = (config["max_shift"] - config["base_shift"]) / (high - low)
        mu = config["base_shift"] + slope * (tokens - low)
        return math.exp(mu) if exponential else mu

    largest = math.isqrt(high) * patch_size
    return FlowMatching(1.0, config["num_train_timesteps"], shift_for).for_size(largest, largest)


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

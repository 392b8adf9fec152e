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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .double import double


@dataclass(frozen=True)
class Truncated:
    """A forget loss with its limit.

    Attributes:
        loss: the limited loss, a scalar; differentiable.
        denoising: the loss without the limit, detached.
        above_limit: share of what the limit looks at (the batch, its samples or its elements) that is above it.
        of_batch: whether the limit is of the mean over a whole batch, of which this may be a part. Then `loss` is
            without the limit: where the mean over all parts is above it, all of the gradient is to be dropped.
    """

    loss: Tensor
    denoising: Tensor
    above_limit: float
    of_batch: bool = False


class Objective(ABC):
    """The target that a denoiser was trained to predict, and the noising of its input.

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
        """The prediction of a perfect model, same shape as `samples`."""

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

    def way_down(self, end: float, steps: int) -> Tensor:
        """The timesteps of a drawing that starts from pure noise and stops at `end`, (n + 1,) float64, falling.

        Args:
            end: the last one.
            steps: n of a whole drawing, which ends at 0; a shorter one has its share of them, evenly spaced.
        """
        noisiest = self.num_train_timesteps - 1
        return torch.linspace(noisiest, end, _share_of(steps, noisiest, end) + 1, dtype=torch.float64)

    def pure_noise(self, noise: Tensor, timestep: float) -> Tensor:
        """What a drawing starts from at `timestep`, the first of `way_down`, given standard normal noise."""
        return noise

    def weight(self, timesteps: Tensor) -> Tensor:
        """Weight of each sample's loss, shape (B,)."""
        return torch.ones_like(timesteps, dtype=torch.float32)

    def for_size(self, height: int, width: int) -> "Objective":
        """The objective for latents of this size; the same one unless its timesteps depend on it."""
        return self

    def sample_losses(self, prediction: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """The weighted mean squared error of each sample, (B,), to compare with a limit of its own."""
        return self.weight(timesteps) * _sample_errors(prediction, target)

    def truncated_loss(
        self,
        prediction: Tensor,
        target: Tensor,
        timesteps: Tensor,
        limit: float | Tensor | None,
    ) -> Truncated:
        """min(loss, alpha) of the batch's loss: above the limit the whole step has no forget gradient.

        With limits (B,) it is the mean of min(loss, alpha) over the samples: a step goes on pushing those
        that are below their own limit. One number is a limit `of_batch`, see `Truncated`.
        """
        if isinstance(limit, Tensor):
            losses = self.sample_losses(prediction, target, timesteps)
            return Truncated(truncate(losses, limit).mean(), losses.mean().detach(), _share_above(losses, limit))
        loss = denoising_loss(prediction, target, self.weight(timesteps))
        return Truncated(loss, loss.detach(), float(limit is not None and loss.item() > limit), limit is not None)


class DiscreteDiffusion(Objective):
    """Variance-preserving diffusion on a table of alpha-bar: x_t = sqrt(a) x_0 + sqrt(1 - a) eps.

    Args:
        alphas_cumprod: alpha-bar_t, shape (T,), in (0, 1), falling.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod = double(alphas_cumprod)
        self.num_train_timesteps = len(alphas_cumprod)

    def sample_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform over the table."""
        return torch.randint(0, len(self.alphas_cumprod), (count,), generator=generator, device=generator.device)

    def _signal_and_noise(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas, shape = self.alphas_cumprod, (-1, *[1] * (like.ndim - 1))
        tables = (table.sqrt().to(like.dtype).to(timesteps.device) for table in (alphas, 1 - alphas))
        signal, scale = (table[timesteps].reshape(shape) for table in tables)
        return signal, scale

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
        """The same flow, with the shift of timesteps that a latent of this size trains with."""
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


class EDM(Objective):
    """Predicts the clean image through a preconditioned network (Karras et al. 2022, "EDM").

    Here `timesteps` are the noise levels sigma themselves, positive floats of shape (B,), and the
    prediction is the denoiser's output D, not the raw network's F.

    Args:
        sigma_data: standard deviation of the training data.
        p_mean: mean of ln sigma in training.
        p_std: its standard deviation.
        sigma_max: where drawing starts.
        rho: steps of a drawing are evenly spaced in sigma^(1/rho) (Eq. 5).
    """

    def __init__(
        self,
        sigma_data: float = 0.5,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        sigma_max: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        self.sigma_data, self.p_mean, self.p_std = sigma_data, p_mean, p_std
        self.sigma_max, self.rho = sigma_max, rho

    def sample_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ln sigma ~ N(p_mean, p_std^2) (Table 1, "Noise distribution")."""
        normal = torch.randn(count, generator=generator, device=generator.device)
        return (self.p_mean + self.p_std * normal).exp()

    def add_noise(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noisy image y + n, n ~ N(0, sigma^2 I) (Eq. 2)."""
        return samples + _like(timesteps, samples) * noise

    def target(self, samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The clean image y (Eq. 2)."""
        return samples

    def way_down(self, end: float, steps: int) -> Tensor:
        """The sigmas from sigma_max to `end`, spaced as Eq. 5 has them; `end` alone where it is above sigma_max."""
        high, low = max(self.sigma_max, end) ** (1 / self.rho), end ** (1 / self.rho)
        sigmas = torch.linspace(high, low, _share_of(steps, high, low) + 1, dtype=torch.float64) ** self.rho
        sigmas[-1] = end
        return sigmas

    def pure_noise(self, noise: Tensor, timestep: float) -> Tensor:
        """N(0, sigma^2 I), beside which the image is nothing (Algorithm 1, line 2)."""
        return timestep * noise

    def weight(self, timesteps: Tensor) -> Tensor:
        """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Table 1, "Loss weighting")."""
        return (timesteps.square() + self.sigma_data**2) / (timesteps * self.sigma_data).square()

    def c_skip(self, sigmas: Tensor) -> Tensor:
        """sigma_data^2 / (sigma^2 + sigma_data^2) (Table 1, "Skip scaling")."""
        return self.sigma_data**2 / (sigmas.square() + self.sigma_data**2)

    def c_out(self, sigmas: Tensor) -> Tensor:
        """Give sigma sigma_data / (sigma^2 + sigma_data^2)^(1/2) (Table 1, "Output scaling")."""
        return sigmas * self.sigma_data / (sigmas.square() + self.sigma_data**2).sqrt()

    def c_in(self, sigmas: Tensor) -> Tensor:
        """1 / (sigma^2 + sigma_data^2)^(1/2) (Table 1, "Input scaling")."""
        return (sigmas.square() + self.sigma_data**2).rsqrt()

    def c_noise(self, sigmas: Tensor) -> Tensor:
        """Give ln(sigma) / 4 (Table 1, "Noise cond.")."""
        return sigmas.log() / 4

    def precondition(
        self, network: Callable[[Tensor, Tensor], Tensor], noisy_samples: Tensor, sigmas: Tensor
    ) -> Tensor:
        """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Eq. 7).

        Args:
            network: F, from scaled samples and c_noise of shape (B,).
            noisy_samples: x, (B, C, H, W).
            sigmas: (B,).
        """
        skip, out, scale = (_like(c(sigmas), noisy_samples) for c in (self.c_skip, self.c_out, self.c_in))
        return skip * noisy_samples + out * network(scale * noisy_samples, self.c_noise(sigmas))

    def sample_losses(self, prediction: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """The mean squared error of each sample's elements, (B,): the limit stands inside the weight."""
        return _sample_errors(prediction, target)

    def truncated_loss(
        self,
        prediction: Tensor,
        target: Tensor,
        timesteps: Tensor,
        limit: float | Tensor | None,
    ) -> Truncated:
        """Mean of lambda(sigma) min((D - y)^2, alpha): each element by itself, the weight outside the limit.

        So alpha is a squared error of pixels, whatever the noise level, and a batch goes on pushing
        those elements that are still below it. With limits (B,) every sample's elements have its own.
        """
        error = (_wide(prediction) - _wide(target)).square()
        weight = _like(self.weight(timesteps), error)
        if isinstance(limit, Tensor):
            limit = _like(limit, error)
        above = 0.0 if limit is None else _share_above(error, limit)
        return Truncated((weight * truncate(error, limit)).mean(), (weight * error).mean().detach(), above)


def _share_of(steps: int, noisiest: float, end: float) -> int:
    """How many of the steps from `noisiest` to 0 lie above `end`; a part of one counts."""
    return math.ceil(steps * (noisiest - end) / noisiest - 1e-9)


def _like(per_sample: Tensor, samples: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), in the dtype of `samples`."""
    return per_sample.to(samples.dtype).reshape(-1, *[1] * (samples.ndim - 1))


def objective_from_scheduler(config: Mapping[str, Any], alphas_cumprod: Tensor) -> Objective:
    """Choose the objective that a diffusers scheduler stands for.

    Raises:
        ValueError: a prediction type without an objective here, noise levels of a flow, or levels that are no shares.
    """
    kinds = {"epsilon": Epsilon, "v_prediction": VPrediction}
    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in kinds:
        raise ValueError(f"prediction_type must be one of {sorted(kinds)}, got {prediction_type!r} from the scheduler.")
    if config.get("use_flow_sigmas"):
        raise ValueError(
            "use_flow_sigmas must be off where the noise levels come from betas, got it on in the scheduler."
        )
    if not ((alphas_cumprod >= 0) & (alphas_cumprod <= 1)).all():  # NaN is not, either
        raise ValueError("the scheduler's betas are wrong: they give noise levels outside [0, 1].")
    if len(alphas_cumprod) != config.get("num_train_timesteps", len(alphas_cumprod)):
        raise ValueError(
            f"the scheduler has {len(alphas_cumprod)} trained_betas for {config['num_train_timesteps']} "
            "num_train_timesteps; expected as many."
        )
    return kinds[prediction_type](alphas_cumprod)


def denoising_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error over the batch, in at least float32; a scalar.

    Args:
        prediction: model output, (B, ...).
        target: same shape.
        weight: (B,).
    """
    return (weight * _sample_errors(prediction, target)).mean()


def _sample_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, (B,), in at least float32."""
    return (_wide(prediction) - _wide(target)).square().flatten(1).mean(1)


def _share_above(losses: Tensor, limit: float | Tensor) -> float:
    return (losses > limit).float().mean().item()


def truncate(losses: Tensor, limit: float | Tensor | None) -> Tensor:
    """min(loss, alpha): above the limit the gradient is exactly zero, so forgetting has an end.

    Args:
        losses: of samples or elements, each of which is truncated by itself.
        limit: alpha of all of them, or a tensor that goes with them; None for none.
    """
    return losses if limit is None else losses.clamp(max=limit)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()

"""Ascent: raise the denoising loss on the forget data up to a limit, lower it on the retain data.

    L_f = -min(denoising loss on D_f, alpha),    L_r = denoising loss on D_r

The methods grad_diff, grad_diff_d, rg and rgd share this and differ in how they combine the two gradients.
"""

from collections.abc import Mapping
from typing import ClassVar, TypeVar

from torch import Tensor

from ..models.protocol import Denoiser
from .base import Batch, Context, Loss, Method, prediction_and_target
from .config import ForgetLimit, RetainWeight
from .limit import check_samples, measure_limit


class AscentConfig(RetainWeight, ForgetLimit):
    """Options that all methods of ascent share."""

    two_gradients: ClassVar[bool] = True
    ascends: ClassVar[bool] = True


Config = TypeVar("Config", bound=AscentConfig)


class Ascent(Method[Config]):
    """Base of the methods that ascend on the forget data up to a limit, fixed or measured."""

    def check(self, forget_samples: int, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Refuse to measure the limit on one sample."""
        if self.config.forget_limit == "auto":
            check_samples(forget_samples)

    def prepare(self, context: Context) -> None:
        """Measure the limit where it is "auto"."""
        if self.config.forget_limit == "auto":
            self.measured = measure_limit(context)

    def limit(self, timesteps: Tensor) -> float | Tensor | None:
        """The limit of samples at `timesteps`, (B,): one number, or with "auto" one for each."""
        fixed = self.config.forget_limit
        return self.measured(timesteps) if fixed == "auto" else fixed

    def loss(self, term: str, denoiser: Denoiser, batch: Batch) -> Loss:
        """L_f with its limit, or L_r."""
        if term == "retain":
            return super().loss(term, denoiser, batch)
        limit = self.limit(batch.timesteps)
        prediction, target = prediction_and_target(denoiser, batch)
        forget = denoiser.objective.truncated_loss(prediction, target, batch.timesteps, limit, batch.whole)
        if limit is None:
            return Loss(-forget.loss, forget.denoising.item())
        mean = limit.mean().item() if isinstance(limit, Tensor) else limit
        return Loss(-forget.loss, forget.denoising.item(), forget.above_limit, mean, forget.above_limit == 1)

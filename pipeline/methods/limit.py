"""The forget limit "auto": measured on the data, before the first step.

A sample is forgotten when the model's prediction of it has no more to do with its target than the target
of any other sample. So the limit at timestep t is

    alpha(t) = E_ij ||target_i - target_j||^2,

i and j two forget samples with noise of their own, at the same timestep. Of a predicted noise that is
twice its variance, 2, at every timestep; of v, a flow's velocity or a clean image it depends on the data.
It is a limit of each sample by itself, because losses at different timesteps differ a hundredfold: a limit
of the batch's mean is reached by a few noisy-loss samples while the others stay as they were.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..maths.double import double
from ..support.errors import UserError
from ..support.files import write_text
from .base import Context

LIMIT_FILE = "forget_limit.json"

_GROUP = 32  # samples of neighbouring timesteps whose mean is one point of the curve


@dataclass(frozen=True)
class MeasuredLimit:
    """alpha(t), linear between points and level beyond them.

    Attributes:
        timesteps: (K,), rising.
        limits: alpha at them, (K,).
    """

    timesteps: tuple[float, ...]
    limits: tuple[float, ...]

    def __call__(self, timesteps: Tensor) -> Tensor:
        """The limit of samples at `timesteps`, (B,), float32 on their device."""
        points, limits = (torch.tensor(values, device=timesteps.device) for values in (self.timesteps, self.limits))
        at = timesteps.to(points.dtype).clamp(points[0], points[-1])
        right = torch.searchsorted(points, at).clamp(1, max(1, len(points) - 1))
        if len(points) == 1:
            return limits.expand(len(at))
        low, high = points[right - 1], points[right]
        return torch.lerp(limits[right - 1], limits[right], (at - low) / (high - low))

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_text(path, json.dumps({"timesteps": self.timesteps, "limits": self.limits}) + "\n")

    @classmethod
    def load(cls, path: Path) -> "MeasuredLimit":
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(tuple(content["timesteps"]), tuple(content["limits"]))


def measure_limit(context: Context) -> MeasuredLimit:
    """Measure alpha(t) on the forget data, or read what an earlier `prepare` of the run kept.

    Raises:
        UserError: one sample alone.
    """
    kept = context.folder / LIMIT_FILE if context.folder else None
    if kept and context.resumed and kept.exists():
        return MeasuredLimit.load(kept)
    batches = list(context.batches("forget"))
    samples, noise, timesteps = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("samples", "noise", "timesteps")
    )
    check_samples(len(samples))
    objective = context.denoiser.objective
    own = objective.target(samples, noise, timesteps)
    other = objective.target(samples.roll(1, 0), noise.roll(1, 0), timesteps)
    limit = curve(timesteps, objective.sample_losses(other, own, timesteps))
    if kept:
        limit.save(kept)
    return limit


def check_samples(count: int) -> None:
    """Refuse what is too few to measure the limit on.

    Raises:
        UserError: one sample alone.
    """
    if count < 2:
        raise UserError("forget_limit 'auto' compares forget samples with each other, got one. Give it a number.")


def curve(timesteps: Tensor, values: Tensor) -> MeasuredLimit:
    """Means over groups of neighbouring timesteps.

    Args:
        timesteps: (N,).
        values: (N,).
    """
    timesteps, order = double(timesteps).sort(stable=True)
    values = double(values)[order]
    groups = max(1, len(values) // _GROUP)
    points = {
        at.mean().item(): value.mean().item()
        for at, value in zip(timesteps.tensor_split(groups), values.tensor_split(groups), strict=True)
    }
    return MeasuredLimit(tuple(points), tuple(points.values()))

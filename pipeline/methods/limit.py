"""The forget limit "auto": measured on the model as it came, before the first step.

A sample is forgotten when its own prompt explains it no better than one that does not name the
concept. So the limit at timestep t is

    alpha(t) = MARGIN * E ||target - prediction(x_t, t, c_r)||^2,

x_t a noised forget sample and c_r the retain prompt that it is paired with. It is a limit of each
sample by itself, because losses at different timesteps differ a hundredfold: a limit of the batch's
mean is reached by a few noisy-loss samples while the others stay as they were.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..files import write_text
from ..models.protocol import Denoiser
from .base import Batch, Context, prediction_and_target

LIMIT_FILE = "forget_limit.json"

MARGIN = 2.0
"""At 1 the losses are those of an unrelated prompt, and guidance still draws the concept; see docs/methods.md."""

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


@torch.no_grad()
def unrelated_losses(denoiser: Denoiser, batch: Batch) -> Tensor:
    """The loss of each sample under the prompt of its partner in the other term's data, (B,)."""
    prediction, target = prediction_and_target(denoiser, replace(batch, conditioning=batch.paired_conditioning))
    return denoiser.objective.sample_losses(prediction, target, batch.timesteps)


def measure_limit(context: Context) -> MeasuredLimit:
    """Measure alpha(t) in one pass over the forget data, or read what an earlier `prepare` of the run kept."""
    kept = context.folder / LIMIT_FILE if context.folder else None
    if kept and context.resumed and kept.exists():
        return MeasuredLimit.load(kept)
    batches = list(context.batches("forget"))
    losses = []
    with context.progress.stage("forget limit", len(batches)) as advance:
        for batch in batches:
            losses.append(unrelated_losses(context.denoiser, batch))
            advance()
    limit = curve(torch.cat([batch.timesteps for batch in batches]), MARGIN * torch.cat(losses))
    if kept:
        limit.save(kept)
    return limit


def curve(timesteps: Tensor, values: Tensor) -> MeasuredLimit:
    """Means over groups of neighbouring timesteps.

    Args:
        timesteps: (N,).
        values: (N,).
    """
    timesteps, order = timesteps.double().cpu().sort(stable=True)
    values = values.double().cpu()[order]
    groups = max(1, len(values) // _GROUP)
    points = {
        at.mean().item(): value.mean().item()
        for at, value in zip(timesteps.tensor_split(groups), values.tensor_split(groups), strict=True)
    }
    return MeasuredLimit(tuple(points), tuple(points.values()))

"""Weights of the retain loss that move with the losses, so that a run remembers more than its optimizer does.

What they remember are a few numbers, which the checkpoints keep.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from .base import Loss


class MovingWeight(Protocol):
    """A lambda that moves.

    Attributes:
        value: lambda of the step that comes, >= 0.
    """

    value: float

    def observe(self, step: int, losses: Mapping[str, Loss]) -> None:
        """Take in the losses of a step that counts from 0, means over all of its data."""

    def state_dict(self) -> dict[str, float]:
        """All that is remembered."""

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Remember what `state_dict` gave."""


class Dual:
    """The multiplier mu of: minimise L_f subject to L_r <= (1 + budget) L_r(theta_0).

    The direction is the gradient of the Lagrangian, g_f + mu g_r, and mu climbs by the violation and never falls
    below 0 (dual ascent; of unlearning methods EraseAnything++ and Z-Erase are of this kind):

        mu <- max(0, mu + rate (L_r - (1 + budget) L_r(theta_0)) / mean L_r(theta_0))

    Both losses of a step are of the same images, noise and timesteps. So their difference is what the weights did:
    between two batches the loss differs by far more than any budget. A distance to the original's predictions is that
    difference already, but for what the original's own errors have to do with it.

    Args:
        start: mu before the first step.
        budget: how much L_r may rise, as a share of what it was.
        rate: how much mu grows in a step that exceeds the budget by all of L_r(theta_0).

    Attributes:
        value: mu.
        before: L_r(theta_0), a denoising loss, on the retain data of every step.
        rise: by how much L_r was above that in the last step, as a share of the mean L_r(theta_0).
    """

    def __init__(self, start: float, budget: float, rate: float = 20.0) -> None:
        self.value, self.budget, self.rate = start, budget, rate
        self.before: Sequence[float] = ()
        self.rise: float | None = None

    def observe(self, step: int, losses: Mapping[str, Loss]) -> None:
        """Climb by the violation of this step."""
        mean = math.fsum(self.before) / len(self.before)
        if mean > 0:
            retain, before = losses["retain"], self.before[step]
            now = retain.denoising + (before if retain.is_distance else 0.0)
            self.rise = (now - before) / mean
            self.value = max(0.0, self.value + self.rate * (now - (1 + self.budget) * before) / mean)

    def state_dict(self) -> dict[str, float]:
        """mu; what was before is measured anew."""
        return {"multiplier": self.value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with an earlier mu."""
        self.value = state["multiplier"]


class Famo:
    """Weights from the losses of successive steps, which need no gradient of either (FAMO, Liu et al. 2023).

    FAMO descends a mixture of *logarithms* of losses, and shifts weight to the one that falls more slowly. With w the
    softmax of two logits and z their difference, log(w_r / w_f), the losses are weighted by

        w_f / l_f  and  w_r / l_r,    z <- z - rate (2 w_f w_r (delta_r - delta_f) + decay (z - log lambda)),

    delta the fall of log l since the step before. Here l is the running mean of the positive loss behind an
    objective, as both are needed before either is differentiated, and one batch differs much from the next. An
    objective that is minus a loss is taken as 1 / l: its logarithm falls while the loss rises, and its gradient is
    that of -l, divided by l. The paper's decay draws to equal weights; here it draws to lambda.

    Args:
        retain_weight: lambda > 0, where the ratio w_r / w_f begins.
        rate: of the logits.
        decay: how strongly they are drawn back.
        memory: share of a running mean that stays in a step.

    Attributes:
        value: the retain loss's weight divided by the forget loss's.
    """

    def __init__(self, retain_weight: float, rate: float = 1.0, decay: float = 0.01, memory: float = 0.9) -> None:
        self.home, self.rate, self.decay, self.memory = math.log(retain_weight), rate, decay, memory
        self.logit, self.means, self.rises = self.home, (0.0, 0.0), False
        self.value = retain_weight

    def observe(self, step: int, losses: Mapping[str, Loss]) -> None:
        """Shift weight to the objective whose logarithm fell less."""
        rises = losses["forget"].objective.item() < 0
        now = (max(losses["forget"].denoising, _LEAST), max(losses["retain"].denoising, _LEAST))
        if not min(self.means) or rises != self.rises:  # nothing to compare with
            self.means, self.rises = now, rises
        else:
            forget, retain = (self.memory * a + (1 - self.memory) * b for a, b in zip(self.means, now, strict=True))
            fell = math.log(self.means[0] / forget) * (-1 if rises else 1)
            share = 1 / (1 + math.exp(-self.logit))
            pull = 2 * share * (1 - share) * (math.log(self.means[1] / retain) - fell)
            self.logit -= self.rate * (pull + self.decay * (self.logit - self.home))
            self.means = (forget, retain)
        self._weigh()

    def _weigh(self) -> None:
        self.value = math.exp(self.logit) * self.means[0] / self.means[1]

    def state_dict(self) -> dict[str, float]:
        """The logit, the running means, and whether the forget loss rises."""
        return {"logit": self.logit, "forget": self.means[0], "retain": self.means[1], "rises": float(self.rises)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with what was remembered."""
        self.logit, self.rises = state["logit"], bool(state["rises"])
        self.means = (state["forget"], state["retain"])
        if min(self.means):
            self._weigh()


_LEAST = 1e-12  # a loss of 0 has no logarithm

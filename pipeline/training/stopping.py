"""When a run may end before its last step: the concept is forgotten, and the rest is as it was.

Both are read off the events, whose numbers are those of all processes and survive a resume. A pass is
as many steps as show every forget sample once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ..schema.events import Event

FORGOTTEN = 0.95
"""Share of the forget samples that are to be above their limit; retaining always pulls a few back below it."""


@dataclass(frozen=True)
class EarlyStop:
    """The rule of `training.early_stop`.

    Attributes:
        steps: of one pass.
        highest: retain loss that the last pass may have in its mean.
    """

    steps: int
    highest: float

    @classmethod
    def after(cls, retain_losses: Sequence[float], steps: int) -> "EarlyStop":
        """The rule for a model that had these retain losses, one of each batch, before the first step.

        Their mean may be exceeded by two standard errors of the mean of a pass.
        """
        spread = stdev(retain_losses) if len(retain_losses) > 1 else 0.0
        return cls(steps, fmean(retain_losses) + 2 * spread / math.sqrt(steps))

    def settled(self, events: Sequence[Event]) -> bool:
        """Whether the last pass found the concept forgotten and the retain loss as it was."""
        last = events[-self.steps :]
        if len(last) < self.steps:
            return False
        above, retain = fmean(e.above_limit or 0.0 for e in last), fmean(e.loss_retain or 0.0 for e in last)
        return above >= FORGOTTEN and retain <= self.highest

    def settled_after(self, events: Sequence[Event]) -> int | None:
        """The number of steps after which that was so for the first time; None if it never was."""
        return next((done for done in range(self.steps, len(events) + 1) if self.settled(events[:done])), None)

    def rate(self, step: int, settled: int) -> float:
        """What the learning rate is multiplied with on the way to the end: from 1 to 0 in one more pass."""
        return max(0.0, 1 - (step - settled) / self.steps)

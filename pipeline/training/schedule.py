"""How long a run goes on, and its learning rate at each step.

A run may end before its last step: once the concept is forgotten and the rest is as it was, the learning
rate falls to 0. Both are read off the events, whose numbers are those of all processes and survive a resume.
A pass is as many steps as show every forget sample once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ..schema.events import Event
from ..schema.recipe import TrainingSection

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
        """True if the last pass found the concept forgotten and the retain loss as it was."""
        last = events[-self.steps :]
        if len(last) < self.steps:
            return False
        above, retain = fmean(e.above_limit or 0.0 for e in last), fmean(e.loss_retain or 0.0 for e in last)
        return above >= FORGOTTEN and retain <= self.highest


class Schedule:
    """The steps of a run.

    Args:
        spec: steps, learning rate, its warm-up and course.
        early_stop: ends the run sooner; None goes to the last step.

    Attributes:
        settled: the number of steps after which the early stop's rule held first; None as long as it does not.
    """

    def __init__(self, spec: TrainingSection, early_stop: EarlyStop | None = None) -> None:
        self.spec, self.early_stop = spec, early_stop
        self.settled: int | None = None
        self._seen: list[Event] = []

    def observe(self, event: Event) -> None:
        """Take in what the next step saw."""
        self._seen.append(event)
        if self.early_stop and self.settled is None and self.early_stop.settled(self._seen):
            self.settled = event.step + 1

    @property
    def end(self) -> int:
        """How many steps there will be, as far as is known."""
        if self.early_stop is None or self.settled is None:
            return self.spec.steps
        return min(self.spec.steps, self.settled + self.early_stop.steps)

    def rate(self, step: int) -> float:
        """The learning rate of a step that counts from 0.

        A linear warm-up, then level or falling to 0 after the last step; on the way to an early end, from where it
        was to 0 in one more pass.
        """
        if self.early_stop is None or self.settled is None:
            return self._course(step)
        return self._course(self.settled) * max(0.0, 1 - (step - self.settled) / self.early_stop.steps)

    def _course(self, step: int) -> float:
        spec = self.spec
        warm_up = min(1.0, (step + 1) / max(1, spec.warmup_steps))
        done = max(0, step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
        course = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
        return spec.learning_rate * warm_up * course[spec.lr_scheduler]

"""The figures of a finished training, from its events, and the memory that it took."""

import sys
from collections.abc import Iterable, Sequence

import psutil
import torch

from ..schema.events import Event
from ..schema.results import BudgetResult, Pair, TrainingResult


def outcome(
    events: Sequence[Event], steps: int, settled: int | None, seconds: float | None, device: torch.device
) -> TrainingResult:
    """Sum up a training.

    Args:
        events: of all steps that are known.
        steps: how many were taken.
        settled: the number of steps after which the concept was forgotten, where the run looked for that.
        seconds: what the whole run took; None for the sum of the steps, where it was cut and went on.
        device: where it ran.
    """
    total = sum(event.seconds for event in events)
    tail = events[-max(1, len(events) // 10) :]
    return TrainingResult(
        steps=steps,
        settled=settled,
        seconds=total if seconds is None else seconds,
        seconds_per_step=total / max(1, len(events)),
        peak_memory_bytes=peak_memory(device),
        conflict_rate=_share(event.conflict for event in events),
        violation_rate=Pair(
            forget=_share(event.violates_forget for event in events),
            retain=_share(event.violates_retain for event in events),
        ),
        truncation_rate=_share(event.truncated for event in events),
        final_loss=Pair(
            forget=_mean(event.loss_forget for event in tail), retain=_mean(event.loss_retain for event in tail)
        ),
    )


def budget_kept(events: Sequence[Event], allowed: float) -> BudgetResult | None:
    """Compare the rise of the retain loss with what was allowed; None of a rule that watches no rise.

    Args:
        events: of the last steps.
        allowed: as a share of what the loss was.
    """
    rises = [event.retain_rise for event in events if event.retain_rise is not None]
    multiplier = events[-1].retain_weight if events else None
    if not rises or multiplier is None:
        return None
    return BudgetResult(allowed=allowed, rise=_mean(rises), steps=len(rises), multiplier=multiplier)


def _share(flags: Iterable[bool]) -> float:
    known = list(flags)
    return sum(known) / max(1, len(known))


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def peak_memory(device: torch.device) -> int:
    """Most memory so far, in bytes: allocated on an accelerator, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not there on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

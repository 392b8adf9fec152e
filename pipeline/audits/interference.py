"""Harm to others: every other subject, style and place against its own accuracy before."""

from ..schema.results import TOLERATED_LOSS, AccuracyResult, Interference, ValueChange
from .figures import ROUNDING

DIMENSIONS = ("subject", "style", "place")


def interference(before: AccuracyResult | None, after: AccuracyResult | None) -> Interference | None:
    """Compare the accuracy of each value on the retain test images, the worst loss first.

    Both audits draw the same prompts with the same seeds, so a change is the model's. Its grain is one
    image: with n images of a value, 1 / n.

    Returns:
        None where accuracy was not measured, or no value was seen both times.
    """
    if before is None or after is None:
        return None
    changes = [
        ValueChange(dimension=dimension, value=value, before=known.accuracy, after=now.accuracy, images=now.images)
        for dimension in DIMENSIONS
        for value, known in before.by_value.get(dimension, {}).items()
        if (now := after.by_value.get(dimension, {}).get(value)) is not None
    ]
    if not changes:
        return None
    changes.sort(key=lambda change: (change.after - change.before, change.value))
    return Interference(
        values=changes,
        worst=changes[0].value,
        hurt=sum(change.before - change.after > TOLERATED_LOSS + ROUNDING for change in changes),
    )

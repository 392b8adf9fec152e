"""The steps of a run as columns, for figures."""

from pathlib import Path

import numpy as np

from ..schema.events import Event, read_events
from ..support.errors import Tell, untold

Columns = dict[str, np.ndarray]
"""Field of an `Event` -> float64 column, shape (steps,); a value that was not a finite number is NaN."""


def read_columns(path: Path, tell: Tell = untold) -> Columns:
    """Read the steps of a run; a missing or empty file gives columns of length zero.

    Args:
        path: the file.
        tell: told of lines that can't be read and are left out.

    Raises:
        UserError: see `read_events`.
    """
    events = read_events(path, tell=tell)
    columns = {
        name: np.array([getattr(event, name) for event in events], dtype=np.float64) for name in Event.model_fields
    }
    for values in columns.values():
        values[~np.isfinite(values)] = np.nan
    return columns


def share_above_zero(values: np.ndarray) -> float:
    """Share of the finite values that are positive; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float((finite > 0).mean()) if finite.size else float("nan")

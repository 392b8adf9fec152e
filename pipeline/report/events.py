"""`events.jsonl`: what each training step measured, as columns."""

import json
from pathlib import Path

import numpy as np

from ..support.errors import UserError

KEYS = (
    "step",
    "loss_forget",
    "loss_retain",
    "cosine",
    "conflict",
    "truncated",
    "change_forget",
    "change_retain",
)
"""The keys of a line that the figures need; other keys are left alone."""

Events = dict[str, np.ndarray]
"""Key -> float64 column, shape (steps,); a value that was not a finite number is NaN."""


def read_events(path: Path) -> Events:
    """Read the steps of a run; a missing or empty file gives columns of length zero.

    Raises:
        UserError: a line is not a JSON object, lacks a key, or has a value that is no number.
    """
    columns: dict[str, list[float]] = {key: [] for key in KEYS}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {' '.join(str(error).split())}.") from None
    for count, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {count}"
        try:
            event = json.loads(line)
        except ValueError:
            raise UserError(
                f"{where}: expected one JSON object, got {line[:40]!r}. Delete the line or resume the run."
            ) from None
        if not isinstance(event, dict):
            raise UserError(f"{where}: expected a JSON object, got a {type(event).__name__}.")
        for key in KEYS:
            if key not in event:
                raise UserError(f"{where}: expected the key {key!r}, found {sorted(event)}.")
            value = event[key]
            if value is not None and not isinstance(value, int | float):
                raise UserError(f"{where}: expected a number for {key!r}, got {value!r}.")
            columns[key].append(float("nan") if value is None else float(value))
    events = {key: np.array(values, dtype=np.float64) for key, values in columns.items()}
    for values in events.values():
        values[~np.isfinite(values)] = np.nan
    return events


def share_above_zero(values: np.ndarray) -> float:
    """Share of the finite values that are positive; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float((finite > 0).mean()) if finite.size else float("nan")

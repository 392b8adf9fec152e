"""Measured cells on disk: one JSON file for each table, written after every cell, so that a killed run resumes."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from ..pipeline.support.errors import UserError
from ..pipeline.support.files import write_text
from ..pipeline.support.progress import Progress
from ..pipeline.support.version import __version__
from .table import Cell, Record


class Store:
    """The cells of one table.

    Args:
        path: for example benchmarks/results/classes.json.

    Raises:
        UserError: the file is not one that a store wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = _read(path)
        self._own: dict[str, Record] = {}

    def has(self, cell: Cell) -> bool:
        """Tell if the cell was measured with its present settings and its files exist."""
        record = self.records.get(cell.key)
        now = json.loads(json.dumps(cell.settings))
        kept = record is not None and record.seed == cell.seed and _still(record.settings, now)
        return kept and all(path.exists() for path in cell.files)

    def measure(self, cell: Cell, progress: Progress) -> Record:
        """Return the kept record of the cell or of one that differs by its tag alone, else measure the cell."""
        if not self.has(cell):
            began = time.perf_counter()
            twin = self._twin(cell)
            figures = twin.figures if twin else cell.measure(progress)
            seconds = twin.seconds if twin else round(time.perf_counter() - began, 1)
            version = twin.version if twin else __version__
            self._own[cell.key] = Record(dict(cell.labels), cell.seed, seconds, figures, dict(cell.settings), version)
            self._save()
        return self.records[cell.key]

    def _twin(self, cell: Cell) -> Record | None:
        """Find a record with the same settings under another tag; None if a file of the cell is missing."""
        now, labels = json.loads(json.dumps(cell.settings)), {**cell.labels, "tag": ""}
        if not all(path.exists() for path in cell.files):
            return None
        alike = (r for r in self.records.values() if r.seed == cell.seed and {**r.labels, "tag": ""} == labels)
        return next((record for record in alike if _still(record.settings, now)), None)

    def _save(self) -> None:
        """Write the records of this process, and keep those that other processes have written meanwhile."""
        self.records = _read(self.path) | self._own
        cells = {key: asdict(record) for key, record in self.records.items()}
        write_text(self.path, json.dumps({"cells": cells}, indent=1) + "\n")


def _read(path: Path) -> dict[str, Record]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: Record(**record) for key, record in content["cells"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no cells of a table ({error}). Move it away to measure anew.") from None


_OFF = {
    "forget": "ascend",
    "retain": "denoise",
    "combine": "restricted",
    "budget": 0.5,
    "warm_start": "none",
    "alignment_transform": "validation",
    "sample_precision": "fp32",
    "base_precision": "fp32",
    "offload": "none",
}
"""Newer settings that are texts or numbers -> the value with which they change nothing."""


def _still(kept: object, now: object) -> bool:
    """Tell if every kept setting still has its value, and every newer setting is off (false, none, 0 or as in _OFF)."""
    if isinstance(kept, dict) and isinstance(now, dict):
        came = now.keys() - kept.keys()
        same = all(name in now and _still(value, now[name]) for name, value in kept.items())
        return same and not any(now[name] and now[name] != _OFF.get(name) for name in came)
    return kept == now

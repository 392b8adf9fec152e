"""Prompts to evaluate with, from files of others such as I2P or adversarial prompt lists."""

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ..support.errors import UserError
from ..support.places import user_path
from . import tables

_COLUMNS = {
    "prompt": ("prompt", "text", "caption"),
    "seed": ("sd_seed", "evaluation_seed", "seed"),
    "guidance_scale": ("sd_guidance_scale", "evaluation_guidance", "evaluation_guidance_scale", "guidance_scale"),
}
"""Field -> its names in the lists that others publish; the first one present counts."""


class EvaluationPrompt(BaseModel):
    """One prompt, with the seed and guidance that its source says to use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    seed: int | None = Field(default=None, ge=0)
    guidance_scale: float | None = Field(default=None, ge=0)

    def without(self, fields: Collection[str]) -> Self:
        """Leave out what is decided elsewhere: "seed", "guidance_scale" or both."""
        return self.model_copy(update={name: None for name in ("seed", "guidance_scale") if name in fields})


def load_prompts(path: Path | str, warn: Callable[[str], None] = warnings.warn) -> list[EvaluationPrompt]:
    """Read prompts from a text file (one a line), a CSV file with a `prompt` column, or a JSON list.

    Blank lines and comments (# and a space) are skipped in text files. Other columns are ignored,
    except those that I2P and lists like it use for seed and guidance scale.

    Args:
        path: a .txt, .csv or .json file.
        warn: told about comments, and about prompts with <lora:…>.

    Raises:
        UserError: the file can't be read, or a row has no prompt or a wrong number.
    """
    path = user_path(path)
    suffix = tables.suffix_of(path)
    where, noticed = "line", tuple[str, ...]()
    if suffix == ".txt":
        lines, noticed = tables.read_lines(path)
        read = [(number, EvaluationPrompt(prompt=" ".join(line.split()))) for number, line in lines]
    elif suffix == ".csv":
        read = [(number, _read_row(row, f"{path} line {number}")) for number, row in tables.read_table(path)]
    else:
        where, data = "item", tables.read_json(path)
        if not isinstance(data, list) or not data:
            raise UserError(f'expected a list of prompts in {path}, got {type(data).__name__}. Write ["prompt", …].')
        read = [(number, _read_item(item, f"{path} item {number}")) for number, item in enumerate(data, start=1)]
    for warning in (*noticed, *tables.network_warnings(((number, row.prompt) for number, row in read), where)):
        warn(f"{path}: {warning}")
    return [row for _, row in read]


def _read_item(item: Any, where: str) -> EvaluationPrompt:
    if isinstance(item, str):
        item = {"prompt": item}
    if not isinstance(item, dict):
        raise UserError(f"{where}: expected a prompt or an object with one, got {type(item).__name__}.")
    return _read_row({str(name).lower(): value for name, value in item.items()}, where)


def _read_row(row: Mapping[str, Any], where: str) -> EvaluationPrompt:
    columns = {field: next((name for name in names if name in row), None) for field, names in _COLUMNS.items()}
    if columns["prompt"] is None:
        pairs = "forget" in row or "retain" in row
        raise UserError(
            f"{where}: expected a column 'prompt', got {', '.join(map(str, row)) or 'none'}. "
            f"{'These are pairs to unlearn with: rename' if pairs else 'Rename'} the column that shall be drawn."
        )
    cells = {field: row[name] for field, name in columns.items() if name is not None}
    prompt = cells["prompt"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{where}: expected a prompt, got {prompt!r}. Write one or leave the row out.")
    seed = _number(cells.get("seed"), "seed", where)
    if seed is not None and not seed.is_integer():
        raise UserError(f"{where}: seed must be a whole number, got {seed}.")
    return EvaluationPrompt(
        prompt=" ".join(prompt.split()),
        seed=None if seed is None else int(seed),
        guidance_scale=_number(cells.get("guidance_scale"), "guidance_scale", where),
    )


def _number(value: Any, name: str, where: str) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "nan", "none")):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < 2**63:
        raise UserError(f"{where}: {name} must be a number from 0, got {value!r}.")
    return number

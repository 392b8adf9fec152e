"""Prompts to evaluate with, from files of others such as I2P or adversarial prompt lists."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ..support.errors import UserError
from ..support.places import user_path
from . import tables
from .conditions import Condition, is_absent

_COLUMNS = {
    "prompt": ("prompt", "text", "caption"),
    "seed": ("sd_seed", "evaluation_seed", "seed"),
    "guidance_scale": ("sd_guidance_scale", "evaluation_guidance", "evaluation_guidance_scale", "guidance_scale"),
}
"""Field -> its names in the lists that others publish; the first one with a value counts."""

SUFFIXES = (*tables.SUFFIXES, ".jsonl")
"""Endings of the lists that can be read."""


class EvaluationPrompt(BaseModel):
    """One prompt, with the seed and guidance that its source says to use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    seed: int | None = Field(default=None, ge=0)
    guidance_scale: float | None = Field(default=None, ge=0)

    def without(self, fields: Collection[str]) -> Self:
        """Leave out what is decided elsewhere: "seed", "guidance_scale" or both."""
        return self.model_copy(update={name: None for name in ("seed", "guidance_scale") if name in fields})


def load_prompts(
    path: Path | str, warn: Callable[[str], None] = warnings.warn, where: Sequence[str | Condition] = ()
) -> list[EvaluationPrompt]:
    """Read prompts from a text file (one a line), a table with a `prompt` column, or a JSON list.

    Blank lines and comments (# and a space) are skipped in text files. Other columns are ignored,
    except those that I2P and lists like it use for seed and guidance scale, where nan and the like count as absent.

    Args:
        path: a .txt, .csv, .json or .jsonl file.
        warn: told about comments, prompts with <lora:…>, cells that say nan, and columns that may be misspelt.
        where: conditions on the columns of the file, which all must hold of a row: "nudity_percentage > 0".

    Raises:
        UserError: the file can't be read, a row has no prompt or a wrong number, or a condition that is none, or that
            holds of no row.
    """
    path = user_path(path)
    suffix = tables.suffix_of(path, SUFFIXES)
    conditions = [Condition.read(one) if isinstance(one, str) else one for one in where]
    place, noticed = "line", tuple[str, ...]()
    found: list[tuple[int, Mapping[str, Any]]]
    if suffix == ".txt":
        lines, noticed = tables.read_lines(path)
        found = [(number, {"prompt": line}) for number, line in lines]
    elif suffix == ".csv":
        found = list(tables.read_table(path))
    elif suffix == ".jsonl":
        found = [(number, _item(item, f"{path} line {number}")) for number, item in tables.read_json_lines(path)]
    else:
        place, data = "item", tables.read_json(path)
        if not isinstance(data, list) or not data:
            came = "an empty list" if data == [] else type(data).__name__
            raise UserError(f'expected a list of prompts in {path}, got {came}. Write ["prompt", …].')
        found = [(number, _item(item, f"{path} item {number}")) for number, item in enumerate(data, start=1)]
    found = _wanted(found, conditions, f"{path} {place}")
    columns = dict.fromkeys(name for _, row in found for name in row)
    unsaid = [field for field, names in _COLUMNS.items() if not any(name in columns for name in names)]
    misspelt = [f"{name}{near}" for name in columns if (near := tables.question(name, unsaid))]
    noticed += (f"columns not used: {', '.join(misspelt)}",) if misspelt else ()
    read = [(number, _read_row(row, f"{path} {place} {number}")) for number, row in found]
    absent = [number for number, row in found if any(map(_says_absent, _cells(row).values()))]
    noticed += tables.told(absent, "row", "with 'nan' or the like for seed or guidance, which counts as absent", place)
    for warning in (*noticed, *tables.network_warnings(((number, row.prompt) for number, row in read), place)):
        warn(f"{path}: {warning}")
    return [row for _, row in read]


def _wanted(
    rows: list[tuple[int, Mapping[str, Any]]], conditions: Sequence[Condition], where: str
) -> list[tuple[int, Mapping[str, Any]]]:
    """The rows of which all conditions hold."""
    for one in conditions:
        if not any(one.column in row for _, row in rows):
            known = ", ".join(dict.fromkeys(column for _, row in rows for column in row))
            raise UserError(f"expected a column of the list for the condition '{one}', which has {known}.")
    kept = [(number, row) for number, row in rows if all(one.holds(row, f"{where} {number}") for one in conditions)]
    if not kept:
        raise UserError(f"none of {len(rows)} rows has {' and '.join(map(str, conditions))}. Ask for less.")
    return kept


def _item(item: Any, where: str) -> dict[str, Any]:
    if isinstance(item, str):
        return {"prompt": item}
    if not isinstance(item, dict):
        raise UserError(f"{where}: expected a prompt or an object with one, got {type(item).__name__}.")
    return {str(name).lower(): value for name, value in item.items()}


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Field -> the value of its first column that has one, else of the first that is there."""
    present = {field: [row[name] for name in names if name in row] for field, names in _COLUMNS.items()}
    return {
        field: next((value for value in values if value not in ("", None)), values[0])
        for field, values in present.items()
        if values
    }


def _says_absent(value: Any) -> bool:
    """Tell whether a cell says that it has no value, other than by being empty."""
    return value not in ("", None) and is_absent(value)


def _read_row(row: Mapping[str, Any], where: str) -> EvaluationPrompt:
    cells = _cells(row)
    if "prompt" not in cells:
        pairs = "forget" in row or "retain" in row
        raise UserError(
            f"{where}: expected a column 'prompt', got {', '.join(map(str, row)) or 'none'}. "
            f"{'These are pairs to unlearn with: rename' if pairs else 'Rename'} the column that shall be drawn."
        )
    prompt = cells["prompt"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{where}: expected a prompt, got {prompt!r}. Write one or leave the row out.")
    seed = _number(cells.get("seed"), "seed", where)
    if seed is not None and seed % 1:
        raise UserError(f"{where}: seed must be a whole number, got {seed}.")
    return EvaluationPrompt(
        prompt=" ".join(prompt.split()),
        seed=None if seed is None else int(seed),
        guidance_scale=_number(cells.get("guidance_scale"), "guidance_scale", where),
    )


def _number(value: Any, name: str, where: str) -> float | None:
    if is_absent(value):
        return None
    number: float | None = None
    with suppress(TypeError, ValueError, OverflowError):
        number = int(value) if str(value).strip().isdecimal() else float(value)  # a float has no room for long seeds
    if number is None or isinstance(value, bool) or not 0 <= number < 2**63:
        raise UserError(f"{where}: {name} must be a number from 0, got {value!r}.")
    return number

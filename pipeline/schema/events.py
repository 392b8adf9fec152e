"""The record of a training step, one line of `events.jsonl`, and the one way to read and write such lines."""

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..support.errors import UserError
from ..support.files import write_text

EVENTS_FILE = "events.jsonl"
"""A run's events, in its folder."""


class Event(BaseModel):
    """One line of `events.jsonl`: what one step saw and did. Keys of a newer version are left alone.

    Losses are denoising losses. `forget_limit` is alpha, and `above_limit` the share of what it looks at that is
    above it; `truncated` says that all of it is. `change_*` is the first-order change of each *objective* (L_f is
    minus the forget loss) under the update that the weights really took: negative is good.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int
    loss_forget: float | None
    loss_retain: float | None
    norm_forget: float | None = None
    norm_retain: float | None = None
    cosine: float | None
    conflict: bool
    truncated: bool
    change_forget: float | None
    change_retain: float | None
    violates_forget: bool = False
    violates_retain: bool = False
    learning_rate: float
    seconds: float
    above_limit: float | None = None
    forget_limit: float | None = None

    def line(self) -> str:
        """As a line of `events.jsonl`."""
        return json.dumps(self.model_dump()) + "\n"


def append_event(path: Path, event: Event) -> None:
    """Write one more step."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(event.line())


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Write a file of these steps alone."""
    write_text(path, "".join(event.line() for event in events))


def read_events(path: Path, first: int | None = None, running: bool = False) -> list[Event]:
    """Read the steps of a run; a missing or empty file has none.

    Args:
        path: the file.
        first: how many steps to read; None for all.
        running: whether the run goes on, so that the last line may be half written and is left out if it has no end.

    Raises:
        UserError: a line is not a JSON object, lacks a key, or has a value of another kind.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {' '.join(str(error).split())}.") from None
    if running:
        lines.pop()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [_parsed(line, f"{path}, line {number}") for number, line in numbered[:first]]


def _parsed(line: str, where: str) -> Event:
    try:
        content = json.loads(line)
    except ValueError:
        raise UserError(
            f"{where}: expected one JSON object, got {line[:40]!r}. Delete the line or resume the run."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected a JSON object, got a {type(content).__name__}.")
    try:
        return Event.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = problem["loc"][0]
        if problem["type"] == "missing":
            raise UserError(f"{where}: expected the key {key!r}, found {sorted(content)}.") from None
        kind = "true or false" if problem["type"].startswith("bool") else "a number"
        raise UserError(f"{where}: expected {kind} for {key!r}, got {problem['input']!r}.") from None

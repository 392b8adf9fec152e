"""The record of a training step, one line of `events.jsonl`, and the one way to read and write such lines."""

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..support.errors import Tell, UserError, untold
from ..support.files import write_text

EVENTS_FILE = "events.jsonl"
"""A run's events, in its folder."""


class Event(BaseModel):
    """One line of `events.jsonl`: what one step saw and did. Keys of a newer version are left alone.

    Losses are denoising losses. Where a step `redirects`, that on forget data is the distance to what is predicted for
    the anchors; where it `distils`, that on retain data is the distance to what the original model predicts.
    `forget_limit` is alpha, and `above_limit` the share of what it looks at that is above it; `truncated` says that all
    of it is. `change_*` is the first-order change of each *objective* under the update that the weights really took
    (L_f of an ascent is minus the forget loss): negative is good. `retain_weight` is lambda where the rule moves it.
    `retain_rise` is by how much the retain loss is above the original's, as a share of its mean, where a rule asks.
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
    retain_weight: float | None = None
    redirects: bool = False
    distils: bool = False
    retain_rise: float | None = None

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


def read_events(path: Path, before: int | None = None, running: bool = False, tell: Tell = untold) -> list[Event]:
    """Read the steps of a run in their order; a missing or empty file has none.

    A line that can't be read is left out, with a word. Of a step that stands there twice the last is taken.

    Args:
        path: the file.
        before: leave out this step and those that follow; None for all.
        running: whether the run goes on, so that a last line without an end is being written.
        tell: told how many lines were left out, and what is wrong with the first.

    Raises:
        UserError: the file can't be read.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"can't read {path}: {' '.join(str(error).split())}.") from None
    if running:
        lines.pop()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    steps: dict[int, Event] = {}
    wrong: list[str] = []
    for number, line in numbered:
        try:
            event = Event.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            wrong.append(f"line {number}: {'.'.join(map(str, [*problem['loc'], problem['msg']]))}")
        else:
            if before is None or event.step < before:
                steps[event.step] = event
    if wrong:
        tell(
            f"{len(wrong)} of {len(numbered)} lines of {path} can't be read and were left out; the first is {wrong[0]}."
        )
    return [steps[step] for step in sorted(steps)]

"""Talking to a person at a terminal: live progress, warnings, one-line errors."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ..support.errors import Cancelled
from ..support.files import write_text

_TELL_AFTER = 5  # seconds after which work counts as long
_WRITE_EVERY = 0.4  # seconds between two versions of the progress file

console = Console()
errors = Console(stderr=True)


class TerminalProgress:
    """A bar per stage with the time left; the first Ctrl-C, or a scheduler's SIGTERM, stops at the next safe place.

    Args:
        quiet: show nothing.
        file: where to say the same as JSON, for a program that follows: stage, done, total, seconds_left.
    """

    def __init__(self, quiet: bool = False, file: Path | None = None) -> None:
        self.quiet, self.file = quiet, file
        self.plain = not console.is_terminal and not quiet
        self.stopping = False
        self.told: list[str] = []

    @contextmanager
    def __call__(self) -> Iterator["TerminalProgress"]:
        """Show bars, and take Ctrl-C and SIGTERM, while the work runs."""
        previous = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        self.bars = Bars(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=self.quiet or self.plain,
        )
        try:
            with self.bars:
                yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stopping and number == signal.SIGINT:  # a scheduler that is out of patience kills
            raise KeyboardInterrupt
        if not self.stopping and not self.quiet:
            errors.print("Stopping after this step; press Ctrl-C again to stop at once.")
        self.stopping = True

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """Show a bar; without a terminal, print a line at the end and at each tenth of long work."""
        task = self.bars.add_task(name, total=total, note="")
        began = written = time.monotonic()
        done = told = 0
        self._write(name, 0, total, None)

        def advance(units: int = 1, note: str = "") -> None:
            nonlocal done, told, written
            if self.stopping:
                raise Cancelled("Stopped.")
            done += units
            self.bars.update(task, advance=units, note=note or self.bars.tasks[-1].fields["note"])
            now = time.monotonic()
            left = (now - began) * (total - done) / max(done, 1)
            if now - written > _WRITE_EVERY:
                written = now
                self._write(name, done, total, left if done else None)
            if self.plain and 10 * done // max(total, 1) > told and now - began > _TELL_AFTER:
                told = 10 * done // max(total, 1)
                console.print(f"{name} {done}/{total}  {note}  {left:.0f} s left", soft_wrap=True)

        yield advance
        if self.plain:
            console.print(f"{name}: {done}/{total} in {time.monotonic() - began:.1f} s", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning above the bars."""
        self.told.append(text)
        if not self.quiet:
            warn(text)

    def _write(self, stage: str, done: int, total: int, seconds_left: float | None) -> None:
        if self.file:
            told = {"stage": stage, "done": done, "total": total, "seconds_left": seconds_left}
            write_text(self.file, json.dumps(told) + "\n")


def escaped(text: object) -> str:
    """Text as it is: nothing in it is read as markup."""
    return escape(str(text))


def warn(text: str) -> None:
    """Show a warning."""
    console.print(f"[yellow]warning:[/yellow] {escaped(text)}", soft_wrap=True)

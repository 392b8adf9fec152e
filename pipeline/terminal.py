"""What the command line shows: live progress, tables, one-line errors."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from .errors import Cancelled
from .report import rows
from .results import Results

console = Console()
errors = Console(stderr=True)


class TerminalProgress:
    """A bar per stage with the time left; the first Ctrl-C stops at the next safe place."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.stopping = False

    @contextmanager
    def __call__(self) -> Iterator["TerminalProgress"]:
        """Show bars, and take Ctrl-C, while the work runs."""
        previous = signal.signal(signal.SIGINT, self._interrupt)
        self.bars = Bars(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=self.quiet,
        )
        try:
            with self.bars:
                yield self
        finally:
            signal.signal(signal.SIGINT, previous)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        errors.print("Stopping after this step; press Ctrl-C again to stop at once.")

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """See `Progress`. Without a terminal, a line at the end of each stage."""
        task = self.bars.add_task(name, total=total, note="")

        def advance(units: int = 1, note: str = "") -> None:
            if self.stopping:
                raise Cancelled("Stopped.")
            self.bars.update(task, advance=units, **({"note": note} if note else {}))

        yield advance
        if not console.is_terminal and not self.quiet:
            console.print(f"{name}: {total} done {self.bars.tasks[task].fields['note']}")


def before_after_table(results: Results) -> Table:
    """The figures that a run ends with."""
    table = Table(title=f"{results.concept}: before and after {results.method}", title_justify="left")
    for column, justify in (("", "left"), ("before", "right"), ("after", "right"), ("change", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows(results):
        table.add_row(row.name, row.before, row.after, row.change)
    return table

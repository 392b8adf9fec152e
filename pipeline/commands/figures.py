"""Tables and lines that several commands end with."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ..report import course, rows, verdict
from ..schema.results import Results, WeightsFile
from .terminal import console, escaped


def show_figures(results: Results) -> None:
    """Show what a run ended with: the verdict first, then its figures."""
    console.print(escaped(verdict(results).text), soft_wrap=True)
    console.print(_before_after_table(results))


def _before_after_table(results: Results) -> Table:
    table = Table(title=f"{results.concept}: before and after {results.method}", title_justify="left")
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for row in rows(results):
        table.add_row(row.name, row.before_text, row.after_text, row.change)
    return table


def show_weights(records: Sequence[WeightsFile], run: Path) -> None:
    """Say where weights were written, and how well a LoRA holds the change."""
    for record in records:
        console.print(f"weights ({record.format}): {escaped(run / record.path)}", soft_wrap=True)
        if record.lora:
            fit = record.lora
            missing = ", ".join(f"{count} {kind}" for kind, count in fit.left_out.items()) or "nothing"
            console.print(
                f"  rank {fit.rank}, relative residual {fit.residual:.3f}; left out: {missing} "
                f"({fit.left_out_share:.1%} of the squared change)",
                soft_wrap=True,
            )


def show_course(results: Results) -> None:
    """Print what was done to the weights, and how long all of it took."""
    console.print(f"{course(results.training)}, all in {results.timings.total:.0f} s")

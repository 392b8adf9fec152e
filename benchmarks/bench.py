"""`turpentine bench`: measure the cells of tables, and write their pages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ..pipeline.support.errors import UserError
from ..pipeline.support.files import write_text
from ..pipeline.support.progress import Progress
from ..pipeline.support.text import counted
from . import TABLES
from .store import Store
from .table import Options, Record, Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "results"
QUICK = Path("runs") / "bench-quick"


def load_table(name: str) -> Table:
    """Import the table of a name.

    Raises:
        UserError: no table has this name.
    """
    if name not in TABLES:
        raise UserError(f"table must be 'all' or one of {list(TABLES)}, got {name!r}.")
    return import_module(TABLES[name], __package__).TABLE


def bench(
    names: Sequence[str], asked: Options, progress: Progress, results: Path | None = None, pages: Path | None = None
) -> list[Path]:
    """Measure the cells that are missing, and write the page of each table.

    Args:
        names: of `TABLES`, or "all".
        asked: quick or not, and the seeds.
        progress: told of each cell; may cancel. Finished cells are kept.
        results: folder of the measured cells; by default the repository's, or one under `runs/` when quick.
        pages: folder of the pages and figures, with the like defaults.

    Returns:
        The pages.
    """
    results = results or (QUICK / "cells" if asked.quick else RESULTS)
    pages = pages or (QUICK if asked.quick else PAGES)
    named = [name for each in names for name in (TABLES if each == "all" else [each])]
    tables = {name: load_table(name) for name in named}
    written = []
    for name, table in tables.items():
        store = Store(results / f"{table.store or name}.json")
        options = replace(asked, seeds=asked.seeds or table.seeds)
        cells = table.cells(options)
        with progress.stage(f"table {name}", len(cells)) as advance:
            for cell in cells:
                record = store.measure(cell, progress)
                advance(1, f"{cell.key} {record.seconds:.0f} s")
        measured = {cell.key: store.records[cell.key] for cell in cells}
        written.append(pages / f"{name}.md")
        write_text(written[-1], _page(name, table, measured, pages, options))
    return written


def _measured_by(records: Mapping[str, Record]) -> str:
    """Say of which version the figures are; one that a later version added is missing in older cells."""
    counts = Counter(record.version for record in records.values())
    return " ".join(
        f"{counted(count, 'cell')} measured by version {version}."
        if version
        else f"{counted(count, 'cell')} measured before cells named their version; what came later is a dash."
        for version, count in sorted(counts.items())
    )


def _page(name: str, table: Table, records: Mapping[str, Record], folder: Path, options: Options) -> str:
    seconds = sum(record.seconds for record in records.values())
    seeds = ", ".join(map(str, options.seeds))
    quick = " **A quick run: the figures mean nothing.**" if options.quick else ""
    return (
        f"# {table.title}\n\n{table.page(records, folder)}\n\n"
        f"Made by `turpentine bench {name}`: {len(records)} cells, {seconds / 60:.1f} minutes in all, seeds {seeds}. "
        f"{_measured_by(records)}"
        f"{quick}\n"
    )

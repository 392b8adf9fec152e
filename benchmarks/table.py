"""A table: cells that are measured one by one, and a page that is made of all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pipeline.support.progress import Progress

Figures = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One measurement of a table.

    Attributes:
        key: its name within the table, unique.
        labels: what the page groups by, for example {"method": "rgd", "class": "3"}.
        seed: decides every random choice in it.
        settings: everything else that decides the figures; a kept cell with other settings is measured again.
        measure: does the work.
        files: files that it leaves on disk for the page; a kept cell is measured again if one is missing.
    """

    key: str
    labels: Mapping[str, str]
    seed: int
    settings: Mapping[str, Any]
    measure: Callable[[Progress], Figures] = field(compare=False)
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Record:
    """A measured cell, as it is kept.

    Attributes:
        labels: of the cell.
        seed: of the cell.
        seconds: duration of the measurement.
        figures: the measured figures, by name.
        settings: of the cell.
        version: of Turpentine that measured it; empty if that was before records kept it.
    """

    labels: dict[str, str]
    seed: int
    seconds: float
    figures: Figures
    settings: dict[str, Any]
    version: str = ""


@dataclass(frozen=True)
class Options:
    """Choices of the command line for a table.

    Attributes:
        quick: few steps, images and cells, to show that the table can be made.
        seeds: every cell is measured once for each; none for the table's own.
    """

    quick: bool = False
    seeds: Sequence[int] = (0,)


@dataclass(frozen=True)
class Table:
    """A table of the paper, or one of ours.

    Attributes:
        title: heading of its page.
        cells: all of them, in the order in which they are measured.
        page: Markdown below the heading, from the records by key; figures go into the folder.
        store: name of the file of its cells, if tables share one; by default the table's own name.
        seeds: of its cells, where nobody asks for others.
    """

    title: str
    cells: Callable[[Options], list[Cell]]
    page: Callable[[Mapping[str, Record], Path], str]
    store: str = ""
    seeds: Sequence[int] = (0,)

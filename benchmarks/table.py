"""What a table is: cells that are measured one by one, and a page made of all of them."""

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
        settings: everything else that decides the figures; a kept cell with other settings is measured anew.
        measure: does the work.
        files: what it leaves on disk for the page; a kept cell is measured anew where one of them is gone.
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
        seconds: that it took.
        figures: what was measured.
        settings: of the cell.
    """

    labels: dict[str, str]
    seed: int
    seconds: float
    figures: Figures
    settings: dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line asks of a table.

    Attributes:
        quick: few steps, images and cells, to see that it works.
        seeds: every cell is measured once for each.
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
        store: name of the file of its cells, where tables share them; by default the table's own.
    """

    title: str
    cells: Callable[[Options], list[Cell]]
    page: Callable[[Mapping[str, Record], Path], str]
    store: str = ""

"""`turpentine bench`: the tables of the paper, measured on the bundled models."""

import argparse

from ..support.errors import UserError
from .options import check_folder, path_of
from .terminal import TerminalProgress, console, escaped

EXAMPLES = """examples:
  turpentine bench concepts --quick
  turpentine bench all --seeds 0,1,2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the tables and where their cells and pages are."""
    parser.add_argument("table", nargs="+", help="names of tables, or 'all'")
    parser.add_argument("--quick", action="store_true", help="a few cells, steps and images, to see it work")
    parser.add_argument("--seeds", metavar="N,…", help="measure every cell once for each; default 0, with rules 0,1")
    parser.add_argument("--results", type=path_of, metavar="DIR", help="measured cells; default benchmarks/results")
    parser.add_argument("--pages", type=path_of, metavar="DIR", help="pages and figures; default docs/results")


def run(arguments: argparse.Namespace) -> None:
    """Measure the cells that are missing and write the pages."""
    from ...benchmarks.bench import bench  # heavy: torch and diffusers
    from ...benchmarks.table import Options

    try:
        seeds = tuple(int(seed) for seed in (arguments.seeds or "").split(","))
    except ValueError:
        seeds = ()
    if arguments.seeds is not None and (not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)):
        raise UserError(
            f"expected different whole numbers from 0, joined by commas, for --seeds, got {arguments.seeds!r}."
        )
    for folder in (arguments.results, arguments.pages):
        if folder is not None:
            check_folder(folder)
    with TerminalProgress()() as progress:
        pages = bench(arguments.table, Options(arguments.quick, seeds), progress, arguments.results, arguments.pages)
    for page in pages:
        console.print(f"page: {escaped(page)}", soft_wrap=True)

"""`turpentine report`: the page and the model card of a run, written again."""

import argparse

from ..support.errors import UserError
from ..support.places import existing
from .options import path_of
from .terminal import console, escaped, warn

EXAMPLES = """examples:
  turpentine report runs/cat-rgd-20260101-120000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder."""
    parser.add_argument("folder", type=path_of, metavar="RUN", help="run folder")


def run(arguments: argparse.Namespace) -> None:
    """Write both."""
    from ..run.folder import RunFolder  # heavy: torch and diffusers

    run = RunFolder(existing(arguments.folder, "a run folder"))
    run.finished()  # there is something to report
    if run.is_there:
        try:
            run.recipe(warn)
        except UserError as error:
            warn(f"{error}. The report shows the recipe that was carried out.")
    with run.locked():
        page = run.write_report(warn)
    console.print(f"report: {escaped(page)}", soft_wrap=True)

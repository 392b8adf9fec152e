"""`turpentine report`: the page and the model card of a run, written again."""

import argparse
from pathlib import Path

from .terminal import console, escaped

EXAMPLES = """examples:
  turpentine report runs/cat-rgd-20260101-120000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")


def run(arguments: argparse.Namespace) -> None:
    """Write both."""
    from ..report import write_report  # heavy: matplotlib

    console.print(f"report: {escaped(write_report(arguments.folder))}", soft_wrap=True)

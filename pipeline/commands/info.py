"""`turpentine info`: where weights came from and whether they are whole, or what a run gave."""

import argparse
import json
from pathlib import Path

from ..schema.results import Results
from ..support.errors import UserError
from .options import path_of
from .terminal import console, escaped

EXAMPLES = """examples:
  turpentine info cat-delta.safetensors
  turpentine info runs/cat-rgd-20260101-120000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file or folder."""
    parser.add_argument("file", type=path_of, metavar="FILE|RUN", help="a .safetensors file or a run folder")


def run(arguments: argparse.Namespace) -> None:
    """Show it."""
    if arguments.file.is_dir():
        _show_run(arguments.file)
    else:
        _show_weights(arguments.file)


def _show_run(folder: Path) -> None:
    from ..run.folder import RunFolder  # heavy: torch and diffusers
    from .figures import show_figures

    results = Results.load(folder / "results.json")
    show_figures(results)
    for path, state in RunFolder(folder).states(results).items():
        console.print(f"{escaped(path)}: {state}", soft_wrap=True)


def _show_weights(file: Path) -> None:
    from ..weights import check_tensors, read_header  # heavy: torch

    metadata = read_header(file)
    if not any(key.startswith("turpentine.") for key in metadata):
        raise UserError(f"{file} was not written by Turpentine; its metadata: {json.dumps(metadata)[:200]}")
    for key, value in metadata.items():
        console.print(f"[bold]{key}[/bold] {escaped(value)}", soft_wrap=True)
    match check_tensors(file):
        case False:
            raise UserError(f"the tensors of {file} are not those that its header was written for.")
        case True:
            console.print("The tensors are those that the header was written for (sha256).")
        case None:
            console.print("The header holds no hash of the tensors, so they could not be checked.")

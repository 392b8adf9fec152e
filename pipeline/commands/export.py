"""`turpentine export`: more weights formats of a finished run."""

import argparse

from ..schema.defaults import merge, stored_recipe
from ..schema.idle import idle_options
from ..schema.resolve import resolve
from ..support.errors import UserError
from .options import add_recipe_options, chosen, path_of
from .terminal import TerminalProgress, warn

EXAMPLES = """examples:
  turpentine export runs/cat-rgd-20260101-120000 --formats lora,delta
  turpentine export runs/cat-rgd-20260101-120000 --formats lora --lora-rank 64"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder and the options of the output."""
    add_recipe_options(parser, "output")
    parser.add_argument("folder", type=path_of, metavar="RUN", help="run folder")
    parser.add_argument("--base", metavar="MODEL", help="the model that the run started from, if it has moved")


def run(arguments: argparse.Namespace) -> None:
    """Write the formats into the run folder; its results and report name them afterwards."""
    from ..run.export import export_run  # heavy: torch and diffusers
    from ..run.folder import RunFolder
    from .figures import show_weights

    wanted = chosen(arguments)
    if not wanted.get("output", {}).get("formats"):
        raise UserError("expected the formats to write, for example --formats single_file,lora.")
    recipe = RunFolder.open(arguments.folder).recipe(warn)
    changed = stored_recipe(merge(recipe.model_dump(mode="json"), wanted))
    for warning in idle_options(resolve(changed), [f"output.{key}" for key in wanted["output"]]):
        warn(warning)
    with TerminalProgress()() as progress:
        records = export_run(arguments.folder, changed.output, arguments.base, progress)
    show_weights(records, arguments.folder)

"""`turpentine undo`: one concept taken back from an unlearned model."""

import argparse

from ..schema.defaults import build_part
from .options import add_folder_options, add_recipe_options, check_folder, chosen, path_of
from .terminal import console, escaped

EXAMPLES = """examples:
  turpentine undo runs/cat-rgd-20260101-120000 --out with-cat
  turpentine undo runs/cat-rgd-20260101-120000 --model runs/dog-rgd-20260102-120000 --out with-cat
  turpentine undo cat-delta.safetensors --model path/to/diffusers-folder --out with-cat"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is taken back, the model, and where the result goes."""
    parser.add_argument("removal", type=path_of, metavar="RUN|FILE", help="the run that removed it, or its delta")
    parser.add_argument(
        "--model", metavar="MODEL", help="take it back from this model (or run), in which it was removed; default: RUN"
    )
    add_recipe_options(parser, "model_config_folder", "device")
    parser.add_argument("--base", metavar="MODEL", help="the model that the run started from, if it has moved")
    add_folder_options(parser, "nothing shows that the model holds the removal")


def run(arguments: argparse.Namespace) -> None:
    """Write the model in which the concept is back, and say what is still removed."""
    from ..run.undo import undo_to_folder  # heavy: torch and diffusers

    check_folder(arguments.out)
    part = build_part(chosen(arguments), "model_config_folder", "device")
    undone = undo_to_folder(
        arguments.removal,
        arguments.out,
        arguments.model,
        part.device,
        dtype=arguments.dtype,
        base=arguments.base,
        model_config_folder=part.model_config_folder,
        any_base=arguments.any_base,
    )
    console.print(escaped(undone.taken.told), soft_wrap=True)
    if undone.base:
        console.print(f"The model before the removal is also still there: {escaped(undone.base)}", soft_wrap=True)
    console.print(f"weights (diffusers): {escaped(undone.folder)}", soft_wrap=True)

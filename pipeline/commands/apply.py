"""`turpentine apply`: weights put onto a model, at any strength."""

import argparse

from ..schema.defaults import build_part
from .options import add_folder_options, add_recipe_options, check_folder, chosen, path_of
from .terminal import console, escaped

EXAMPLES = """examples:
  turpentine apply cat-delta.safetensors --model path/to/diffusers-folder --strength 0.8 --out weaker"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the weights, the model, and where the result goes."""
    add_recipe_options(parser, "model", "device")
    parser.add_argument("weights", type=path_of, metavar="WEIGHTS", help="a .safetensors file")
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="0 = nothing, 1 = as unlearned; default 1"
    )
    add_folder_options(parser, "the weights were made from another model")


def run(arguments: argparse.Namespace) -> None:
    """Write the patched model as a diffusers folder."""
    from ..run.export import apply_to_folder  # heavy: torch and diffusers

    check_folder(arguments.out)
    part = build_part(chosen(arguments), "model", "device")
    folder = apply_to_folder(
        arguments.weights,
        part.model,
        part.device,
        arguments.out,
        arguments.strength,
        arguments.dtype,
        arguments.any_base,
    )
    console.print(f"weights (diffusers): {escaped(folder)}", soft_wrap=True)

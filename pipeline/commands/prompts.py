"""`turpentine prompts`: the paired forget and retain prompts."""

import argparse

from ..prompts.tables import suffix_of
from ..schema.defaults import build_recipe
from ..schema.idle import idle_options
from ..schema.resolve import resolve
from .options import add_recipe_file, add_recipe_options, check_file, nested_options, path_of
from .terminal import console, escaped, warn

EXAMPLES = """examples:
  turpentine prompts --concept cat
  turpentine prompts --concept "van gogh" --kind style --model sd14 --n 200 --out prompts.csv"""


FIELDS = ("concept", "kind", "attribute_of", "model", "seed", "method", "prompts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide the prompts."""
    add_recipe_options(parser, *FIELDS)
    add_recipe_file(parser)
    parser.add_argument(
        "--out", type=path_of, metavar="FILE", help="a .json, .csv or .txt file; default: show some pairs"
    )


def run(arguments: argparse.Namespace) -> None:
    """Make them, and save or show them."""
    from ..run.prompts import prompts_of  # heavy: torch and diffusers

    if arguments.out:
        check_file(arguments.out)
        suffix_of(arguments.out)
    setting = resolve(build_recipe(nested_options(arguments)))
    for warning in idle_options(setting, FIELDS, trains=False):  # before a language model takes its time
        warn(warning)
    prompts = prompts_of(setting)
    if arguments.out:
        for warning in prompts.warnings:  # the preview has them, too
            warn(warning)
        prompts.save(arguments.out)
        console.print(f"{len(prompts.train)} training and {len(prompts.test)} test pairs: {escaped(arguments.out)}")
    else:
        console.print(escaped(prompts.preview()), soft_wrap=True)

"""`turpentine generate`: images of prompts."""

import argparse

from ..schema.defaults import build_part
from ..schema.fields import TRAINING_IMAGES
from ..support.errors import UserError
from ..support.text import counted
from .options import (
    add_progress_file,
    add_prompt_list,
    add_recipe_file,
    add_recipe_options,
    check_folder,
    check_prompt_list,
    chosen,
    nested_options,
    path_of,
)
from .terminal import TerminalProgress, console, escaped, warn

EXAMPLES = """examples:
  turpentine generate "a photo of a cat at night" --out pictures
  turpentine generate --from prompts.txt --model runs/cat/weights/diffusers --seed 7 --out pictures"""

_FIELDS = ("model", "model_config_folder", "seed", "device", "samples")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide a picture."""
    add_recipe_options(parser, *_FIELDS, skip=TRAINING_IMAGES)
    add_recipe_file(parser)
    parser.add_argument("prompt", nargs="*", help="what to draw")
    add_prompt_list(parser, "prompts to draw")
    parser.add_argument(
        "--out",
        type=path_of,
        required=True,
        metavar="DIR",
        help="folder for the images; the same command goes on with it after a stop",
    )
    add_progress_file(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draw one image for each prompt; image i has the seed plus i, unless the file names one for it.

    A folder with a part of the same images gets the others.
    """
    from ..models import load_denoiser  # heavy: torch and diffusers
    from ..prompts import EvaluationPrompt, load_prompts
    from ..run.drawn import PictureFolder
    from ..run.generate import plans_of
    from ..run.stages import drawing_stages

    rows = [EvaluationPrompt(prompt=text) for text in arguments.prompt]
    if arguments.prompt_file:
        rows += load_prompts(arguments.prompt_file, warn, arguments.where)
    if not rows:
        raise UserError("expected prompts: write some behind the command, or name a file with --from.")
    check_prompt_list(arguments)
    folder = PictureFolder(arguments.out)
    folder.check_free(len(rows))
    check_folder(arguments.out)
    options = chosen(arguments)
    given = {*options, *options.get("samples", {})}  # options override the file
    part = build_part(nested_options(arguments), *_FIELDS)
    stages = drawing_stages(part.samples, part.device)
    denoiser = load_denoiser(part.model, part.device, part.model_config_folder, stages)
    for warning in denoiser.warnings:
        warn(warning)
    sampling = part.samples.sampling()
    plans = plans_of([row.without(given) for row in rows], sampling, part.seed)
    with TerminalProgress(file=arguments.progress_file)() as progress:
        files = folder.draw(denoiser, plans, sampling, progress)
    console.print(f"{counted(len(files), 'image')}: {escaped(arguments.out)}", soft_wrap=True)

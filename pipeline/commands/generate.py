"""`turpentine generate`: images of prompts."""

import argparse

from PIL import Image

from ..schema.defaults import build_part
from ..schema.fields import TRAINING_IMAGES
from ..support.errors import UserError
from ..support.files import replacing
from .options import add_recipe_file, add_recipe_options, check_folder, check_free, chosen, nested_options, path_of
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
    parser.add_argument(
        "--from",
        dest="prompt_file",
        type=path_of,
        metavar="FILE",
        help="prompts in a .txt, .csv or .json file; its own seeds and guidance are used, unless given here",
    )
    parser.add_argument("--out", type=path_of, required=True, metavar="DIR", help="folder for the images")


def run(arguments: argparse.Namespace) -> None:
    """Draw one image for each prompt; image i has the seed plus i, unless the file names one for it."""
    from ..models import load_denoiser  # heavy: torch and diffusers
    from ..prompts import EvaluationPrompt, load_prompts
    from ..run.generate import generate

    rows = [EvaluationPrompt(prompt=text) for text in arguments.prompt]
    if arguments.prompt_file:
        rows += load_prompts(arguments.prompt_file, warn)
    if not rows:
        raise UserError("expected prompts: write some behind the command, or name a file with --from.")
    files = [arguments.out / f"{index:05d}.png" for index in range(len(rows))]
    for file in files:
        check_free(file)
    check_folder(arguments.out)
    options = chosen(arguments)
    given = {*options, *options.get("samples", {})}  # options override the file
    part = build_part(nested_options(arguments), *_FIELDS)
    denoiser = load_denoiser(part.model, part.device, part.model_config_folder)
    for warning in denoiser.warnings:
        warn(warning)
    with TerminalProgress()() as progress:
        images = generate(denoiser, [row.without(given) for row in rows], part.samples.sampling(), part.seed, progress)
    for file, image in zip(files, images, strict=True):
        with replacing(file) as partial:
            Image.fromarray(image).save(partial)
    console.print(f"{len(images)} image{'s' * (len(images) > 1)}: {escaped(arguments.out)}", soft_wrap=True)

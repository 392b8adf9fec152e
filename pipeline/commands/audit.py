"""`turpentine audit`: the figures of one model, as it is."""

import argparse

from ..schema.defaults import build_recipe
from ..schema.fields import TRAINING_IMAGES
from ..schema.resolve import resolve
from ..support.files import write_text
from .options import add_progress_file, add_recipe_file, add_recipe_options, check_file, nested_options, path_of
from .terminal import TerminalProgress, console

EXAMPLES = """examples:
  turpentine audit --concept cat
  turpentine audit --concept nudity --kind nudity --model path/to/diffusers-folder --device cuda --out figures.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide what is drawn and measured."""
    sections = ("concept", "kind", "model", "model_config_folder", "seed", "device", "method", "prompts", "samples")
    add_recipe_options(parser, *sections, "data.dataset", "data.forget_images", "audits", skip=TRAINING_IMAGES)
    add_recipe_file(parser)
    parser.add_argument("--out", type=path_of, metavar="FILE", help="write the figures as JSON")
    add_progress_file(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draw the audit images of a model and measure them."""
    from ..models import load_denoiser  # heavy: torch and diffusers
    from ..run.audit import audit_anchors, audit_prompts, draw, measure, subject_of
    from ..run.preflight import preflight, preflight_model

    if arguments.out:
        check_file(arguments.out)
    setting = resolve(build_recipe(nested_options(arguments)))
    recipe, subject = setting.recipe, subject_of(setting)
    checked = preflight(setting, trains=False)
    denoiser = load_denoiser(recipe.model, recipe.device, recipe.model_config_folder)
    texts = audit_prompts(checked.prompts, recipe.audits, subject)
    with TerminalProgress(file=arguments.progress_file)() as progress:
        for warning in (*checked.warnings, *preflight_model(setting, checked.prompts, denoiser, trains=False)):
            progress.warn(warning)
        images = draw(denoiser, texts, recipe.samples.sampling(), recipe.seed, progress)
        anchors = audit_anchors(checked.prompts, recipe.audits)
        result = measure(images, texts, recipe.audits, subject, progress, denoiser.device, anchors)
    text = result.model_dump_json(indent=2, exclude_none=True)
    if arguments.out:
        write_text(arguments.out, text + "\n")
    console.print_json(text)

"""`turpentine audit`: the figures of one model, as it is, or of pictures that are there already."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..schema.defaults import SOME_MODEL, build_part, build_recipe
from ..schema.fields import TRAINING_IMAGES, fields_of, value_at
from ..schema.resolve import resolve
from ..schema.results import Record
from ..support.errors import UserError
from ..support.files import write_text
from .options import (
    add_progress_file,
    add_prompt_list,
    add_recipe_file,
    add_recipe_options,
    check_file,
    check_folder,
    check_prompt_list,
    chosen,
    nested_options,
    path_of,
)
from .terminal import TerminalProgress, console

EXAMPLES = """examples:
  turpentine audit --concept cat
  turpentine audit --concept nudity --kind nudity --model path/to/diffusers-folder --device cuda --out figures.json
  turpentine audit --from i2p.csv --where "nudity_percentage > 0" --model path/to/diffusers-folder --keep i2p-pictures
  turpentine audit --images path/to/pictures --concept cat"""

_MEASURED = tuple(
    f"audits.{name}"
    for name in (
        *("nudity", "nudity_threshold", "nudity_labels"),
        *("alignment", "alignment_model", "alignment_transform", "accuracy"),
    )
)
_OF_PICTURES = ("concept", "kind", "model", "device", *_MEASURED)
"""Fields that have a say where pictures are measured that are there already: the model only says whose they are."""
_OF_LIST = (*_OF_PICTURES, "model_config_folder", "seed", "samples")
"""The same where a list of prompts is drawn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide what is drawn and measured."""
    sections = ("concept", "kind", "model", "model_config_folder", "seed", "device", "method", "prompts", "samples")
    add_recipe_options(parser, *sections, "data.dataset", "data.forget_images", "audits", skip=TRAINING_IMAGES)
    add_recipe_file(parser)
    add_prompt_list(parser, "draw and measure this list instead of the concept's own prompts")
    parser.add_argument(
        "--keep",
        type=path_of,
        metavar="DIR",
        help="keep the pictures of --from in this folder; the same command goes on with them after a stop",
    )
    parser.add_argument(
        "--images",
        type=path_of,
        metavar="DIR",
        help="measure the pictures of this folder and draw none; prompts beside them (NAME.txt), or by --from",
    )
    parser.add_argument("--out", type=path_of, metavar="FILE", help="write the figures as JSON")
    add_progress_file(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measure a model, or pictures."""
    if arguments.out:
        check_file(arguments.out)
    if arguments.keep and (arguments.images or not arguments.prompt_file):
        raise UserError("--keep takes the pictures of --from, and there are none. Leave it out.")
    check_prompt_list(arguments)
    audited = _pictures if arguments.images else _list if arguments.prompt_file else _model
    text = audited(arguments).model_dump_json(indent=2, exclude_none=True)
    if arguments.out:
        write_text(arguments.out, text + "\n")
    console.print_json(text)


def _model(arguments: argparse.Namespace) -> Record:
    """Draw the prompts of a concept and measure the pictures."""
    from ..models import load_denoiser  # heavy: torch and diffusers
    from ..run.audit import audit_anchors, audit_prompts, draw, measure, subject_of
    from ..run.preflight import preflight, preflight_model
    from ..run.stages import drawing_stages

    setting = resolve(build_recipe(nested_options(arguments)))
    recipe, subject = setting.recipe, subject_of(setting)
    checked = preflight(setting, trains=False)
    stages = drawing_stages(recipe.samples, recipe.device)
    denoiser = load_denoiser(recipe.model, recipe.device, recipe.model_config_folder, stages)
    texts = audit_prompts(checked.prompts, recipe.audits, subject)
    with TerminalProgress(file=arguments.progress_file)() as progress:
        for warning in (*checked.warnings, *preflight_model(setting, checked.prompts, denoiser, trains=False)):
            progress.warn(warning)
        images = draw(denoiser, texts, recipe.samples.sampling(), recipe.seed, progress)
        anchors = audit_anchors(checked.prompts, recipe.audits)
        return measure(images, texts, recipe.audits, subject, progress, denoiser.device, anchors)


def _list(arguments: argparse.Namespace) -> Record:
    """Draw a list of prompts and measure the pictures."""
    from ..audits import Evaluation  # heavy: torch and diffusers
    from ..models import load_denoiser
    from ..models.load import check_model
    from ..prompts import load_prompts
    from ..run.drawn import PictureFolder
    from ..run.evaluate import evaluate_list, subject_of_pictures
    from ..run.stages import drawing_stages

    given = _without_pairs(arguments)
    part = build_part(given, "model", "model_config_folder", "seed", "device", "samples", "audits")
    check_model(part.model, part.model_config_folder)
    subject = subject_of_pictures(given.get("concept"), given.get("kind"), part.model)
    evaluation, told = Evaluation(part.audits, subject, prompted=True), _idle(arguments, _OF_LIST, "a list of prompts")
    told += evaluation.check()
    options = chosen(arguments)
    fixed = {*options, *options.get("samples", {})}  # options override the file
    rows = [row.without(fixed) for row in load_prompts(arguments.prompt_file, told.append, arguments.where)]
    if arguments.keep:
        PictureFolder(arguments.keep).check_free(len(rows))
        check_folder(arguments.keep)
    stages = drawing_stages(part.samples, part.device)
    denoiser = load_denoiser(part.model, part.device, part.model_config_folder, stages)
    with TerminalProgress(file=arguments.progress_file)() as progress:
        for warning in (*told, *denoiser.warnings):
            progress.warn(warning)
        sampling, source = part.samples.sampling(), str(arguments.prompt_file)
        result = evaluate_list(denoiser, rows, evaluation, sampling, part.seed, source, progress, arguments.keep)
    return result.model_copy(update={"where": list(arguments.where)})


def _pictures(arguments: argparse.Namespace) -> Record:
    """Measure pictures that are there already."""
    from ..audits import Evaluation  # heavy: torch and diffusers
    from ..models.load import check_model, choose_device
    from ..prompts import load_prompts
    from ..run.evaluate import given_pictures, subject_of_pictures

    given = _without_pairs(arguments)
    model = given.get("model")
    if model is not None:
        check_model(str(model))
    part = build_part({**given, "model": model or SOME_MODEL}, "device", "audits")
    device, told = choose_device(part.device), _idle(arguments, _OF_PICTURES, "pictures that are there already")
    listed = arguments.prompt_file
    rows = load_prompts(listed, told.append, arguments.where) if listed else None
    pictures = given_pictures(arguments.images, rows)
    subject = subject_of_pictures(given.get("concept"), given.get("kind"), model)
    evaluation = Evaluation(part.audits, subject, prompted=pictures.prompts is not None)
    told += [*pictures.warnings, *evaluation.check()]
    with TerminalProgress(file=arguments.progress_file)() as progress:
        for warning in told:
            progress.warn(warning)
        result = evaluation.measure(pictures.files, pictures.prompts, str(arguments.images), progress, device)
    return result.model_copy(update={"where": list(arguments.where), "model": model})


def _without_pairs(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was chosen.

    Raises:
        UserError: a file of pairs, which is another way to say what is drawn.
    """
    if value_at(chosen(arguments), ("prompts", "file")) is not None:
        raise UserError("--prompts takes pairs of forget and retain prompts. Leave it out beside --from or --images.")
    return nested_options(arguments)


def _idle(arguments: argparse.Namespace, effective: Iterable[str], on: str) -> list[str]:
    """A line for each option that was given and has no effect."""
    known = {field.key: field.option for field in fields_of()} | {"method.name": "--method"}
    used = {field.key for field in fields_of(*effective)}
    return [f"{key} ({known[key]}) has no effect on {on}." for key in _keys(chosen(arguments)) if key not in used]


def _keys(nested: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{place}{key}.")
        else:
            yield f"{place}{key}"

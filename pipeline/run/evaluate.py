"""Evaluation of a model on somebody's list of prompts, and of pictures that are there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audits import Evaluation, Images, Subject
from ..data.pictures import check_readable, find_pictures
from ..models import Denoiser, Sampling
from ..models.lineage import lineage_of
from ..prompts import EvaluationPrompt
from ..prompts.banks import known_kind
from ..prompts.concepts import read_concepts
from ..schema.results import EvaluationResult
from ..support.errors import UserError
from ..support.progress import Progress
from ..support.text import counted
from ..worlds import world_of
from .drawn import RECORD, DrawnRecord, PictureFolder
from .generate import generate, plans_of


@dataclass(frozen=True)
class GivenPictures:
    """Pictures of a folder, and what they were asked for with.

    Attributes:
        files: in the order of their names.
        prompts: one for each; None where nothing says any.
        warnings: what there is to tell of the files.
    """

    files: tuple[Path, ...]
    prompts: tuple[str, ...] | None
    warnings: tuple[str, ...] = ()


def subject_of_pictures(concept: Any = None, kind: str | None = None, model: str | None = None) -> Subject:
    """What pictures are measured for.

    Args:
        concept: as a recipe names one or several; None for no UA.
        kind: of the concept; None takes what the tables know of the first one.
        model: that drew the pictures, whose words the concept is of; None where it is not known.

    Raises:
        UserError: a concept that is no plain name.
    """
    concepts = () if concept is None else read_concepts(concept)
    kind = kind or (known_kind(concepts[0]) if concepts else None) or "object"
    return Subject(concepts, kind, world_of(kind, lineage_of(model).bundled if model else None))


def evaluate_list(
    denoiser: Denoiser,
    rows: Sequence[EvaluationPrompt],
    evaluation: Evaluation,
    sampling: Sampling,
    seed: int,
    source: str,
    progress: Progress,
    folder: Path | None = None,
) -> EvaluationResult:
    """Draw a list of prompts, each with its own seed and guidance, and measure the pictures.

    Args:
        denoiser: the model.
        rows: of the list, see `load_prompts`.
        evaluation: what is measured.
        sampling: how to draw.
        seed: row i has the seed `seed` + i where it names none.
        source: of the list.
        progress: told about each picture; may cancel.
        folder: where the pictures stay, so that a later call goes on with them; None keeps them in memory.

    Raises:
        UserError: something that the model can't draw or that can't be measured.
    """
    if folder is None:
        images: Images = generate(denoiser, rows, sampling, seed, progress)
    else:
        images = PictureFolder(folder).draw(denoiser, plans_of(rows, sampling, seed), sampling, progress)
    result = evaluation.measure(images, [row.prompt for row in rows], source, progress, denoiser.device)
    return result.model_copy(update={"model": denoiser.name})


def given_pictures(place: Path, rows: Sequence[EvaluationPrompt] | None = None) -> GivenPictures:
    """Find pictures and their prompts, and read every picture once.

    Args:
        place: a folder, or one file.
        rows: of a list of prompts, for the pictures in the order of their names. None takes what lies beside them:
            `pictures.json` of `turpentine generate`, or NAME.txt beside NAME.png.

    Raises:
        UserError: no picture, one that can't be read, or prompts of some of them only.
    """
    pictures = find_pictures(place, "--images")
    warnings = check_readable(pictures)
    if rows is not None:
        if len(rows) != len(pictures):
            raise UserError(
                f"expected a prompt for each of {counted(len(pictures), 'picture')} in {place}, got "
                f"{counted(len(rows), 'prompt')}. Leave --from out, or select its rows with --where."
            )
        prompts: list[str | None] = [row.prompt for row in rows]
    else:
        record = DrawnRecord.load(place if place.is_dir() else place.parent)
        drawn = {one.file: one.prompt for one in record.pictures} if record else {}
        prompts = [drawn.get(one.path.name, one.caption) for one in pictures]
        lacking = sum(1 for file in drawn if place.is_dir() and not (place / file).is_file())
        if lacking:
            warnings.append(f"{lacking} of {counted(len(drawn), 'picture')} of {RECORD} in {place} not drawn yet.")
    known = tuple(prompt for prompt in prompts if prompt is not None)
    if known and len(known) < len(prompts):
        first = next(one.path.name for one, prompt in zip(pictures, prompts, strict=True) if prompt is None)
        raise UserError(
            f"expected a prompt beside each picture of {place} or beside none, got {len(known)} for "
            f"{counted(len(pictures), 'picture')}; the first without is {first}. Write {Path(first).stem}.txt, or give "
            "all prompts with --from."
        )
    return GivenPictures(tuple(one.path for one in pictures), known or None, tuple(warnings))

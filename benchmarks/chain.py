"""Concepts removed one after another, each run's weights being the next one's model, and taken back again.

The run folders are kept under `CHAINS`, so that a measurement that was stopped goes on where it was.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..pipeline.audits.base import Judges
from ..pipeline.audits.zero_shot import classify
from ..pipeline.data.samples import draw_latents
from ..pipeline.models import Denoiser, load_denoiser
from ..pipeline.run.folder import RunFolder
from ..pipeline.run.prompts import prompts_of
from ..pipeline.run.undo import undo_to_folder
from ..pipeline.run.unlearning import run_recipe
from ..pipeline.schema.defaults import stored_recipe
from ..pipeline.schema.resolve import resolve
from ..pipeline.support.files import file_name
from ..pipeline.support.progress import Progress, Silent
from ..pipeline.weights import tensors_sha256
from ..pipeline.worlds import find_world
from ..pipeline.worlds.tiny_canvas import labels_of
from .table import Figures

CHAINS = Path("runs") / "bench-chain"
"""Run folders of the steps; not part of the repository."""
_SEED = 50_000_000  # pictures share no seed with training and audits

Steps = Sequence[Mapping[str, Any]]
"""The recipes of a chain, as JSON, each for the bundled model; only the first is carried out on it."""


def run_of(steps: Steps, progress: Progress) -> Path:
    """The run folder of the last step, carried out with all before it as far as they are not there yet."""
    recipe = stored_recipe(steps[-1]).model_copy(update={"model": model_after(steps[:-1], progress)})
    digest = hashlib.sha256(json.dumps(list(steps), sort_keys=True).encode()).hexdigest()[:8]
    path = CHAINS / file_name(f"{len(steps):02d}-{recipe.concept}-{digest}")
    if not (path / "results.json").exists():
        run_recipe(recipe, path, resume=RunFolder(path).is_there, progress=progress)
        RunFolder(path).forget_checkpoints()
    return path


def model_after(steps: Steps, progress: Progress) -> str:
    """The model after all steps; before any, the bundled one."""
    return str(run_of(steps, progress) / "weights" / "diffusers") if steps else "tiny-canvas"


def removed_by(steps: Steps) -> list[str]:
    """What the steps remove."""
    return [each["concept"] for each in steps]


def after_step(steps: Steps, watched: Steps, images: int, progress: Progress) -> Figures:
    """Measure the model after all steps: which concepts of `watched` it draws."""
    denoiser = load_denoiser(model_after(steps, progress), "cpu")
    return {"drawn": drawn(denoiser, removed_by(steps), watched, images)}


def taken_back(steps: Steps, concept: str, watched: Steps, images: int, progress: Progress) -> Figures:
    """Measure the model after all steps when one concept was taken back; without images, its weights alone."""
    place = removed_by(steps).index(concept)
    whole, run = model_after(steps, progress), run_of(steps[: place + 1], progress)
    with TemporaryDirectory() as folder:
        undone = undo_to_folder(run, Path(folder) / "model", whole, "cpu")
        denoiser = load_denoiser(str(undone.folder), "cpu")
    before = load_denoiser(model_after(steps[:place], progress), "cpu")
    hashes = [tensors_sha256(each.module.state_dict()) for each in (denoiser, before)]
    left = [name for name in removed_by(steps) if name != concept]
    figures = {"drawn": drawn(denoiser, left, watched, images)} if images else {}
    return figures | {"equal": hashes[0] == hashes[1], "still_removed": list(undone.taken.lineage.forgotten)}


def drawn(denoiser: Denoiser, removed: Sequence[str], watched: Steps, images: int) -> dict[str, list[float]]:
    """Share of each concept's pictures in which the judge sees it, and how many of them name nothing that was removed.

    The prompts are the first of the concept's test prompts that name nothing else that was removed; where all do, the
    first of all. A prompt's picture has the same seed at every step.

    Args:
        denoiser: the model.
        removed: concepts that were removed from it.
        watched: recipes whose concepts are looked for, on their own test prompts.
        images: of each concept, at most.
    """
    world, clip, found = find_world("tiny-canvas"), Judges().clip("tiny-canvas"), {}
    for recipe in map(stored_recipe, watched):
        prompts = prompts_of(resolve(recipe)).forget_test
        others = {name for name in removed if name != recipe.concept}
        free = [place for place, prompt in enumerate(prompts) if not others & {*labels_of(prompt).values()}]
        places = (free or list(range(len(prompts))))[:images]
        latents = draw_latents(
            denoiser,
            [prompts[place] for place in places],
            recipe.samples.sampling(),
            [_SEED + place for place in places],
            Silent(),
            "drawing",
        )
        dimension, value = world.find_concept(recipe.concept)
        features = clip.encode_images(denoiser.decode(latents).numpy())
        seen = [guess == value for guess in classify(features, clip.encode_texts, dimension, world)]
        found[recipe.concept] = [sum(seen) / len(seen), len(places) if free else 0]
    return found

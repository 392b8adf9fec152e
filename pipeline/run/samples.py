"""From prompts, or from real images, to D_f and D_r."""

from collections.abc import Callable, Collection

from torch import Tensor

from ..audits import ClassJudge
from ..data.datasets import load_images
from ..data.pictures import find_pictures
from ..data.samples import SampleSet
from ..models import Denoiser
from ..prompts import PromptSet
from ..schema.recipe import DataSection, Recipe
from ..support.processes import ALONE, Processes
from ..support.progress import Progress


def real_samples(
    denoiser: Denoiser, concept: str, spec: DataSection, judge: str, seed: int, replace_with: str | None = None
) -> SampleSet:
    """Take D_f and D_r from real images, for a class-conditional model.

    Args:
        denoiser: the model.
        concept: name of the class to forget.
        spec: the images, and which of the other classes.
        judge: the classifier whose features tell which classes are similar: "digits" or a folder.
        seed: decides which images are chosen.
        replace_with: name of the class that is drawn instead; None: those that the retain images show.

    Raises:
        UserError: no such images, class or judge, or too few images of a class.
    """
    classifier = ClassJudge.load(judge)
    data = load_images(spec.dataset or "", "train", classifier.size, classifier.channels)
    return SampleSet.from_images(denoiser, data, concept, spec, classifier, seed, replace_with)


def drawn_terms(recipe: Recipe) -> list[str]:
    """The terms whose images the model draws: those that the method looks at, unless they come from files."""
    if recipe.data.dataset is not None:
        return []
    given = recipe.data.forget_images is not None
    return [term for term in recipe.method.sees if term != "forget" or not given]


def samples_of(
    denoiser: Denoiser,
    prompts: PromptSet,
    recipe: Recipe,
    progress: Progress,
    processes: Processes = ALONE,
    seen: Callable[[str, int, Tensor], None] | None = None,
    sees: Collection[str] | None = None,
) -> SampleSet:
    """Make the D_f and D_r that a recipe asks for: drawn by the model itself, or real images.

    Args:
        denoiser: the model.
        prompts: of the run.
        recipe: what to do.
        progress: told of each batch.
        processes: who draws.
        seen: called with the term, the place of the first and the latents of each batch that is drawn.
        sees: the terms whose images are needed; None for those that the recipe's method looks at.
    """
    sees = recipe.method.sees if sees is None else sees
    if recipe.data.forget_images is not None and "forget" in sees:
        pictures = [each.path for each in find_pictures(recipe.data.forget_images)]
        drawn = recipe.samples, recipe.seed * 10_000, progress, processes
        return SampleSet.of_pictures(denoiser, prompts, pictures, *drawn, recipe.data.flip_images, seen)
    if recipe.data.dataset is None:
        return SampleSet.draw(denoiser, prompts, recipe.samples, recipe.seed * 10_000, progress, processes, seen, sees)
    judge = recipe.audits.class_judge
    return real_samples(denoiser, recipe.concept, recipe.data, judge, recipe.seed, prompts.replace_with)

"""From prompts, or from real images, to D_f and D_r."""

from ..audits import ClassJudge
from ..data.datasets import load_images
from ..data.pictures import find_pictures
from ..data.samples import SampleSet
from ..models import Denoiser
from ..prompts import PromptSet
from ..schema.recipe import DataSection, Recipe
from ..support.processes import ALONE, Processes
from ..support.progress import Progress


def real_samples(denoiser: Denoiser, concept: str, spec: DataSection, judge: str, seed: int) -> SampleSet:
    """Take D_f and D_r from real images, for a class-conditional model.

    Args:
        denoiser: the model.
        concept: name of the class to forget.
        spec: the images, and which of the other classes.
        judge: the classifier whose features tell which classes are similar: "digits" or a folder.
        seed: decides which images are chosen.

    Raises:
        UserError: no such images, class or judge, or too few images of a class.
    """
    classifier = ClassJudge.load(judge)
    data = load_images(spec.dataset or "", "train", classifier.size, classifier.channels)
    return SampleSet.from_images(denoiser, data, concept, spec, classifier, seed)


def samples_of(
    denoiser: Denoiser, prompts: PromptSet, recipe: Recipe, progress: Progress, processes: Processes = ALONE
) -> SampleSet:
    """Make the D_f and D_r that a recipe asks for: drawn by the model itself, or real images."""
    if recipe.data.forget_images is not None:
        pictures = [each.path for each in find_pictures(recipe.data.forget_images)]
        drawn = recipe.samples, recipe.seed * 10_000, progress, processes
        return SampleSet.of_pictures(denoiser, prompts, pictures, *drawn, recipe.data.flip_images)
    if recipe.data.dataset is None:
        return SampleSet.draw(denoiser, prompts, recipe.samples, recipe.seed * 10_000, progress, processes)
    return real_samples(denoiser, recipe.concept, recipe.data, recipe.audits.class_judge, recipe.seed)

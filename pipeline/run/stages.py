"""The number formats and places of a run, from its recipe."""

import torch

from ..models.load import choose_device
from ..models.stages import Stages, choose_stages
from ..schema.recipe import Recipe, SampleSection


def stages_of(recipe: Recipe, loaded: torch.device | None = None) -> Stages:
    """What a run that trains wants of its model.

    Args:
        recipe: what is to be done.
        loaded: the device of a model that is loaded already, where all of it stays unless parts shall wait on the CPU.

    Raises:
        UserError: a number format that the device can't compute in.
    """
    base = "fp32" if recipe.method.closed_form else recipe.training.base_precision
    samples = recipe.samples
    device = loaded if loaded is not None and samples.offload == "none" else choose_device(recipe.device)
    return choose_stages(device, samples.sample_precision, base, samples.offload)


def drawing_stages(samples: SampleSection, device: torch.device | str) -> Stages:
    """What drawing alone wants of a model.

    Raises:
        UserError: a number format that the device can't compute in.
    """
    chosen = device if isinstance(device, torch.device) else choose_device(device)
    return choose_stages(chosen, samples.sample_precision, "fp32", samples.offload)

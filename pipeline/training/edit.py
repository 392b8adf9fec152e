"""From prompts to an unlearned network in one edit, for the methods in closed form."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..methods import MethodConfig, build_method
from ..methods.base import Row
from ..methods.closed_form import check_network
from ..models import Denoiser
from ..schema.results import TrainingResult
from ..support.progress import Progress, Silent
from .outcome import outcome


def edit(
    denoiser: Denoiser, rows: Sequence[Row], method: MethodConfig, progress: Progress | None = None
) -> TrainingResult:
    """Edit a denoiser's network in place; no images are drawn, no steps are taken.

    Args:
        denoiser: the model.
        rows: prompts of what is to be forgotten, what is drawn instead, what is to be kept.
        method: one with `closed_form`.
        progress: told of the work; may cancel, and then the weights are as they were.

    Raises:
        UserError: a network that takes no prompts.
        Cancelled: the progress asked to stop.
    """
    began = time.perf_counter()
    moved = build_method(method).edit(denoiser, rows, progress or Silent())
    done = outcome((), 0, None, time.perf_counter() - began, denoiser.device)
    return done.model_copy(update={"moved": moved})


def edited_tensors(module: Any, method: MethodConfig) -> Mapping[str, Tensor]:
    """The weights of a network that a method in closed form changes, by name.

    Raises:
        UserError: a network that takes no prompts.
    """
    return check_network(dict(module.named_parameters()), method.name)

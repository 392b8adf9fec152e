"""From samples to an unlearned network: the loop, inside a LoRA and several processes where they are asked for."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.samples import SampleSet
from ..methods import MethodConfig, build_method
from ..models import Denoiser
from ..models.placing import fast_matmul, on_device
from ..schema.recipe import TrainingSection
from ..schema.results import TrainingResult
from ..support.errors import Tell, untold
from ..support.processes import ALONE, Processes
from ..support.progress import Progress
from ..weights.factors import Adapter, Factors
from .feed import check_parts
from .lora import as_adapter, injected
from .parallel import sharded
from .trainer import Trainer


def check_samples(
    spec: TrainingSection,
    method: MethodConfig,
    forget: int,
    retain: int,
    parameters: Mapping[str, Tensor] | None = None,
) -> None:
    """Refuse, before anything is drawn, numbers of samples that the loop or the method can't work with.

    Args:
        spec: of the training.
        method: its options.
        forget: how many forget samples there will be.
        retain: the same of retain samples.
        parameters: the weights that will train, once the model is loaded; they may be without values.

    Raises:
        UserError: see `check_parts` and `Method.check`.
    """
    check_parts(spec, retain)
    build_method(method).check(forget, parameters)


def reads_empty_prompt(spec: TrainingSection, method: MethodConfig) -> bool:
    """True if the empty prompt is embedded before the first step."""
    return build_method(method).needs_unconditional or spec.proportion_empty_prompts > 0


def train(
    denoiser: Denoiser,
    samples: SampleSet,
    method: MethodConfig,
    spec: TrainingSection,
    seed: int = 0,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    after_step: Callable[[int, Progress], None] | None = None,
    tell: Tell = untold,
) -> tuple[TrainingResult, Adapter | None]:
    """Train a denoiser's network in place.

    Args:
        denoiser: the model.
        samples: D_f and D_r.
        method: what to minimise and how to combine.
        spec: steps, batch, learning rate, the weights that train, …
        seed: decides the order of the data, noise and timesteps.
        folder: where events and checkpoints go; None keeps nothing on disk.
        resume: go on from the newest checkpoint in `folder`.
        progress: told of every step; may cancel.
        processes: who else trains the same network.
        after_step: called after each step; it may draw with the model, which then stays whole in memory.
        tell: told of what was damaged in `folder`.

    Returns:
        How it went, and the LoRA if one was trained; it is fused into the network's weights too, or stays beside them
        in a `frozen_base`.

    Raises:
        UserError: the loss is not a number, or the network has no such parameters.
        Cancelled: the progress asked to stop.
    """
    fused = denoiser.stages.base == "fp32"
    with (
        on_device(denoiser),
        training_lora(denoiser.module, spec, seed, fused) as layers,
        sharded(denoiser, processes),
        fast_matmul(denoiser.device),
    ):
        trainer = Trainer(
            denoiser, build_method(method), samples, spec, seed, folder, progress, after_step, processes, tell
        )
        if after_step is None:  # the trainer has embedded the empty prompt: nobody needs the other networks now
            denoiser.release()
        try:
            result = trainer.train(resume=resume)
        finally:
            denoiser.restore()
    return result, as_adapter(layers) if layers else None


def training_lora(
    module: Any, spec: TrainingSection, seed: int, fused: bool = True
) -> AbstractContextManager[dict[str, Factors]]:
    """Put the LoRA that trains into a network while the block runs; does nothing where other weights train."""
    if spec.parameters != "lora":
        return nullcontext({})
    return injected(module, spec.adapter_rank, spec.adapter_alpha, spec.adapter_targets, seed, fused)

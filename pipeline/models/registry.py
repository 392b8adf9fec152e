"""Which adapter stands for which pipeline class, and which for which network."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..support.errors import UserError
from .base import PipelineDenoiser, check_channels
from .class_conditional import ClassConditional
from .device import check_training
from .entry import calm, check_state, embeds_itself, make_trainable, undone_on_error
from .family import Family
from .flux import Flux
from .protocol import Denoiser
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL
from .stages import Stages

ADAPTERS: tuple[type[PipelineDenoiser] | type[ClassConditional], ...] = (
    StableDiffusion,
    StableDiffusionXL,
    StableDiffusion3,
    Flux,
    ClassConditional,
)
"""Every family; one that builds on another stands after it, and is asked before it.

The rest of the program knows none of them by name.
"""


def family_of(network: nn.Module) -> type[Family] | None:
    """The family that a UNet or transformer belongs to; None for other networks."""
    return next((adapter for adapter in reversed(ADAPTERS) if adapter.owns(network)), None)


def family_called(name: str) -> type[Family] | None:
    """The family of a name, as headers and results have it."""
    return next((adapter for adapter in ADAPTERS if adapter.family == name), None)


def family_of_pipeline(pipeline_class: str) -> type[Family] | None:
    """The family of a diffusers pipeline class, from its name."""
    for adapter in ADAPTERS:
        if pipeline_class in (kind.__name__ for kind in (adapter.pipeline_class, *adapter.siblings)):
            return adapter
    return None


def pipeline_class_called(name: str) -> Any:
    """The pipeline class of a family, from its name; unlike `DiffusionPipeline` it knows what it can do without."""
    return next(kind for each in ADAPTERS for kind in (each.pipeline_class, *each.siblings) if kind.__name__ == name)


def wrap_pipeline(
    pipeline: Any, name: str | None = None, source: str | None = None, stages: Stages | None = None
) -> Denoiser:
    """Put the user's own diffusers pipeline behind the `Denoiser` protocol.

    A pipeline for another task (image-to-image, inpainting) that holds the components of a
    text-to-image one is taken as that one; both share their networks. The pipeline is brought into the state that
    `entry.make_trainable` describes, and stays so; `borrowed` gives it back as it came.

    Args:
        pipeline: the user's own.
        name: what the user calls it; None for what the pipeline says.
        source: folder that it was loaded from.
        stages: the number formats and places of its parts; None: all in float32, on its device.

    Raises:
        UserError: a pipeline class without an adapter, or a model that the adapter can't train.
    """
    with calm():
        return _taken(pipeline, name, source, Stages if stages is None else lambda _: stages)[0]


@contextmanager
def borrowed(
    pipeline: Any, name: str | None = None, stages: Callable[[torch.device], Stages] = Stages
) -> Iterator[Denoiser]:
    """`wrap_pipeline` for a while, with torch's modes as the work needs them.

    Afterwards, also after an error, the pipeline and the modes are as they came: dtypes, compiled networks, training
    mode, frozen weights. The weights that were trained stay trained, and LoRA adapters stay off.

    Args:
        pipeline: the user's own.
        name: what the user calls it; None for what the pipeline says.
        stages: gives the number formats and places of its parts from its device; all in float32 there unless said.

    Raises:
        UserError: see `wrap_pipeline`.
    """
    with calm():
        denoiser, undo = _taken(pipeline, name, None, stages)
        with undo:
            yield denoiser


def name_of(pipeline: Any) -> str:
    """What a pipeline says that it is called: the place that it was loaded from, else its class."""
    config = getattr(pipeline, "config", None) or {}
    return str(config.get("_name_or_path") or type(pipeline).__name__)


def _taken(
    pipeline: Any, name: str | None, source: str | None, chosen: Callable[[torch.device], Stages]
) -> tuple[Denoiser, ExitStack]:
    kinds = {each: (each.pipeline_class, *each.siblings) for each in reversed(ADAPTERS)}
    adapter = next((each for each in kinds if isinstance(pipeline, kinds[each])), None)
    if adapter is None:
        raise UserError(
            f"expected a diffusers pipeline of one of these classes: {supported_pipelines()}; "
            f"got {type(pipeline).__name__}."
        )
    check_state(pipeline, adapter)
    check_channels(getattr(pipeline, adapter.component))
    name = name or name_of(pipeline)
    stages = chosen(getattr(pipeline, adapter.component).device)
    warnings, undo = make_trainable(pipeline, adapter.component, stages)
    with undone_on_error(undo):
        whole = pipeline if isinstance(pipeline, adapter.pipeline_class) else _sibling(pipeline, adapter.pipeline_class)
        try:
            denoiser = adapter(whole, name, None if warnings else source, stages)  # what is on disk is not what came
        except ValueError as error:
            raise UserError(f"can't train {name!r}: {error}") from None
        if isinstance(denoiser, PipelineDenoiser) and not embeds_itself(pipeline):
            denoiser.check_parts()
        check_training(denoiser)
    denoiser.warnings = warnings
    return denoiser, undo


def supported_pipelines() -> str:
    """The pipeline classes that can be unlearned, for messages."""
    return ", ".join(adapter.pipeline_class.__name__ for adapter in ADAPTERS)


def _sibling(pipeline: Any, kind: Any) -> Any:
    """A pipeline of class `kind` over the same components and settings."""
    have = {**pipeline.config, **pipeline.components}
    wanted = inspect.signature(kind.__init__).parameters
    return kind(**{name: have[name] for name in wanted if name in have})

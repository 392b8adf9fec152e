"""Which adapter stands for which pipeline class, and which for which network."""

import inspect
from typing import Any

from torch import nn

from ..support.errors import UserError
from .base import PipelineDenoiser, check_channels
from .class_conditional import ClassConditional
from .family import Family
from .flux import Flux
from .protocol import Denoiser
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL

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


def wrap_pipeline(pipeline: Any, name: str | None = None, source: str | None = None) -> Denoiser:
    """Put the user's own diffusers pipeline behind the `Denoiser` protocol.

    A pipeline for another task (image-to-image, inpainting) that holds the components of a
    text-to-image one is taken as that one; both share their networks. LoRA adapters are fused.

    Raises:
        UserError: a pipeline class without an adapter, or a model that the adapter can't train.
    """
    kinds = {each: (each.pipeline_class, *each.siblings) for each in reversed(ADAPTERS)}
    adapter = next((each for each in kinds if isinstance(pipeline, kinds[each])), None)
    if adapter is None:
        supported = ", ".join(adapter.pipeline_class.__name__ for adapter in ADAPTERS)
        raise UserError(
            f"expected a diffusers pipeline of one of these classes: {supported}; got {type(pipeline).__name__}."
        )
    check_channels(getattr(pipeline, adapter.component))
    name = name or pipeline.config.get("_name_or_path") or type(pipeline).__name__
    fused = fuse_adapters(pipeline)
    if not isinstance(pipeline, adapter.pipeline_class):
        pipeline = _sibling(pipeline, adapter.pipeline_class)
    try:
        denoiser = adapter(pipeline, name, None if fused else source)
    except ValueError as error:
        raise UserError(f"can't train {name!r}: {error}") from None
    if fused:
        denoiser.warnings = (
            f"the model carried LoRA adapters ({', '.join(fused)}); they were fused into its weights before training.",
        )
    return denoiser


def fuse_adapters(pipeline: Any) -> list[str]:
    """Fold active LoRA adapters into the weights and remove them all; gives the names of the fused ones."""
    if not hasattr(pipeline, "get_list_adapters"):  # a family that knows no LoRAs
        return []
    carried = {part: names for part, names in pipeline.get_list_adapters().items() if names}
    if not carried:
        return []
    active = pipeline.get_active_adapters()
    if active:
        pipeline.fuse_lora(components=[part for part in carried if part in pipeline._lora_loadable_modules])
    pipeline.unload_lora_weights()
    return sorted(active)


def _sibling(pipeline: Any, kind: Any) -> Any:
    """A pipeline of class `kind` over the same components and settings."""
    have = {**pipeline.config, **pipeline.components}
    wanted = inspect.signature(kind.__init__).parameters
    return kind(**{name: have[name] for name in wanted if name in have})

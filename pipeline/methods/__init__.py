"""The registry of methods. Adding one: its file, a line here, a recipe, a test."""

from typing import Annotated, Any

from pydantic import Field

from .base import Batch, Context, Loss, Method, MethodConfig
from .finetune import Finetune, FinetuneConfig
from .grad_diff import GradDiff, GradDiffConfig
from .restricted import Restricted, RGConfig, RGDConfig

AnyMethodConfig = Annotated[FinetuneConfig | GradDiffConfig | RGConfig | RGDConfig, Field(discriminator="name")]

METHODS: dict[str, tuple[type[MethodConfig], type[Method[Any]]]] = {
    "finetune": (FinetuneConfig, Finetune),
    "grad_diff": (GradDiffConfig, GradDiff),
    "rg": (RGConfig, Restricted),
    "rgd": (RGDConfig, Restricted),
}


def build_method(config: MethodConfig) -> Method[Any]:
    """Make the method that a configuration describes."""
    return METHODS[config.name][1](config)


__all__ = ["METHODS", "AnyMethodConfig", "Batch", "Context", "Loss", "Method", "MethodConfig", "build_method"]

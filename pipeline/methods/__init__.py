"""The registry of methods. Adding one: its file, a line here, a recipe, a test."""

from typing import Annotated, Any

from pydantic import Field

from .base import Batch, Context, Loss, Method, MethodConfig
from .esd import ESD, ESDConfig, ESDUConfig, ESDXConfig
from .finetune import Finetune, FinetuneConfig
from .grad_diff import GradDiff, GradDiffConfig, GradDiffDConfig
from .restricted import Restricted, RGConfig, RGDConfig
from .salun import SalUn, SalUnConfig

AnyMethodConfig = Annotated[
    FinetuneConfig
    | GradDiffConfig
    | GradDiffDConfig
    | SalUnConfig
    | ESDConfig
    | ESDXConfig
    | ESDUConfig
    | RGConfig
    | RGDConfig,
    Field(discriminator="name"),
]

METHODS: dict[str, tuple[type[MethodConfig], type[Method[Any]]]] = {
    "finetune": (FinetuneConfig, Finetune),
    "grad_diff": (GradDiffConfig, GradDiff),
    "grad_diff_d": (GradDiffDConfig, GradDiff),
    "salun": (SalUnConfig, SalUn),
    "esd": (ESDConfig, ESD),
    "esd-x": (ESDXConfig, ESD),
    "esd-u": (ESDUConfig, ESD),
    "rg": (RGConfig, Restricted),
    "rgd": (RGDConfig, Restricted),
}


def build_method(config: MethodConfig) -> Method[Any]:
    """Make the method that a configuration describes."""
    return METHODS[config.name][1](config)


__all__ = ["METHODS", "AnyMethodConfig", "Batch", "Context", "Loss", "Method", "MethodConfig", "build_method"]

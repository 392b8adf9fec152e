"""GradDiff: ascend (or redirect) on the forget data and descend on the retain data, gradients simply added.

GradDiff takes uniform data, GradDiffD (Ko et al. 2024, Table 2) diversified data; nothing else differs.
"""

from typing import Literal

from pydantic import Field

from .combined import Combined, CombinedConfig
from .config import DATA
from .registry import register


class GradDiffConfig(CombinedConfig):
    """Options of `grad_diff`."""

    name: Literal["grad_diff"] = "grad_diff"
    data: Literal["diverse", "uniform"] = Field(default="uniform", description=DATA)


class GradDiffDConfig(CombinedConfig):
    """Options of `grad_diff_d`."""

    name: Literal["grad_diff_d"] = "grad_diff_d"


register(GradDiffConfig, Combined)
register(GradDiffDConfig, Combined)

"""GradDiff: ascend (or redirect) on the forget data and descend on the retain data, gradients simply added.

GradDiff takes uniform data, GradDiffD (Ko et al. 2024, Table 2) diversified data; nothing else differs.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ..maths.gradients import Combination, Gradient, Reduce, Tensors, weighted_sum
from .config import DATA
from .forgetting import Forgetting, ForgettingConfig
from .registry import register


class GradDiffConfig(ForgettingConfig):
    """Options of `grad_diff`."""

    name: Literal["grad_diff"] = "grad_diff"
    data: Literal["diverse", "uniform"] = Field(default="uniform", description=DATA)


class GradDiffDConfig(ForgettingConfig):
    """Options of `grad_diff_d`."""

    name: Literal["grad_diff_d"] = "grad_diff_d"


class GradDiff(Forgetting[ForgettingConfig]):
    """Minimise L_f + lambda L_r."""

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        """g_f + lambda g_r."""
        return weighted_sum(grads, self.config.retain_weight, reduce=reduce)


register(GradDiffConfig, GradDiff)
register(GradDiffDConfig, GradDiff)

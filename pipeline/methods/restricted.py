"""RG and RGD: step along the restricted gradient (Ko et al. 2024, Theorem 4).

RG takes uniform data, RGD diversified data; the combination is the same.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from ..maths.gradients import Combination, Gradient, Reduce, Tensors, restricted_gradient
from .config import DATA
from .forgetting import Forgetting, ForgettingConfig
from .registry import register


class RestrictedConfig(ForgettingConfig):
    """Options that `rg` and `rgd` share."""

    projects: ClassVar[bool] = True

    projection: Literal["global", "per_layer"] = Field(
        default="global", description="project all trained weights as one vector, or each tensor by itself"
    )


class RGConfig(RestrictedConfig):
    """Options of `rg`."""

    name: Literal["rg"] = "rg"
    data: Literal["diverse", "uniform"] = Field(default="uniform", description=DATA)


class RGDConfig(RestrictedConfig):
    """Options of `rgd`."""

    name: Literal["rgd"] = "rgd"


class Restricted(Forgetting[RestrictedConfig]):
    """Minimise both losses along a direction that raises neither to first order."""

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        """delta_f + lambda delta_r, projected in the metric `weights` where there is one."""
        return restricted_gradient(
            grads, self.config.retain_weight, self.config.projection == "per_layer", weights, reduce
        )


register(RGConfig, Restricted)
register(RGDConfig, Restricted)

"""RG and RGD: step along the restricted gradient (Ko et al. 2024, Theorem 4), or along the direction of another rule.

RG takes uniform data, RGD diversified data; the combination is the same.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ..maths.choices import RULES, RuleName
from ..maths.rules import MEASURING
from .combined import Combined, CombinedConfig
from .config import DATA
from .registry import register

_FAMO = "combine 'famo' keeps one gradient, the sum of both"


class RestrictedConfig(CombinedConfig):
    """Options that `rg` and `rgd` share."""

    projects: ClassVar[bool] = True

    projection: Literal["global", "per_layer"] = Field(
        default="global", description="project all trained weights as one vector, or each tensor by itself"
    )
    combine: RuleName = Field(
        default="restricted",
        description="rule for the two gradients: " + "; ".join(f"{name}, {does}" for name, does in RULES.items()),
    )
    budget: float = Field(
        default=0.5, ge=0, le=1000, description="percent by which the retain loss may rise, with combine 'budget'"
    )

    @model_validator(mode="after")
    def _can_be_compared(self) -> "RestrictedConfig":
        if self.combine == "famo" and self.retain_weight == 0:
            raise ValueError("combine 'famo' needs a retain_weight above 0, got 0")
        if self.combine == "famo" and self.retain == "distil":
            raise ValueError(f"combine 'famo' needs retain 'denoise', got {self.retain!r}, a loss that begins at 0")
        return self

    @property
    def rule(self) -> str:
        """The one that was chosen."""
        return self.combine

    @property
    def per_layer(self) -> bool:
        """Whether each tensor is projected by itself."""
        return self.projection == "per_layer"

    @property
    def allowance(self) -> float:
        """The budget as a share."""
        return self.budget / 100

    @property
    def gradients(self) -> int:
        """One with `famo`."""
        return 1 if self.combine == "famo" else len(self.terms)

    @property
    def compares(self) -> bool:
        """With `budget`."""
        return self.combine == "budget"

    def idle(self) -> Mapping[str, str]:
        """Not every rule has a weight, inner products or a budget."""
        told = f"with method.combine {self.combine!r}"
        needs = {
            "retain_weight": (self.combine not in ("bisector", "mgda"), "leave it out"),
            "projection": (self.combine in MEASURING, "leave it out"),
            "budget": (self.combine == "budget", "add --combine budget"),
        }
        return {**super().idle(), **{key: f"{told}: {remedy}" for key, (used, remedy) in needs.items() if not used}}

    def refuses(self) -> Mapping[str, str]:
        """What needs inner products, or both gradients."""
        if self.combine == "famo":
            return dict.fromkeys(("metric", "guard", "forget_gradient"), _FAMO)
        if self.combine in MEASURING or self.combine == "sago":
            return {}
        return {"metric": f"combine {self.combine!r} takes no inner products, which it would change"}


class RGConfig(RestrictedConfig):
    """Options of `rg`."""

    name: Literal["rg"] = "rg"
    data: Literal["diverse", "uniform"] = Field(default="uniform", description=DATA)


class RGDConfig(RestrictedConfig):
    """Options of `rgd`."""

    name: Literal["rgd"] = "rgd"


register(RGConfig, Combined)
register(RGDConfig, Combined)

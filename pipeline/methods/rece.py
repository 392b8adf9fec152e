"""RECE: UCE, then what still draws the concept is looked for in closed form and edited, too (Gong et al. 2024).

After an edit, the embedding c' that the edited layers read as the original ones read the concept is

    c' = argmin  sum_l ||W'_l c' - W_l c||^2 + lambda ||c'||^2        (Eqs. 7 and 8)

and the next round edits c' in place of c.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ..maths.closed_form import Moments, rece_map
from .closed_form import SIZE, ClosedForm, ScaledConfig
from .registry import register


class RECEConfig(ScaledConfig):
    """Options of `rece`.

    With one anchor for all prompts its rounds also took from what should stay, so its anchors are the retain prompts.
    """

    recipe: ClassVar[Mapping[str, Mapping[str, object]]] = {"prompts": {"n": 64}}

    name: Literal["rece"] = "rece"
    lamb: float = Field(default=0.1, gt=0, le=1000, description=SIZE)
    rounds: int = Field(default=1, ge=1, le=50, description="how often what still draws the concept is looked for")
    regularisation: float = Field(
        default=0.1, gt=0, le=1000, description="rho: weight of the size of the embedding that is looked for"
    )


class RECE(ClosedForm[RECEConfig]):
    """Edits in rounds of all layers that read the prompts."""

    def solve(self, weights: Sequence[Tensor], moments: Moments) -> Iterator[Tensor]:
        """W T, with the same T for all layers."""
        its = self.config
        gram = sum((weight.T @ weight for weight in weights[1:]), weights[0].T @ weights[0])
        edit = rece_map(moments, gram, its.erase_scale, its.preserve_scale, its.lamb, its.rounds, its.regularisation)
        return (weight @ edit for weight in weights)


register(RECEConfig, RECE)

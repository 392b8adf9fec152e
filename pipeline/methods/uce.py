"""UCE: unified concept editing (Gandikota et al. 2024), one closed-form edit of what reads the prompts.

    W' = argmin  e E||W' f - W a||^2 + s E||W' p - W p||^2 + lamb ||W' - W||^2        (Eq. 7)

f the forget prompts' tokens, a their anchors', p those of the prompts to be kept.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from ..maths.closed_form import Moments, uce_map
from .closed_form import ClosedForm, ScaledConfig
from .registry import register


class UCEConfig(ScaledConfig):
    """Options of `uce`."""

    name: Literal["uce"] = "uce"


class UCE(ClosedForm[UCEConfig]):
    """One edit of all layers that read the prompts."""

    def solve(self, weights: Sequence[Tensor], moments: Moments) -> Iterator[Tensor]:
        """W T, with the same T for all layers."""
        edit = uce_map(moments, self.config.erase_scale, self.config.preserve_scale, self.config.lamb)
        return (weight @ edit for weight in weights)


register(UCEConfig, UCE)

"""SPEED: an edit within the null space of what is to be kept (Li et al. 2026), layer by layer.

    W' = W + D P,   D = argmin E||(W + D P) f - W a||^2 + retain_scale ||D P||^2   with   D P c = 0

P projects on the directions in which no preserved token lies, c are the tokens of the empty prompt. Which tokens
are preserved is refined in each layer: those that the plain edit would move most (influence-based prior filtering),
with noisy copies along what the layer reads least (directed prior augmentation).
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..maths.closed_form import Moments, Speed
from .closed_form import ClosedForm, ClosedFormConfig
from .registry import register


class SPEEDConfig(ClosedFormConfig):
    """Options of `speed`."""

    name: Literal["speed"] = "speed"
    threshold: float = Field(
        default=0.1, gt=0, le=1000, description="directions in which preserved tokens have less than this are free"
    )
    retain_scale: float = Field(default=0.01, gt=0, le=1000, description="weight of the size of the change")
    invariant_lamb: float = Field(
        default=0.0, ge=0, le=1000, description="how freely the empty prompt may move; 0 holds it fast"
    )
    aug_num: int = Field(default=10, ge=0, le=100, description="noisy copies of each preserved token")


class SPEED(ClosedForm[SPEEDConfig]):
    """An edit of each layer that reads the prompts, which the preserved tokens don't see."""

    def solve(self, weights: Sequence[Tensor], moments: Moments) -> Iterator[Tensor]:
        """Each layer by itself, with noise of its own."""
        options = Speed(
            self.config.threshold, self.config.retain_scale, self.config.invariant_lamb, self.config.aug_num
        )
        for place, weight in enumerate(weights):
            yield options.edited(weight, moments, torch.Generator().manual_seed(place))


register(SPEEDConfig, SPEED)

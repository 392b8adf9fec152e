"""Finetune: descend on the retain data alone and hope to forget (Warnecke et al. 2021)."""

from collections.abc import Mapping
from typing import Literal

from ..maths.gradients import Combination, Tensors
from .base import Method, MethodConfig


class FinetuneConfig(MethodConfig):
    """Options of `finetune`: none of its own."""

    name: Literal["finetune"] = "finetune"


class Finetune(Method[FinetuneConfig]):
    """Minimise L_r; the forget data is not looked at."""

    terms = ("retain",)

    def combine(self, grads: Mapping[str, Tensors], weights: Tensors | None = None) -> Combination:
        """g_r."""
        return Combination(grads, {"retain": 1.0})

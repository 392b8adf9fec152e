"""Finetune: descend on the retain data alone and hope to forget (Warnecke et al. 2021)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from ..maths.gradients import Combination, Gradient, Reduce, Tensors
from .base import Method
from .config import MethodConfig
from .registry import register


class FinetuneConfig(MethodConfig):
    """Options of `finetune`: none of its own."""

    terms: ClassVar[tuple[str, ...]] = ("retain",)
    sees: ClassVar[tuple[str, ...]] = ("retain",)

    name: Literal["finetune"] = "finetune"


class Finetune(Method[FinetuneConfig]):
    """Minimise L_r; the forget data is not looked at."""

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        """g_r."""
        return Combination(grads, {"retain": 1.0})


register(FinetuneConfig, Finetune)

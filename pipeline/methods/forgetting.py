"""What forgetting and keeping mean to the methods with two gradients.

    forget ascend:    L_f = -min(denoising loss on D_f, alpha)          (Ko et al. 2024)
    forget redirect:  L_f = the distance to the anchor's prediction     (`distances.py`)
    retain denoise:   L_r = denoising loss on D_r                       (Ko et al. 2024)
    retain distil:    L_r = the distance to the original's prediction   (`distances.py`)

Ascent has no idea what to draw instead: what it leaves of a forget prompt is wreckage. What redirect has moved is
moved back soon by a few steps on pictures of the concept. A run that ascends first and redirects afterwards draws
a whole picture and is harder to undo; `ascend_share` says which part of the steps ascends.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar

from pydantic import Field
from torch import Tensor

from ..models.protocol import Denoiser
from .base import Batch, Context, Loss, Method, descend, prediction_and_target
from .closed_form import ClosedForm, check_warm_start, warm_start
from .config import ForgetLimit, RetainWeight
from .distances import distillation_loss, redirect_loss
from .limit import check_samples, measure_limit
from .registry import build_method, find
from .teacher import Teacher


class ForgettingConfig(RetainWeight, ForgetLimit):
    """Options that the methods with a forget and a retain gradient share."""

    two_gradients: ClassVar[bool] = True
    variants: ClassVar[str] = "forget"

    forget: Literal["ascend", "redirect"] = Field(
        default="ascend",
        description="ascend: raise the loss on forget images, which wrecks what their prompts draw; redirect: let them "
        "draw what their anchor draws, the paired retain prompt or replace_with",
    )
    ascend_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="with redirect: the first part of the steps that ascends, so that what was forgotten is harder to "
        "bring back",
    )
    push: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="with redirect: how far beyond what is drawn instead the target lies, away from the concept; takes "
        "a copy of the weights that train",
    )
    retain: Literal["denoise", "distil"] = Field(
        default="denoise",
        description="denoise: keep the denoising loss on retain images low; distil: hold what the original model "
        "predicts for them, which takes a copy of the weights that train",
    )

    warm_start: Literal["none", "uce", "rece", "speed"] = Field(
        default="none",
        description="an edit in closed form before the first step, of the weights that read the prompts; then fewer "
        "steps do",
    )

    @property
    def ascending(self) -> float:
        """The part of the steps, from the first on, that ascends, in [0, 1]."""
        return 1.0 if self.forget == "ascend" else self.ascend_share

    @property
    def ascends(self) -> bool:
        """True if no step redirects."""
        return self.ascending == 1

    @property
    def redirects(self) -> bool:
        """True if a step looks at the anchors."""
        return self.ascending < 1

    @property
    def has_teacher(self) -> bool:
        """True if retain images are held to the original's predictions, or forget images pushed beyond them."""
        return self.retain == "distil" or (self.redirects and self.push > 0)

    @property
    def edits_with(self) -> str:
        """The warm start."""
        return "" if self.warm_start == "none" else self.warm_start

    def idle(self) -> Mapping[str, str]:
        """Redirect has no limit; ascent has no other part and no target."""
        without = dict(super().idle())
        if self.ascending == 0:
            without["forget_limit"] = "with method.forget 'redirect' and no method.ascend_share"
        if self.ascends:
            without |= dict.fromkeys(("ascend_share", "push"), "without method.forget 'redirect'")
        return without


Config = TypeVar("Config", bound=ForgettingConfig)


class Forgetting(Method[Config]):
    """Base of the methods that ascend or redirect on the forget data and keep the denoising loss on the retain data."""

    def check(self, forget_samples: int, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Refuse to measure the limit on one sample, and a warm start of weights that don't train."""
        if self._measures_limit:
            check_samples(forget_samples)
        if self.config.warm_start != "none" and parameters is not None:
            check_warm_start(self.config.warm_start, parameters)

    def prepare(self, context: Context) -> None:
        """Measure the limit where it is "auto", keep the original where it is held to, then edit for a warm start."""
        if self._measures_limit:
            self.measured = measure_limit(context)
        if self.config.has_teacher:
            self.teacher = Teacher(list(context.parameters.values()))
        name = self.config.warm_start
        if name != "none" and isinstance(edit := build_method(find(name).config(name=name)), ClosedForm):
            warm_start(edit, context)

    @property
    def needs_unconditional(self) -> bool:
        """A warm start preserves the empty prompt."""
        return super().needs_unconditional or self.config.warm_start != "none"

    @property
    def needs_whole_weights(self) -> bool:
        """A warm start edits them, and a teacher takes their place."""
        return super().needs_whole_weights or self.config.warm_start != "none" or self.config.has_teacher

    @property
    def _measures_limit(self) -> bool:
        return self.config.ascending > 0 and self.config.forget_limit == "auto"

    def limit(self, timesteps: Tensor) -> float | Tensor | None:
        """The limit of samples at `timesteps`, (B,): one number, or with "auto" one for each."""
        fixed = self.config.forget_limit
        return self.measured(timesteps) if fixed == "auto" else fixed

    def loss(self, term: str, denoiser: Denoiser, batch: Batch) -> Loss:
        """L_f of this part of the run, or L_r."""
        if term == "retain" and self.config.retain == "distil":
            return descend(distillation_loss(denoiser, batch, self.teacher), is_distance=True)
        if term == "retain":
            return super().loss(term, denoiser, batch)
        if batch.done >= self.config.ascending:
            push = self.config.push
            return descend(redirect_loss(denoiser, batch, self.teacher if push else None, push), is_distance=True)
        return self._ascend(denoiser, batch)

    def _ascend(self, denoiser: Denoiser, batch: Batch) -> Loss:
        """Minus the denoising loss, truncated at the limit."""
        limit = self.limit(batch.timesteps)
        prediction, target = prediction_and_target(denoiser, batch)
        forget = denoiser.objective.truncated_loss(prediction, target, batch.timesteps, limit)
        if limit is None:
            return Loss(-forget.loss, forget.denoising.item())
        mean = limit.mean().item() if isinstance(limit, Tensor) else limit
        return Loss(-forget.loss, forget.denoising.item(), forget.above_limit, mean, forget.of_batch)

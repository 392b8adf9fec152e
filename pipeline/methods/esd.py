"""ESD: the model teaches itself to point away from the concept (Gandikota et al. 2023, Eqs. 5 to 7).

    L = MSE(e(x_t, c), e*(x_t, 0) - eta (e*(x_t, c) - e*(x_t, 0)))

with e* the frozen base model, 0 the empty prompt, and x_t drawn by the model as it is now, from pure
noise down to a random t with the concept's prompt. There is no retain term. `esd` trains every
weight, `esd-x` the cross-attention, `esd-u` the linear and convolution layers outside of it
(`parameters.py`). The target is linear with weights that add up to 1, so e may be a predicted noise,
a v or a flow velocity (see `guided_prediction`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..maths.gradients import Combination, Gradient, Reduce, Tensors
from ..maths.objectives import denoising_loss
from ..models.protocol import Conditioning, Denoiser
from .base import Batch, Context, Loss, Method, descend, guided_prediction
from .config import DATA, MethodConfig
from .registry import register
from .teacher import Teacher


class AnyESDConfig(MethodConfig):
    """Options that `esd`, `esd-x` and `esd-u` share."""

    terms: ClassVar[tuple[str, ...]] = ("forget",)
    sees: ClassVar[tuple[str, ...]] = ()
    needs_unconditional: ClassVar[bool] = True
    needs_whole_weights: ClassVar[bool] = True

    @property
    def has_teacher(self) -> bool:
        """Always: its target is the original's."""
        return True

    data: Literal["diverse", "uniform"] = Field(default="uniform", description=DATA)
    negative_guidance: float = Field(
        default=1.0, ge=0, le=100, description="eta: how far the target points away from the concept"
    )
    start_guidance: float = Field(
        default=3.0, ge=0, le=50, description="guidance with which the model draws the noisy images it trains on"
    )
    start_steps: int = Field(
        default=50, ge=1, le=1000, description="steps of a whole drawing, of which each noisy image takes a part"
    )


class ESDConfig(AnyESDConfig):
    """Options of `esd`."""

    name: Literal["esd"] = "esd"


class ESDXConfig(AnyESDConfig):
    """Options of `esd-x`."""

    recipe: ClassVar[Mapping[str, Mapping[str, Any]]] = {"training": {"parameters": "xattn"}}
    name: Literal["esd-x"] = "esd-x"


class ESDUConfig(AnyESDConfig):
    """Options of `esd-u`."""

    recipe: ClassVar[Mapping[str, Mapping[str, Any]]] = {"training": {"parameters": "noxattn"}}
    name: Literal["esd-u"] = "esd-u"


class ESD(Method[AnyESDConfig]):
    """Minimise the distance to the frozen model's prediction away from the concept."""

    def prepare(self, context: Context) -> None:
        """Freeze the teacher."""
        self.unconditional = context.empty_prompt()
        self.teacher = Teacher(list(context.parameters.values()))

    def loss(self, term: str, denoiser: Denoiser, batch: Batch) -> Loss:
        """The distance, at the batch's first timestep."""
        return descend(self._distance(denoiser, batch))

    def _distance(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        config = self.config
        first = batch.timesteps[:1] if batch.first_timestep is None else batch.first_timestep
        timesteps = first.expand_as(batch.timesteps)
        noisy = sample_until(
            denoiser, batch.noise, timesteps, batch.conditioning, self.unconditional,
            num_inference_steps=config.start_steps, guidance_scale=config.start_guidance,
        )  # fmt: skip
        with torch.no_grad(), self.teacher:
            target = guided_prediction(
                denoiser, noisy, timesteps, batch.conditioning, self.unconditional, -config.negative_guidance
            )
        prediction = denoiser.predict(noisy, timesteps, batch.conditioning)
        return denoising_loss(prediction, target, denoiser.objective.weight(timesteps))

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        """g_f."""
        return Combination(grads, {"forget": 1.0})


register(ESDConfig, ESD)
register(ESDXConfig, ESD)
register(ESDUConfig, ESD)


@torch.no_grad()
def sample_until(
    denoiser: Denoiser,
    noise: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
    *,
    num_inference_steps: int,
    guidance_scale: float,
) -> Tensor:
    """Draw from pure noise down to `timesteps` and stop there, deterministically.

    ESD samples with DDIM and no added noise, which `Objective.denoise` is for every objective. An EDM starts from its
    largest sigma.

    Args:
        denoiser: the model as it is now.
        noise: standard normal, (B, ...).
        timesteps: where to stop, (B,), all alike.
        conditioning: B rows.
        unconditional: that of the empty prompt, one row.
        num_inference_steps: steps that a drawing down to 0 would take, evenly spaced.
        guidance_scale: as in diffusers.

    Returns:
        x_t, shaped like `noise`.
    """
    times = denoiser.objective.way_down(float(timesteps[0]), num_inference_steps)
    if not timesteps.dtype.is_floating_point:
        times = times.round()
    noisy = denoiser.objective.pure_noise(noise, times[0].item())
    with _evaluating(denoiser.module):
        for now, following in zip(times.tolist(), times.tolist()[1:], strict=False):
            at, to = torch.full_like(timesteps, now), torch.full_like(timesteps, following)
            prediction = guided_prediction(denoiser, noisy, at, conditioning, unconditional, guidance_scale)
            noisy = denoiser.objective.denoise(prediction, noisy, at, to)
    return noisy


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)

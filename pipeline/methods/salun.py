"""SalUn: unlearn where the forget loss is steep, towards another prompt (Fan et al. 2024).

    L = MSE(e(x_t, c_f), stop-grad e(x_t, c')) + alpha L_r

on forget images x, with c' the anchor instead of the forget prompt c_f: the paired retain prompt, or what the
user wants to be drawn instead (Section 4.2, "random labels" for generation). Only the weights of the saliency
mask move (Eqs. 3 and 4): those in which the forget loss, summed over all of the forget data, has its largest
gradient. `retain_weight` is alpha.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..maths.gradients import Combination, Gradient, Reduce, Tensors
from ..maths.objectives import denoising_loss
from ..maths.parameters import largest
from ..maths.rules import combine
from ..models.protocol import Denoiser
from ..support.places import user_path
from .base import Batch, Context, Loss, Method, descend, guided_prediction
from .config import DATA, RetainWeight
from .distances import redirect_loss
from .mask import MASK_FILE, load_mask, read_mask, save_mask
from .registry import register


class SalUnConfig(RetainWeight):
    """Options of `salun`."""

    needs_unconditional: ClassVar[bool] = True
    needs_whole_weights: ClassVar[bool] = True

    name: Literal["salun"] = "salun"
    data: Literal["diverse", "uniform"] = Field(default="uniform", description=DATA)
    retain_weight: float = Field(
        default=0.5, ge=0, le=100, description="alpha: weight of the retain loss beside the distance"
    )
    mask_share: float = Field(
        default=0.5, gt=0, le=1, description="share of the trained weights that the saliency mask holds"
    )
    mask_guidance_scale: float = Field(
        default=8.5, ge=0, le=50, description="guidance of the prediction whose gradient makes the mask"
    )
    mask: str | None = Field(default=None, description="a mask.safetensors to use instead of a new one")

    @property
    def redirects(self) -> bool:
        """Always: that is its forget loss."""
        return True

    def idle(self) -> Mapping[str, str]:
        """A mask that is named was made before."""
        return (
            dict.fromkeys(("mask_share", "mask_guidance_scale"), "with method.mask: leave it out") if self.mask else {}
        )


class SalUn(Method[SalUnConfig]):
    """Minimise the distance to another prompt's prediction + alpha L_r, on the mask.

    The guidance scale of the mask is SalUn's own: its code writes (1 + 7.5) e_c - 7.5 e_0. All of the
    data is used, and the *largest* gradients are kept, as the paper says.
    """

    def check(self, forget_samples: int, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Refuse a mask that can't be read or is of other weights."""
        if self.config.mask and parameters is None:
            read_mask(user_path(self.config.mask))
        elif self.config.mask and parameters is not None:
            load_mask(user_path(self.config.mask), parameters)

    def prepare(self, context: Context) -> None:
        """Make the mask, or read the one that was named or kept."""
        kept = context.folder / MASK_FILE if context.folder else None
        source = user_path(self.config.mask) if self.config.mask else kept if context.resumed else None
        if source and (self.config.mask or source.exists()):
            self.mask = load_mask(source, context.parameters)
        else:
            masks = largest(self._saliency(context), self.config.mask_share)
            self.mask = dict(zip(context.parameters, masks, strict=True))
        if kept and not (context.resumed and kept.exists()):
            save_mask(self.mask, kept)

    def _saliency(self, context: Context) -> list[Tensor]:
        """Sum over the forget data of the gradient of L_f, one tensor per trained weight (Eq. 3)."""
        denoiser, unconditional = context.denoiser, context.empty_prompt()
        batches = list(context.batches("forget"))
        with context.progress.stage("saliency mask", len(batches)) as advance, torch.enable_grad():
            for batch in batches:
                noisy = denoiser.objective.add_noise(batch.samples, batch.noise, batch.timesteps)
                prediction = guided_prediction(
                    denoiser, noisy, batch.timesteps, batch.conditioning, unconditional, self.config.mask_guidance_scale
                )
                target = denoiser.objective.target(batch.samples, batch.noise, batch.timesteps)
                weight = denoiser.objective.weight(batch.timesteps)
                (-denoising_loss(prediction, target, weight)).backward()
                advance()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in context.parameters.values()]
        for parameter in context.parameters.values():
            parameter.grad = None
        return gradients

    def loss(self, term: str, denoiser: Denoiser, batch: Batch) -> Loss:
        """The distance on forget images, the denoising loss on retain images."""
        if term == "retain":
            return super().loss(term, denoiser, batch)
        return descend(redirect_loss(denoiser, batch), is_distance=True)

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        """The masked m * (g_f + alpha g_r) (Eq. 4)."""
        return combine(grads, retain_weight=self.config.retain_weight, mask=list(self.mask.values()), reduce=reduce)


register(SalUnConfig, SalUn)

"""What every unlearning method is: a frozen configuration, losses per term, a pure combination."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, field_validator
from torch import Tensor, nn

from ..maths.gradients import Combination, Tensors
from ..maths.objectives import denoising_loss
from ..models.protocol import Conditioning, Denoiser
from ..support.progress import Progress, Silent

DATA = "diverse: many paired forget/retain prompts (the D of RGD); uniform: one forget and one retain prompt"


class MethodConfig(BaseModel):
    """Base of the methods' options. `name` tells them apart in a recipe.

    Attributes:
        recipe: what the method's definition asks of the other sections of a recipe, whatever the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    name: str
    data: Literal["diverse", "uniform"] = Field(default="diverse", description=DATA)


class RetainWeight(BaseModel):
    """Mixin: how much the retain gradient counts."""

    retain_weight: float = Field(
        default=1.5, ge=0, le=100, description="lambda: weight of the retain direction beside the forget direction"
    )


class ForgetLimit(BaseModel):
    """Mixin: where forgetting ends."""

    forget_limit: float | Literal["auto"] | None = Field(
        default=1.6,
        gt=0,
        le=100,
        description="alpha: above this denoising loss on forget data a step no longer pushes it up (none: no limit; "
        "auto: at each timestep, the distance between the targets of two samples)",
    )

    @field_validator("forget_limit", mode="wrap")
    @classmethod
    def _auto_or_number(cls, value: object, number: ValidatorFunctionWrapHandler) -> object:
        return value if value == "auto" else number(value)


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one term: clean latents and what they are conditioned on.

    Attributes:
        samples: (B, C, H, W).
        conditioning: as the denoiser's `encode_prompts` gives it, B rows.
        noise: standard normal, like `samples`.
        timesteps: (B,).
        paired_conditioning: the conditioning of each sample's partner in the other term's data, B rows.
        first_timestep: (1,), that of the first sample of the whole micro-batch, of which this may be the
            share of one of several processes; None where it is the whole one.
        share: B times the number of processes, divided by the size of the whole micro-batch.
        whole: gives a loss of this share, a scalar, the value that the whole micro-batch has; its
            gradient stays that of the share.
    """

    samples: Tensor
    conditioning: Conditioning
    noise: Tensor
    timesteps: Tensor
    paired_conditioning: Conditioning = field(default_factory=dict)
    first_timestep: Tensor | None = None
    share: float = 1.0
    whole: Callable[[Tensor], Tensor] = lambda loss: loss


def noise_loss(denoiser: Denoiser, batch: Batch) -> Tensor:
    """The denoising loss that the model was trained with, on one batch; a scalar in at least float32."""
    prediction, target = prediction_and_target(denoiser, batch)
    return denoising_loss(prediction, target, denoiser.objective.weight(batch.timesteps))


def prediction_and_target(denoiser: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the model predicts of a noised batch, and what it should, both shaped like the samples."""
    objective = denoiser.objective
    noisy = objective.add_noise(batch.samples, batch.noise, batch.timesteps)
    prediction = denoiser.predict(noisy, batch.timesteps, batch.conditioning)
    return prediction, objective.target(batch.samples, batch.noise, batch.timesteps)


def guided_prediction(
    denoiser: Denoiser,
    noisy_samples: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
    scale: float,
) -> Tensor:
    """e_0 + scale (e_c - e_0), classifier-free guidance (Ho and Salimans 2022) in diffusers' convention.

    The weights of e_0 and e_c add up to 1, and every prediction type here is, at one x_t and t, the noise
    times a number plus a shift. So the formula means the same for a predicted noise, v or flow velocity.

    Args:
        denoiser: the model.
        noisy_samples: x_t, (B, ...).
        timesteps: (B,).
        conditioning: c, B rows.
        unconditional: that of the empty prompt, one row.
        scale: 1 leaves e_c as it is; below 0 points away from c.
    """
    both = {name: torch.cat([unconditional[name].expand_as(rows), rows]) for name, rows in conditioning.items()}
    empty, prompted = denoiser.predict(
        torch.cat([noisy_samples, noisy_samples]), torch.cat([timesteps, timesteps]), both
    ).chunk(2)
    return empty + scale * (prompted - empty)


@dataclass(frozen=True)
class Loss:
    """A term's loss: what is differentiated, and what people read.

    Attributes:
        objective: the scalar to go down.
        denoising: the denoising loss behind it, or the method's own distance; positive, detached.
        truncated: whether the limit cut the gradient to zero.
        above: share of what the limit looks at that is above it.
        limit: the limit, in the mean where each sample has its own; None without one.
    """

    objective: Tensor
    denoising: Tensor
    truncated: bool = False
    above: float = 0.0
    limit: float | None = None


@dataclass
class Context:
    """What a method may look at before the first step.

    Attributes:
        denoiser: the model with the weights that it came with, on a resumed run too.
        parameters: the weights that will train, by name, in the optimizer's order.
        batches: term -> one pass over all of its data, in micro-batches with noise of their own.
        unconditional: conditioning of the empty prompt, one row; None unless the method asks for it.
        folder: where what was prepared may be kept; None keeps nothing.
        resumed: whether `folder` holds what an earlier `prepare` of the same run kept.
        progress: to be told of long work.
    """

    denoiser: Denoiser
    parameters: Mapping[str, nn.Parameter]
    batches: Callable[[str], Iterator[Batch]]
    unconditional: Conditioning | None = None
    folder: Path | None = None
    resumed: bool = False
    progress: Progress = field(default_factory=Silent)


Config = TypeVar("Config", bound=MethodConfig)


class Method(Generic[Config]):
    """A method of unlearning. Subclasses name their terms and say how gradients combine.

    Attributes:
        config: its options.
        terms: the loss terms, in the order in which they are differentiated.
        needs_unconditional: whether `prepare` is to be given the empty prompt's conditioning.
        ascends: whether the forget loss that people read is meant to rise.
    """

    terms: ClassVar[tuple[str, ...]] = ("forget", "retain")
    needs_unconditional: ClassVar[bool] = False
    ascends: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def measures_limit(self) -> bool:
        """Whether the forget limit is "auto"."""
        return getattr(self.config, "forget_limit", None) == "auto"

    def prepare(self, context: Context) -> None:
        """Build what the method needs before the first step (a teacher, a mask); by default a measured limit."""
        if self.measures_limit:
            from .limit import measure_limit

            self.measured = measure_limit(context)

    def limit(self, timesteps: Tensor) -> float | Tensor | None:
        """The limit of samples at `timesteps`, (B,): one number, or with "auto" one for each."""
        return self.measured(timesteps) if self.measures_limit else getattr(self.config, "forget_limit", None)

    def losses(self, denoiser: Denoiser, batch: Mapping[str, Batch]) -> Mapping[str, Callable[[], Loss]]:
        """One callable per term; each is called, and differentiated, by itself.

        They are lazy because two forward passes before the first backward pass cost a second graph
        in memory, and give wrong gradients in a distributed run.
        """
        available: dict[str, Callable[[], Loss]] = {
            "forget": lambda: _ascend(denoiser, batch["forget"], self.limit(batch["forget"].timesteps)),
            "retain": lambda: descend(noise_loss(denoiser, batch["retain"])),
        }
        return {term: available[term] for term in self.terms}

    def combine(self, grads: Mapping[str, Tensors], weights: Tensors | None = None) -> Combination:
        """The direction to step against, from each term's gradient.

        Args:
            grads: term -> gradient as a list of tensors.
            weights: the optimizer's diagonal metric, for methods that project in it.
        """
        raise NotImplementedError


def _ascend(denoiser: Denoiser, batch: Batch, limit: float | Tensor | None) -> Loss:
    """L_f = -(truncated denoising loss); the objective says what is truncated."""
    prediction, target = prediction_and_target(denoiser, batch)
    forget = denoiser.objective.truncated_loss(prediction, target, batch.timesteps, limit, batch.whole)
    mean = limit.mean().item() if isinstance(limit, Tensor) else limit
    return Loss(-forget.loss, forget.denoising, forget.share == 1, forget.share, mean)


def descend(loss: Tensor) -> Loss:
    """A loss that goes down as it is."""
    return Loss(loss, loss.detach())

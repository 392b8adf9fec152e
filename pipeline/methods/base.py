"""What every unlearning method is: a frozen configuration, losses per term, a pure combination."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..gradients import Combination, Tensors
from ..models.protocol import Conditioning, Denoiser
from ..objectives import denoising_loss

DATA = "diverse: many paired forget/retain prompts (the D of RGD); uniform: one forget and one retain prompt"


class MethodConfig(BaseModel):
    """Base of the methods' options. `name` tells them apart in a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    data: Literal["diverse", "uniform"] = Field(default="diverse", description=DATA)


class RetainWeight(BaseModel):
    """Mixin: how much the retain gradient counts."""

    retain_weight: float = Field(
        default=1.5, ge=0, le=100, description="lambda: weight of the retain direction beside the forget direction"
    )


class ForgetLimit(BaseModel):
    """Mixin: where forgetting ends."""

    forget_limit: float | None = Field(
        default=1.6,
        gt=0,
        le=100,
        description="alpha: above this denoising loss on forget data a step no longer pushes it up (none: no limit)",
    )


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one term: clean latents and what they are conditioned on.

    Attributes:
        samples: (B, C, H, W).
        conditioning: as the denoiser's `encode_prompts` gives it, B rows.
        noise: standard normal, like `samples`.
        timesteps: (B,).
    """

    samples: Tensor
    conditioning: Conditioning
    noise: Tensor
    timesteps: Tensor


def noise_loss(denoiser: Denoiser, batch: Batch) -> Tensor:
    """The denoising loss that the model was trained with, on one batch; a scalar in float32."""
    prediction, target = _prediction_and_target(denoiser, batch)
    return denoising_loss(prediction, target, denoiser.objective.weight(batch.timesteps))


def _prediction_and_target(denoiser: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
    objective = denoiser.objective
    noisy = objective.add_noise(batch.samples, batch.noise, batch.timesteps)
    prediction = denoiser.predict(noisy, batch.timesteps, batch.conditioning)
    return prediction, objective.target(batch.samples, batch.noise, batch.timesteps)


@dataclass(frozen=True)
class Loss:
    """A term's loss: what is differentiated, and the denoising loss that people read.

    Attributes:
        objective: the scalar to go down.
        denoising: denoising loss behind it, positive, detached.
        truncated: whether the limit cut the gradient to zero.
    """

    objective: Tensor
    denoising: Tensor
    truncated: bool = False


@dataclass
class Context:
    """What `prepare` may look at.

    Attributes:
        denoiser: the model before its first step.
        generator: for random choices.
    """

    denoiser: Denoiser
    generator: torch.Generator


Config = TypeVar("Config", bound=MethodConfig)


class Method(Generic[Config]):
    """A method of unlearning. Subclasses name their terms and say how gradients combine.

    Attributes:
        config: its options.
        terms: the loss terms, in the order in which they are differentiated.
    """

    terms: ClassVar[tuple[str, ...]] = ("forget", "retain")

    def __init__(self, config: Config) -> None:
        self.config = config

    def prepare(self, context: Context) -> None:
        """Build what the method needs before the first step (a teacher, a mask). Nothing by default."""

    def losses(self, denoiser: Denoiser, batch: Mapping[str, Batch]) -> Mapping[str, Callable[[], Loss]]:
        """One callable per term; each is called, and differentiated, by itself.

        They are lazy because two forward passes before the first backward pass cost a second graph
        in memory, and give wrong gradients in a distributed run.
        """
        limit: float | None = getattr(self.config, "forget_limit", None)
        available: dict[str, Callable[[], Loss]] = {
            "forget": lambda: _ascend(denoiser, batch["forget"], limit),
            "retain": lambda: _descend(noise_loss(denoiser, batch["retain"])),
        }
        return {term: available[term] for term in self.terms}

    def combine(self, grads: Mapping[str, Tensors], weights: Tensors | None = None) -> Combination:
        """The direction to step against, from each term's gradient.

        Args:
            grads: term -> gradient as a list of tensors.
            weights: the optimizer's diagonal metric, for methods that project in it.
        """
        raise NotImplementedError


def _ascend(denoiser: Denoiser, batch: Batch, limit: float | None) -> Loss:
    """L_f = -(truncated denoising loss); the objective says what is truncated."""
    prediction, target = _prediction_and_target(denoiser, batch)
    forget = denoiser.objective.truncated_loss(prediction, target, batch.timesteps, limit)
    return Loss(-forget.loss, forget.denoising, forget.share == 1)


def _descend(loss: Tensor) -> Loss:
    return Loss(loss, loss.detach())

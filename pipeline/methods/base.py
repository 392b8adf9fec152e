"""An unlearning method: a frozen configuration, a loss for each term, a pure combination of the gradients."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ..maths.gradients import Combination, Gradient, Reduce, Tensors
from ..maths.objectives import denoising_loss
from ..models.protocol import Conditioning, Denoiser
from ..support.progress import Progress, Silent
from .config import MethodConfig

Row = tuple[str, str, str]
"""A forget prompt, its anchor, and its paired retain prompt."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one term: clean latents and what they are conditioned on.

    Attributes:
        samples: (B, C, H, W).
        conditioning: as the denoiser's `encode_prompts` gives it, B rows.
        noise: standard normal, like `samples`.
        timesteps: (B,).
        anchor: the conditioning of what is drawn instead of each forget sample, B rows; empty for the retain term.
        first_timestep: (1,), that of the first sample of the whole micro-batch, of which this may be the
            share of one of several processes; None where it is the whole one.
        share: B times the number of processes, divided by the size of the whole micro-batch.
        done: share of the run's steps that were taken before, in [0, 1).
    """

    samples: Tensor
    conditioning: Conditioning
    noise: Tensor
    timesteps: Tensor
    anchor: Conditioning = field(default_factory=dict)
    first_timestep: Tensor | None = None
    share: float = 1.0
    done: float = 0.0


def noise_loss(denoiser: Denoiser, batch: Batch) -> Tensor:
    """The denoising loss that the model was trained with, on one batch; a scalar in at least float32."""
    prediction, target = prediction_and_target(denoiser, batch)
    return denoising_loss(prediction, target, denoiser.objective.weight(batch.timesteps))


def prediction_and_target(denoiser: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model's prediction of a noised batch and its target, both shaped like the samples."""
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
    """A term's loss: what is differentiated, and what people read of it.

    Attributes:
        objective: the scalar to go down.
        denoising: the denoising loss behind it, or the distance that the method lowers; positive.
        above_limit: share of what the forget limit looks at that is above it; None without a limit.
        forget_limit: the limit, in the mean where each sample has its own; None without one.
        of_batch: whether the limit is of `denoising` in the mean over the whole batch. `objective` is without it:
            the trainer drops the gradient of a batch that is above it, however it was cut in parts.
        is_distance: whether it is a distance between two predictions, not the model's own loss.
    """

    objective: Tensor
    denoising: float
    above_limit: float | None = None
    forget_limit: float | None = None
    of_batch: bool = False
    is_distance: bool = False

    @property
    def truncated(self) -> bool:
        """Whether all of it is above the limit, so that the gradient is zero."""
        return self.above_limit == 1

    def averaged(self, mean: Callable[[list[float]], list[float]]) -> "Loss":
        """The loss with every figure averaged.

        Args:
            mean: gives the means over the processes of several numbers of this one.
        """
        if self.above_limit is None or self.forget_limit is None or self.of_batch:
            (denoising,) = mean([self.denoising])
            return self._of(denoising, self.above_limit, self.forget_limit)
        return self._of(*mean([self.denoising, self.above_limit, self.forget_limit]))

    @classmethod
    def mean(cls, losses: Sequence["Loss"]) -> "Loss":
        """The mean of a term's micro-batches, which are equally large, without a graph."""
        above = [loss.above_limit for loss in losses if loss.above_limit is not None]
        limits = [loss.forget_limit for loss in losses if loss.forget_limit is not None]
        objective = torch.stack([loss.objective.detach() for loss in losses]).mean()
        return replace(losses[0], objective=objective)._of(
            sum(loss.denoising for loss in losses) / len(losses),
            sum(above) / len(above) if above else None,
            sum(limits) / len(limits) if limits else None,
        )

    def _of(self, denoising: float, above_limit: float | None, forget_limit: float | None) -> "Loss":
        """The same loss with other figures; one number for the batch stays, and is compared anew."""
        if self.of_batch and self.forget_limit is not None:
            above_limit, forget_limit = float(denoising > self.forget_limit), self.forget_limit
        return replace(self, denoising=denoising, above_limit=above_limit, forget_limit=forget_limit)


@dataclass
class Context:
    """Everything that a method may look at before the first step.

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

    def empty_prompt(self) -> Conditioning:
        """The conditioning of the empty prompt.

        Raises:
            ValueError: the method's configuration does not say `needs_unconditional`.
        """
        if self.unconditional is None:
            raise ValueError("a method that looks at the empty prompt must set `needs_unconditional` in its config.")
        return self.unconditional


Config = TypeVar("Config", bound=MethodConfig)


class Method(Generic[Config]):
    """A method of unlearning: how a term's loss is computed, and how the gradients combine.

    Attributes:
        config: its options, and as class variables what it needs.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def needs_unconditional(self) -> bool:
        """Whether `prepare` is to be given the empty prompt's conditioning: as the class says, or with an option."""
        return self.config.needs_unconditional

    @property
    def needs_whole_weights(self) -> bool:
        """The same of whole weights."""
        return self.config.needs_whole_weights

    def check(self, forget_samples: int, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Refuse, before anything is drawn, what `prepare` would refuse when everything is drawn.

        Args:
            forget_samples: how many there will be.
            parameters: the weights that will train, once the model is loaded; they may be without values.

        Raises:
            UserError: an option that can't be followed with them.
        """

    def prepare(self, context: Context) -> None:
        """Build what the method needs before the first step: a teacher, a mask, a limit. Nothing by default."""

    def edit(self, denoiser: Denoiser, rows: Sequence[Row], progress: Progress) -> float:
        """Change the weights from the prompts alone, of a method with `closed_form`.

        Args:
            denoiser: the model; its network is changed in place.
            rows: prompts of what is to be forgotten, what is drawn instead, what is to be kept.
            progress: told of the work; may cancel it, and then the weights are as they were.

        Returns:
            The share of the distance from the forget prompts to their anchors that was covered, at most 1.
        """
        raise NotImplementedError

    def loss(self, term: str, denoiser: Denoiser, batch: Batch) -> Loss:
        """The loss of one term on one of its micro-batches; by default the denoising loss, which goes down.

        Each term is differentiated by itself: two forward passes before the first backward pass would cost
        a second graph in memory, and give wrong gradients in a distributed run.
        """
        return descend(noise_loss(denoiser, batch))

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        """The direction to step against, from each term's gradient.

        Args:
            grads: term -> gradient, one tensor for each weight that trains; the direction takes it over.
            weights: the optimizer's diagonal metric, for methods that project in it.
            reduce: to be handed on to `gram`: adds inner products over processes that hold a part of each tensor.
        """
        raise NotImplementedError

    # what changes from step to step, for methods that remember losses -------------------------------

    def weigh(self) -> Mapping[str, float] | None:
        """The weights of the terms' losses in the step that comes, for a method that wants the gradient of their sum.

        Then one gradient is kept, and `combine` is given that one alone, as "sum". None keeps the terms apart.
        """
        return None

    def moves(self) -> float | None:
        """The weight of the retain loss, of a method that moves it; for the record."""
        return None

    def rise(self) -> float | None:
        """By how much the retain loss was above the original's in the last step, of a method that watches it."""
        return None

    def compare(self, retain_losses: Sequence[float]) -> None:
        """Take in what the retain loss was before the first step.

        Asked of methods whose configuration says `compares`, before the first step, on a resumed run too.

        Args:
            retain_losses: of the base model on the very retain data of each step.
        """

    def observe(self, step: int, losses: Mapping[str, Loss]) -> None:
        """Take in the losses of a step that counts from 0, over all of its data, before `combine`."""

    def state_dict(self) -> dict[str, float]:
        """What was remembered of the steps so far; checkpoints keep it."""
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Remember what a checkpoint kept."""


def descend(loss: Tensor, is_distance: bool = False) -> Loss:
    """A loss that goes down as it is; `is_distance` as `Loss` has it."""
    return Loss(loss, loss.item(), is_distance=is_distance)

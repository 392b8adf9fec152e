"""The batches of a training step: which samples in which order, their noise, and a process's share of them.

Everything is decided by the seed and the place in the run, not by what ran before, so that a resumed run
and a run on another number of processes see the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..data.samples import Samples, SampleSet
from ..maths.objectives import Objective
from ..methods.base import Batch
from ..models import Conditioning
from ..schema.recipe import TrainingSection
from ..support.errors import UserError
from ..support.processes import Processes

_TERMS = ("forget", "retain")


def check_parts(spec: TrainingSection, retain_samples: int) -> None:
    """Refuse parts that don't divide the whole retain set, where each step takes it.

    Raises:
        UserError: they don't.
    """
    parts = spec.gradient_accumulation_steps
    if spec.retain_batch == "all" and retain_samples % parts:
        raise UserError(
            f"retain_batch 'all' takes the whole retain set each step, so gradient_accumulation_steps must divide "
            f"its {retain_samples} samples, got {parts}."
        )


class _Order:
    """The endless sequence of a number of samples, shuffled anew in each epoch.

    Args:
        length: how many samples there are.
        generator: of an epoch.
    """

    def __init__(self, length: int, generator: Callable[[int], torch.Generator]) -> None:
        self.length, self.generator = length, generator
        self._epoch, self._shuffled = -1, torch.empty(0, dtype=torch.long)

    def take(self, first: int, count: int) -> Tensor:
        """The samples at `count` places from `first` on, (count,)."""
        return torch.stack([self._at(place) for place in range(first, first + count)])

    def _at(self, place: int) -> Tensor:
        epoch, place = divmod(place, self.length)
        if epoch != self._epoch:
            self._epoch, self._shuffled = epoch, torch.randperm(self.length, generator=self.generator(epoch))
        return self._shuffled[place]


class Feed:
    """Micro-batches of D_f and D_r.

    Args:
        samples: D_f and D_r.
        objective: of the model; draws the timesteps.
        spec: batch size, parts, what of the retain set goes into a step, share of empty prompts.
        seed: decides the order of the data, noise and timesteps.
        device: where batches are put.
        processes: who shares each micro-batch, with the noise and timesteps of the whole one.
        unconditional: conditioning of the empty prompt, one row; needed for a share of empty prompts.

    Raises:
        UserError: a retain set that can't be cut into the parts that were asked for.
    """

    def __init__(
        self,
        samples: SampleSet,
        objective: Objective,
        spec: TrainingSection,
        seed: int,
        device: torch.device,
        processes: Processes,
        unconditional: Conditioning | None,
    ) -> None:
        self.samples, self.objective, self.spec, self.seed = samples, objective, spec, seed
        self.device, self.processes, self.unconditional = device, processes, unconditional
        self._orders = {term: _Order(len(self._of(term)), lambda epoch: self._generator(epoch, -1)) for term in _TERMS}
        check_parts(spec, len(samples.retain))

    def batch(self, term: str, step: int, part: int) -> Batch:
        """This process's share of micro-batch `part` of a step; partners are in the same one where each has its own."""
        indices = self.indices(term, step, part)
        generator = self._generator(step, 2 * part + (term == "retain"))
        done = step / self.spec.steps
        if self.processes.size == 1:
            return replace(self._noised(term, indices, torch.arange(len(indices)), generator), done=done)
        held = self.processes.share(torch.arange(len(indices)))
        batch = self._noised(term, indices, held, generator)
        return replace(batch, share=len(held) * self.processes.size / len(indices), done=done)

    def one_pass(self, term: str) -> Iterator[Batch]:
        """All samples of a term once, in micro-batches that no process shares."""
        size = self.spec.batch_size // self.spec.gradient_accumulation_steps
        for number, indices in enumerate(torch.arange(len(self._of(term))).split(size)):
            yield self._noised(term, indices, torch.arange(len(indices)), self._generator(number, -2))

    def mean(self, values: list[float], batch: Batch) -> list[float]:
        """Means over a whole micro-batch from those over this process's share of it."""
        if self.processes.size == 1:
            return values
        return [total / self.processes.size for total in self.processes.sums([v * batch.share for v in values])]

    def _of(self, term: str) -> Samples:
        return self.samples.retain if term == "retain" else self.samples.forget

    def indices(self, term: str, step: int, part: int) -> Tensor:
        """Which samples of a term make up micro-batch `part` of a step, (n,)."""
        parts = self.spec.gradient_accumulation_steps
        if term == "retain" and self.spec.retain_batch == "all":
            return torch.arange(len(self.samples.retain))[part::parts]
        size = self.spec.batch_size // parts
        first = step * self.spec.batch_size + part * size
        if term == "retain" and self.samples.one_to_one:
            return self.samples.pairs[self._orders["forget"].take(first, size)]
        return self._orders[term].take(first, size)

    def _noised(self, term: str, indices: Tensor, held: Tensor, generator: torch.Generator) -> Batch:
        """Those places of a micro-batch that are `held`, noised as they are in the whole one."""
        count = len(indices)
        own = self._of(term)
        noise = torch.randn((count, *own.latents.shape[1:]), generator=generator)
        timesteps = self.objective.sample_timesteps(count, generator)
        samples, conditioning = own.take(indices[held], self.device)
        if term == "retain" and self.spec.proportion_empty_prompts:
            dropped = (torch.rand(count, generator=generator) < self.spec.proportion_empty_prompts)[held]
            conditioning = self._without_prompts(conditioning, dropped.to(self.device))
        return Batch(
            samples,
            conditioning,
            noise[held].to(self.device),
            timesteps[held].to(self.device),
            anchor=self.samples.anchor_of(indices[held], self.device) if term == "forget" else {},
            first_timestep=timesteps[:1].to(self.device) if len(held) < count else None,
        )

    def _without_prompts(self, conditioning: Conditioning, dropped: Tensor) -> Conditioning:
        """The empty prompt instead of those rows that `dropped`, (B,), marks."""
        if self.unconditional is None:
            raise ValueError("a share of empty prompts needs the conditioning of the empty prompt, got None.")
        kept = dict(conditioning)
        for name, rows in conditioning.items():
            kept[name] = torch.where(dropped.reshape(-1, *[1] * (rows.ndim - 1)), self.unconditional[name], rows)
        return kept

    def _generator(self, step: int, stream: int) -> torch.Generator:
        return torch.Generator("cpu").manual_seed((self.seed * 1_000_003 + step) * 4099 + stream + 1)

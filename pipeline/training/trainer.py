"""The training loop: two gradients, one combination, one step.

Only the trainer touches the optimizer, clipping, devices and checkpoints. Memory beyond weights
and optimizer is the two gradients: the direction and the actual update exist for one bucket of
parameters at a time.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.samples import SampleSet, in_float32
from ..maths.gradients import Combination, Gradient, Waiting
from ..maths.parameters import select_parameters
from ..methods.base import Context, Loss, Method, descend, noise_loss
from ..models import Denoiser
from ..schema.events import EVENTS_FILE, Event, append_event, read_events, write_events
from ..schema.recipe import TrainingSection
from ..schema.results import TrainingResult
from ..support.errors import Cancelled, Tell, UserError, untold
from ..support.processes import ALONE, Processes
from ..support.progress import Progress, Silent, Within
from .checkpoints import Checkpoints
from .feed import Feed
from .optimizers import MetricAdam, build_optimizer
from .outcome import outcome
from .parallel import parallel_network
from .schedule import EarlyStop, Schedule
from .tuning import tuned
from .update import take_step


class Trainer:
    """Fine-tunes a denoiser's module in place.

    Args:
        denoiser: the model.
        method: what to minimise and how to combine.
        samples: D_f and D_r.
        spec: steps, batch, learning rate, …
        seed: decides the order of the data, noise and timesteps.
        folder: where `events.jsonl` and `checkpoints/` go; None keeps nothing on disk.
        progress: told of every step.
        after_step: called after each step with the number of steps done and a progress that cancels with the
            training; it may look at the model.
        processes: who else trains the same network. Each takes its share of every micro-batch, with the
            noise and timesteps that one process alone would draw; `parallel.check_processes` and
            `parallel.sharded` come before.
        tell: told of what was damaged in `folder`.

    Attributes:
        events: what every step saw, also those before a resumed run was cut.
        schedule: learning rate and end.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        method: Method[Any],
        samples: SampleSet,
        spec: TrainingSection,
        seed: int = 0,
        folder: Path | None = None,
        progress: Progress | None = None,
        after_step: Callable[[int, Progress], None] | None = None,
        processes: Processes = ALONE,
        tell: Tell = untold,
    ) -> None:
        self.after_step, self.tell = after_step, tell
        self.denoiser, self.method, self.samples, self.spec = denoiser, method, samples, spec
        self.folder, self.progress, self.processes = folder, progress or Silent(), processes
        try:
            self.named = select_parameters(denoiser.module, spec.parameters)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.parallel = parallel_network(denoiser.module, self.named, processes)
        self.parameters = self.parallel.parameters
        self.optimizer = build_optimizer(spec, self.parameters)
        self.checkpoints = Checkpoints(folder, self.parallel, self.optimizer, method, tell)
        drops = spec.proportion_empty_prompts > 0 and "retain" in method.config.terms
        empty = denoiser.encode_prompts([""]) if method.needs_unconditional or drops else None
        self.unconditional = in_float32(empty) if empty else None
        objective = denoiser.objective.for_size(*samples.forget.latents.shape[-2:])
        self.feed = Feed(samples, objective, spec, seed, denoiser.device, self.processes, self.unconditional)
        self.events: list[Event] = []
        self.schedule = Schedule(spec)

    def train(self, resume: bool = False) -> TrainingResult:
        """Run to the last step, from the newest checkpoint if `resume`.

        Raises:
            UserError: the loss is not a number; the last good weights are kept as a checkpoint.
            Cancelled: the progress asked to stop; a checkpoint is kept.
        """
        began, start, done = time.perf_counter(), 0, 0
        with self._training():
            try:
                newest = self.checkpoints.newest() if resume else None
                self._prepare(resumed=self.processes.on_main(lambda: self.checkpoints.prepared(newest)))
                start = done = self._restore(newest) if resume else 0
                self.parallel.start()
                with self.progress.stage("unlearning", self.spec.steps) as report, torch.enable_grad():
                    advance = self.processes.together(report)
                    advance(start)
                    while done < self.schedule.end:
                        event = self._step(done)
                        done += 1
                        self._record(event)
                        if done % self.spec.checkpoint_every == 0 and done < self.schedule.end:
                            self.checkpoints.save(done)
                        if self.after_step:
                            self.after_step(done, Within(advance) if self.processes.size == 1 else Silent())
                        advance(1, _note(event))
            except (Cancelled, _BadLoss) as stop:
                where = self.checkpoints.save(done)
                kept = f" The weights after step {done} are kept in {where}." if where else ""
                if isinstance(stop, Cancelled):
                    raise Cancelled(f"Stopped after step {done} of {self.spec.steps}.{kept}") from None
                raise UserError(f"{stop}{kept} {self._advice(done)}") from None
        self.checkpoints.save(done)
        seconds = time.perf_counter() - began if start == 0 else None
        return outcome(self.events, done, self.schedule.settled, seconds, self.denoiser.device)

    def _step(self, step: int) -> Event:
        began, rate = time.perf_counter(), self.schedule.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, grads = self._gradients(step)
        self.method.observe(step, losses)
        direction = self._combine(grads)
        grads.clear()  # the direction holds them from here on, and lets go of them as it is used up
        update = take_step(self.optimizer, self.parameters, direction, self.spec, self.parallel.total)
        forget, retain, products = losses.get("forget"), losses.get("retain"), direction.gram
        return Event(
            step=step,
            loss_forget=forget.denoising if forget else None,
            loss_retain=retain.denoising if retain else None,
            norm_forget=update.norms.get("forget"),
            norm_retain=update.norms.get("retain"),
            cosine=products.cosine if products else None,
            conflict=bool(products and products.conflict),
            truncated=bool(forget and forget.truncated),
            change_forget=update.changes.get("forget"),
            change_retain=update.changes.get("retain"),
            violates_forget=update.violates("forget"),
            violates_retain=update.violates("retain"),
            learning_rate=rate,
            seconds=time.perf_counter() - began,
            above_limit=forget.above_limit if forget else None,
            forget_limit=forget.forget_limit if forget else None,
            retain_weight=self.method.moves(),
            redirects=bool(forget and forget.is_distance),
            distils=bool(retain and retain.is_distance),
        )

    def _gradients(self, step: int) -> tuple[dict[str, Loss], dict[str, Gradient]]:
        """The losses of all terms, and the gradient of each; of their sum alone where the method weighs them."""
        terms, keeping, together = self.method.config.terms, self.spec.forget_gradient, self.method.weigh()
        losses: dict[str, Loss] = {}
        grads: dict[str, Gradient] = {}
        for term in terms:
            last = term == terms[-1]
            if together is not None:  # one term's gradient adds to the other's
                losses[term] = self._differentiate(term, step, together[term])
                continue
            losses[term] = self._differentiate(term, step)
            taken = self.parallel.take_gradients()
            grads[term] = taken if keeping == "whole" or last else Waiting(taken, keeping)
        return losses, grads if together is None else {"sum": self.parallel.take_gradients()}

    def _differentiate(self, term: str, step: int, weight: float = 1.0) -> Loss:
        """Accumulate one term's gradient in `.grad`; gives its loss over all micro-batches and processes.

        Only here the loss of the whole batch is known, so that a limit of it is kept here. `forget` comes first, and
        so there is nothing else in `.grad` that could be dropped with it.

        Args:
            term: forget or retain.
            step: counts from 0.
            weight: of the loss that is differentiated.
        """
        parts = self.spec.gradient_accumulation_steps
        seen = []
        for part in range(parts):
            batch = self.feed.batch(term, step, part)
            with self.parallel.accumulating(last=part == parts - 1):
                with self._precision():
                    loss: Loss = self.parallel.compute(partial(self.method.loss, term, self.denoiser, batch))
                whole = loss.averaged(partial(self.feed.mean, batch=batch))
                if not math.isfinite(whole.denoising):
                    raise _BadLoss(f"the {term} loss became {whole.denoising} in step {step + 1}.")
                (loss.objective * batch.share / parts * weight).backward()
            seen.append(whole)
        batch_loss = Loss.mean(seen)
        if batch_loss.of_batch and batch_loss.truncated:
            self.parallel.drop_gradients()
        return batch_loss

    def _combine(self, grads: dict[str, Gradient]) -> Combination:
        if isinstance(self.optimizer, MetricAdam):
            self.optimizer.observe(grads, self.method.config.retain_weight)
            return self.method.combine(grads, self.optimizer.metric, self.parallel.total)
        return self.method.combine(grads, reduce=self.parallel.total)

    def _advice(self, done: int) -> str:
        """What to do about a loss that is not a number: no step, no learning rate that was too high."""
        if done:
            return "Lower the learning rate or set a forget limit."
        exact = "Train in fp32, or try" if self.spec.precision != "fp32" else "Try"
        return (
            "No weights had changed before, so the learning rate is not the reason: the model itself gives such "
            f"numbers for its training images. {exact} another copy of the model, or another scheduler in its folder."
        )

    # before the first step ------------------------------------------------------------------------

    @contextmanager
    def _training(self) -> Iterator[None]:
        """The network ready to train: only the chosen weights ask for gradients. Afterwards it is as it was."""
        module = self.denoiser.module
        trainable = set(map(id, self.named.values()))
        frozen = [p for p in module.parameters() if id(p) not in trainable and p.requires_grad]
        was_training = module.training
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for parameter in self.named.values():
                parameter.requires_grad_(True)
            module.train()
            with tuned(module, self.spec):
                yield
        finally:
            self.parallel.drop_gradients()
            for parameter in frozen:
                parameter.requires_grad_(True)
            module.train(was_training)

    def _prepare(self, resumed: bool) -> None:
        """Let the method and the early stop look at the base model: before the checkpoint is loaded.

        What was prepared before the run was stopped is kept where a checkpoint vouches for it, else made again.
        """
        context = Context(
            denoiser=self.denoiser,
            parameters=self.named,
            batches=self.feed.one_pass,
            unconditional=self.unconditional,
            folder=self.folder,
            resumed=resumed or not self.processes.main,  # the others find what the first process kept
            progress=self.progress,
        )
        if self.method.config.compares:  # with the original: a method may edit weights while it prepares
            self.method.compare(self._retain_losses())
        with self.processes.main_first():
            self.method.prepare(context)
        self.checkpoints.remember_prepared()
        if self.spec.early_stop:
            self.schedule = Schedule(self.spec, self.processes.on_main(self._early_stop))

    def _early_stop(self) -> EarlyStop:
        """The rule, from what the model that came in has on the retain data."""
        losses = []
        with self.progress.stage("retain loss", len(self.samples.retain)) as advance, torch.no_grad():
            for batch in self.feed.one_pass("retain"):
                with self._precision():
                    losses.append(self.method.loss("retain", self.denoiser, batch).denoising)
                advance(len(batch.samples))
        return EarlyStop.after(losses, math.ceil(len(self.samples.forget) / self.spec.batch_size))

    def _retain_losses(self) -> list[float]:
        """The denoising loss that the model had at first on the retain data of each step; processes share the work."""
        losses = []
        with self.progress.stage("retain loss", self.spec.steps) as report, torch.no_grad():
            advance = self.processes.together(report)
            for step in range(self.spec.steps):
                seen = []
                for part in range(self.spec.gradient_accumulation_steps):
                    batch = self.feed.batch("retain", step, part)
                    with self._precision():
                        loss = descend(noise_loss(self.denoiser, batch))
                    seen.append(loss.averaged(partial(self.feed.mean, batch=batch)))
                losses.append(Loss.mean(seen).denoising)
                advance(1)
        return losses

    def _precision(self) -> AbstractContextManager[Any]:
        if self.spec.precision == "fp32":
            return nullcontext()
        # no cache of casts: it would not notice that a method puts a teacher's weights in place and takes them out
        return torch.autocast(self.denoiser.device.type, torch.bfloat16, cache_enabled=False)

    # records ------------------------------------------------------------------------------------

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self.schedule.observe(event)
        if self.folder and self.processes.main:
            append_event(self.folder / EVENTS_FILE, event)

    def _restore(self, checkpoint: Path | None) -> int:
        """Load a checkpoint and forget what was recorded after it; gives its step."""
        step = self.checkpoints.restore(checkpoint)
        if self.folder is None:
            return step
        path = self.folder / EVENTS_FILE
        self.events = read_events(path, before=step, tell=self.tell)
        for event in self.events:
            self.schedule.observe(event)
        if self.spec.early_stop and len(self.events) < step:
            self.tell(f"{path} lacks steps before {step}, so early_stop may end the run elsewhere than it would have.")
        if self.processes.main and path.exists():
            write_events(path, self.events)
        return step


class _BadLoss(Exception):
    """A loss that is not a finite number, met before it touched the weights."""


def _note(event: Event) -> str:
    parts = []
    if event.loss_forget is not None:
        parts.append(f"forget {event.loss_forget:.3f}")
    if event.loss_retain is not None:
        parts.append(f"retain {event.loss_retain:.3f}")
    if event.cosine is not None:
        parts.append(f"cos {event.cosine:+.2f}")
    return "  ".join(parts)

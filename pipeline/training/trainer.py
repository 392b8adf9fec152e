"""The training loop: two gradients, one combination, one step.

Only the trainer touches the optimizer, clipping, devices and checkpoints. Memory beyond weights
and optimizer is the two gradients: the direction and the actual update exist for one bucket of
parameters at a time.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data.samples import SampleSet
from ..maths.gradients import Combination, Gradient, Gram, Waiting, gram, guard_coefficients
from ..maths.parameters import select_parameters
from ..methods.base import Context, Loss, Method
from ..models import Denoiser
from ..schema.events import Event
from ..schema.recipe import TrainingSection
from ..schema.results import Pair, TrainingResult
from ..support.errors import Cancelled, UserError
from ..support.files import replacing
from ..support.processes import ALONE, Processes
from ..support.progress import Progress, Silent, Within
from .feed import Feed
from .optimizers import MetricAdam, build_optimizer, learning_rate, moments, restore_moments
from .parallel import build_replica
from .stopping import EarlyStop
from .tuning import tuned

_BUCKET = 1_000_000  # weights whose direction and update exist at one time
_KEPT_CHECKPOINTS = 2
_ROUNDING = 1e-6  # a first-order change this small beside ||update|| ||g|| is not a violation


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
            noise and timesteps that one process alone would draw; `replicas.shared_out` comes before.
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
    ) -> None:
        self.after_step = after_step
        self.denoiser, self.method, self.samples, self.spec = denoiser, method, samples, spec
        self.folder, self.progress, self.processes = folder, progress or Silent(), processes
        try:
            self.named = select_parameters(denoiser.module, spec.parameters)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.replica = build_replica(denoiser.module, self.named, processes)
        self.parameters = self.replica.parameters
        self.optimizer = build_optimizer(spec, self.parameters)
        needs = method.config
        drops = spec.proportion_empty_prompts > 0 and "retain" in needs.terms
        self.unconditional = denoiser.encode_prompts([""]) if needs.needs_unconditional or drops else None
        objective = denoiser.objective.for_size(*samples.forget.latents.shape[-2:])
        self.feed = Feed(samples, objective, spec, seed, denoiser.device, self.processes, self.unconditional)
        self.events: list[Event] = []
        self.early_stop: EarlyStop | None = None
        self.settled: int | None = None
        check_processes(method, spec, processes)

    def train(self, resume: bool = False) -> TrainingResult:
        """Run to the last step, from the newest checkpoint if `resume`.

        Raises:
            UserError: the loss is not a number; the last good weights are kept as a checkpoint.
            Cancelled: the progress asked to stop; a checkpoint is kept.
        """
        module, spec = self.denoiser.module, self.spec
        trainable = set(map(id, self.named.values()))
        frozen = [p for p in module.parameters() if id(p) not in trainable and p.requires_grad]
        was_training = module.training
        began = time.perf_counter()
        start = done = 0
        tuning = ExitStack()
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for parameter in self.named.values():
                parameter.requires_grad_(True)
            module.train()
            tuning.enter_context(tuned(module, spec))
            with self.processes.main_first():
                self.method.prepare(self._context(resume))  # before the checkpoint: teachers and masks are the base's
            self.early_stop = self.processes.on_main(self._early_stop) if spec.early_stop else None
            start = done = self._restore() if resume else 0
            self.settled = self.early_stop.settled_after(self.events) if self.early_stop else None
            self.replica.start()
            with self.progress.stage("unlearning", spec.steps) as report, torch.enable_grad():
                advance = self.processes.agreed(report)
                advance(start)
                while done < self._end:
                    event = self._step(done)
                    done += 1
                    self._record(event)
                    if self.early_stop and self.settled is None and self.early_stop.settled(self.events):
                        self.settled = done
                    if done % spec.checkpoint_every == 0 and done < self._end:
                        self._save(done)
                    if self.after_step:
                        self.after_step(done, Within(advance) if self.processes.size == 1 else Silent())
                    advance(1, _note(event))
        except (Cancelled, _BadLoss) as stop:
            where = self._save(done)
            kept = f" The weights after step {done} are kept in {where}." if where else ""
            if isinstance(stop, Cancelled):
                raise Cancelled(f"Stopped after step {done} of {spec.steps}.{kept}") from None
            raise UserError(f"{stop}{kept} Lower the learning rate or set a forget limit.") from None
        finally:
            self.replica.drop_gradients()
            for parameter in frozen:
                parameter.requires_grad_(True)
            tuning.close()
            module.train(was_training)
        self._save(done)
        return self._result(time.perf_counter() - began, whole=start == 0)

    def _context(self, resumed: bool) -> Context:
        return Context(
            denoiser=self.denoiser,
            parameters=self.named,
            batches=self.feed.one_pass,
            unconditional=self.unconditional,
            folder=self.folder,
            resumed=resumed or not self.processes.main,  # the others find what the first process kept
            progress=self.progress,
        )

    @property
    def _end(self) -> int:
        """How many steps there will be, as far as is known."""
        if self.early_stop is None or self.settled is None:
            return self.spec.steps
        return min(self.spec.steps, self.settled + self.early_stop.steps)

    def _early_stop(self) -> EarlyStop:
        """The rule, from what the model that came in has on the retain data."""
        losses = []
        with self.progress.stage("retain loss", len(self.samples.retain)) as advance, torch.no_grad():
            for batch in self.feed.one_pass("retain"):
                with self._precision():
                    loss = self.method.loss("retain", self.denoiser, batch)
                losses.append(loss.denoising)
                advance(len(batch.samples))
        return EarlyStop.after(losses, math.ceil(len(self.samples.forget) / self.spec.batch_size))

    # one step -----------------------------------------------------------------------------------

    def _step(self, step: int) -> Event:
        began = time.perf_counter()
        rate = learning_rate(self.spec, step)
        if self.early_stop and self.settled is not None:
            rate = learning_rate(self.spec, self.settled) * self.early_stop.rate(step, self.settled)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seen: dict[str, Loss] = {}
        grads: dict[str, Gradient] = {}
        for term in self.method.config.terms:
            seen[term] = self._differentiate(term, step)
            taken = self.replica.take_gradients()
            keeping, last = self.spec.forget_gradient, self.method.config.terms[-1]
            grads[term] = taken if keeping == "whole" or term == last else Waiting(taken, keeping)
        direction = self._combine(grads)
        grads.clear()  # the direction holds them from here on, and lets go of them as it is used up
        changes, size = self._apply(direction)
        products = direction.gram
        if self.spec.guard and products:
            changes = self._guard(direction, products, changes)
        norms = {"forget": products.ff**0.5, "retain": products.rr**0.5} if products else {}
        violates = {t: c > _ROUNDING * size * norms.get(t, 0.0) for t, c in changes.items()}
        forget, retain = (seen.get(term) for term in ("forget", "retain"))
        return Event(
            step=step,
            loss_forget=forget.denoising if forget else None,
            loss_retain=retain.denoising if retain else None,
            norm_forget=norms.get("forget"),
            norm_retain=norms.get("retain"),
            cosine=products.cosine if products else None,
            conflict=bool(products and products.conflict),
            truncated=bool(forget and forget.truncated),
            change_forget=changes.get("forget"),
            change_retain=changes.get("retain"),
            violates_forget=violates.get("forget", False),
            violates_retain=violates.get("retain", False),
            learning_rate=rate,
            seconds=time.perf_counter() - began,
            above_limit=forget.above_limit if forget else None,
            forget_limit=forget.forget_limit if forget else None,
        )

    def _differentiate(self, term: str, step: int) -> Loss:
        """Accumulate one term's gradient in `.grad`; gives its loss over all micro-batches and processes."""
        parts = self.spec.gradient_accumulation_steps
        seen = []
        for part in range(parts):
            batch = self.feed.batch(term, step, part)
            with self.replica.accumulating(last=part == parts - 1):
                with self._precision():
                    loss: Loss = self.replica.compute(partial(self.method.loss, term, self.denoiser, batch))
                whole = loss.averaged(partial(self.feed.mean, batch=batch))
                if not math.isfinite(whole.denoising):
                    raise _BadLoss(f"the {term} loss became {whole.denoising} in step {step + 1}.")
                (loss.objective * batch.share / parts).backward()
            seen.append(whole)
        return Loss.mean(seen)

    def _combine(self, grads: dict[str, Gradient]) -> Combination:
        if isinstance(self.optimizer, MetricAdam):
            self.optimizer.observe(grads, self.method.config.retain_weight)
            return self.method.combine(grads, self.optimizer.metric, self.replica.total)
        return self.method.combine(grads, reduce=self.replica.total)

    @torch.no_grad()
    def _apply(self, direction: Combination) -> tuple[dict[str, float], float]:
        """Step bucket by bucket. Gives update . g for each term, and ||update||."""
        scale = self._clip_scale(direction)
        terms = direction.terms
        products = torch.zeros(1, 1 + len(terms), dtype=torch.float64)
        for bucket in self._buckets():
            held = [self.parameters[index] for index in bucket]
            update = [parameter.detach().clone() for parameter in held]
            for index, parameter in zip(bucket, held, strict=True):
                parameter.grad = direction[index] if scale is None else direction[index] * scale
            self.optimizer.step()
            for parameter in held:
                parameter.grad = None
            for old, parameter in zip(update, held, strict=True):
                torch.sub(parameter.detach(), old, out=old)
            gradients = ([direction.gradient(term, index) for index in bucket] for term in terms)
            products += gram([update, *gradients], rows=1).sum(0)
            if not self.spec.guard:  # which corrects the whole step afterwards
                for index in bucket:
                    direction.release(index)
        squared, *changes = self.replica.total(products)[0].tolist()
        return dict(zip(terms, changes, strict=True)), squared**0.5

    @torch.no_grad()
    def _guard(self, direction: Combination, products: Gram, changes: dict[str, float]) -> dict[str, float]:
        """Take out of the step what raises an objective; gives the changes that remain."""
        mu, nu = guard_coefficients(products, changes["forget"], changes["retain"])
        if mu or nu:
            for index, parameter in enumerate(self.parameters):
                for term, factor in (("forget", mu), ("retain", nu)):
                    parameter.add_(direction.gradient(term, index), alpha=-factor)
        return {
            "forget": changes["forget"] - mu * products.ff - nu * products.fr,
            "retain": changes["retain"] - mu * products.fr - nu * products.rr,
        }

    def _clip_scale(self, direction: Combination) -> float | None:
        if self.spec.max_grad_norm is None:
            return None
        norm = gram([direction], reduce=self.replica.total).sum().item() ** 0.5
        return min(1.0, self.spec.max_grad_norm / max(norm, 1e-12))

    def _buckets(self) -> Iterator[list[int]]:
        """Indices of parameters, small ones first: the largest come when most gradients have been let go."""
        bucket: list[int] = []
        size = 0
        for index in sorted(range(len(self.parameters)), key=lambda index: self.parameters[index].numel()):
            count = self.parameters[index].numel()
            if bucket and size + count > _BUCKET:
                yield bucket
                bucket, size = [], 0
            bucket.append(index)
            size += count
        yield bucket

    def _precision(self) -> Any:
        if self.spec.precision == "fp32":
            return nullcontext()
        # no cache of casts: it would not notice that a method puts a teacher's weights in place and takes them out
        return torch.autocast(self.denoiser.device.type, torch.bfloat16, cache_enabled=False)

    # records ------------------------------------------------------------------------------------

    def _record(self, event: Event) -> None:
        self.events.append(event)
        if self.folder and self.processes.main:
            with open(self.folder / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(event)) + "\n")

    def _save(self, step: int) -> Path | None:
        """Write a checkpoint and drop all but the newest few."""
        if not self.folder:
            return None
        tensors = {}
        for name, parameter in zip(self.named, self.parameters, strict=True):
            tensors[f"weights.{name}"] = self._whole(name, parameter.detach())
            for key, value in moments(self.optimizer, parameter).items():
                tensors[f"optimizer.{key}.{name}"] = self._whole(name, value)
        path = self.folder / "checkpoints" / f"step-{step:06d}.safetensors"
        if not self.processes.main:
            return path
        with replacing(path) as partial:
            save_file(tensors, partial, metadata={"step": str(step)})
        for old in self.checkpoints()[:-_KEPT_CHECKPOINTS]:
            old.unlink()
        return path

    def _whole(self, name: str, held: Tensor) -> Tensor:
        return self.replica.whole(name, held).cpu().contiguous()

    def checkpoints(self) -> list[Path]:
        """The checkpoints on disk, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.safetensors")) if self.folder else []

    @torch.no_grad()
    def _restore(self) -> int:
        """Load the newest checkpoint; gives its step, 0 if there is none."""
        found = self.checkpoints()
        if not found:
            self._cut_events(0)
            return 0
        with safe_open(found[-1], "pt") as file:
            step = int(file.metadata()["step"])
            held = dict(zip(self.named, self.parameters, strict=True))
            for name, parameter in held.items():
                parameter.copy_(self.replica.part(name, file.get_tensor(f"weights.{name}")))
            kept: dict[str, dict[str, Tensor]] = {name: {} for name in held}
            for key in file.keys():
                if key.startswith("optimizer."):
                    _, field, name = key.split(".", 2)
                    kept[name][field] = self.replica.part(name, file.get_tensor(key))
            for name, parameter in held.items():
                restore_moments(self.optimizer, parameter, kept[name])
        self._cut_events(step)
        return step

    def _cut_events(self, step: int) -> None:
        """Forget what was recorded after the checkpoint."""
        assert self.folder is not None  # noqa: S101 - `resume` needs a folder
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        self.events = [Event(**json.loads(line)) for line in path.read_text().splitlines()[:step]]
        if not self.processes.main:
            return
        with replacing(path) as partial:
            partial.write_text("".join(json.dumps(asdict(event)) + "\n" for event in self.events))

    def _result(self, seconds: float, whole: bool) -> TrainingResult:
        events = self.events
        total = sum(event.seconds for event in events)
        tail = events[-max(1, len(events) // 10) :]

        def share(flags: list[bool]) -> float:
            return sum(flags) / max(1, len(flags))

        def mean(values: list[float | None]) -> float:
            known = [value for value in values if value is not None]
            return sum(known) / len(known) if known else 0.0

        return TrainingResult(
            steps=len(events),
            settled=self.settled,
            seconds=seconds if whole else total,
            seconds_per_step=total / max(1, len(events)),
            peak_memory_bytes=peak_memory(self.denoiser.device),
            conflict_rate=share([event.conflict for event in events]),
            violation_rate=Pair(
                forget=share([event.violates_forget for event in events]),
                retain=share([event.violates_retain for event in events]),
            ),
            truncation_rate=share([event.truncated for event in events]),
            final_loss=Pair(
                forget=mean([event.loss_forget for event in tail]), retain=mean([event.loss_retain for event in tail])
            ),
        )


def check_processes(method: Method[Any], spec: TrainingSection, processes: Processes) -> None:
    """Find out, before anything is drawn, whether these processes can train this.

    Raises:
        UserError: too few pairs for them all, or a method that needs whole weights.
    """
    smallest = spec.batch_size // spec.gradient_accumulation_steps
    if smallest < processes.size:
        raise UserError(
            f"expected at least one pair of every micro-batch for each of {processes.size} processes, got {smallest} "
            "(batch_size divided by gradient_accumulation_steps). Raise batch_size or start fewer processes."
        )
    if processes.sharded and spec.optimizer != "adam":
        raise UserError(f"optimizer {spec.optimizer!r} can't be cut in parts by FSDP. Set it to 'adam'.")
    if processes.sharded and (spec.torch_compile or spec.channels_last):
        raise UserError("torch_compile and channels_last need a whole network, which FSDP cuts in parts. Leave them.")
    if processes.sharded and spec.preview_every:
        raise UserError("preview_every draws with whole weights, which FSDP has cut in parts. Set it to 0.")
    if processes.sharded and spec.early_stop:
        raise UserError(
            "early_stop looks at whole weights before the first step, which FSDP has cut in parts. Leave it off."
        )
    if processes.sharded and method.config.needs_whole_weights:
        raise UserError(
            f"{method.config.name} looks at whole weights before the first step, which FSDP has cut in parts. "
            "Launch with --multi_gpu in place of --use_fsdp."
        )


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


def peak_memory(device: torch.device) -> int:
    """Most memory so far, in bytes: allocated on an accelerator, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not there on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""Measure the time and memory of a step with two gradients, compared with plain training.

    python benchmarks/step.py [--json] [--width N] [--size N] [--steps N] [--batch N]

Time is measured on a UNet of Stable Diffusion 1's shape but narrower, with random weights, on
its latents of 64 x 64 and a batch of 8. A step splits into the two forward-backward passes
(`Trainer._differentiate`, all of it), Adam's own update (`optimizer.step`), and the rest, which is
the price of the method: three inner products, the combination, and the first-order changes that are
recorded. `overhead_share` is that rest over the whole step and does not include Adam, which any
training pays; `optimizer_share` is Adam's. Figures are medians over the steps after a warm-up.

The overhead is so many seconds a weight, whatever the batch and resolution are, so its share falls
with the arithmetic that a weight takes part in. That is `flops_per_weight` here, against 44,800 for
Stable Diffusion 1.4 at 512 pixels and a batch of 8 (2,800 flops a weight and sample, forward and
backward, counted on the same class; two passes). `overhead_share_stable_diffusion` is computed from
the seconds of this run with the passes scaled by that ratio; it is not measured. Smaller latents
(`--size 32`) are quicker to try and have a larger share.

Memory is measured on a wider UNet with more weights, at batch 1 and latents of 8 x 8, so that
activations are negligible beside a gradient (their size is given as `activation_gradients` and is
not subtracted). `extra_gradients` is the peak of a step over the memory before it (weights and
Adam's moments, gradients None), in multiples of one gradient: 2.0 are the two gradients
themselves, and what comes on top is for the largest single tensor (`largest_tensor`, in the same
unit, as in Stable Diffusion 1.4): its direction, its update, and what Adam needs meanwhile. On
CUDA it is the allocator's peak; on the CPU every allocation of PyTorch's CPU allocator is counted,
as resident memory also holds what malloc keeps and buffers of the kernels.

`flattened` is the same step by the reference procedure (`FlattenedTrainer`): both gradients joined into long
vectors, projected, and split again. It does not record what the step did.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks to stderr

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from turpentine.benchmarks.memory import peak_bytes
from turpentine.pipeline.data.samples import Samples, SampleSet
from turpentine.pipeline.maths.objectives import Epsilon
from turpentine.pipeline.methods import build_method
from turpentine.pipeline.methods.restricted import RGDConfig
from turpentine.pipeline.models import choose_device
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.training.trainer import Trainer

TEXT_TOKENS = 77
MEMORY_WIDTH = 128  # over 100 million weights
STABLE_DIFFUSION_FLOPS = 44_800  # a weight and step, see above


class Stand:
    """The part of a `Denoiser` that training needs, with random weights."""

    def __init__(self, width: int, size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.text_width = 768 * width // 320
        self.module = UNet2DConditionModel(
            sample_size=size,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            cross_attention_dim=self.text_width,
            attention_head_dim=8,
        ).to(device)
        self.device, self.size = device, size
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.objective = Epsilon((1 - betas).cumprod(0))

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        """The UNet's output."""
        return self.module(noisy_samples, timesteps, conditioning["prompt_embeds"], return_dict=False)[0]

    def samples(self, count: int) -> SampleSet:
        """Random latents."""
        generator = torch.Generator().manual_seed(1)
        conditioning = {"prompt_embeds": torch.randn(2, TEXT_TOKENS, self.text_width, generator=generator)}
        rows = torch.arange(count) % 2

        def drawn() -> Samples:
            return Samples(torch.randn(count, 4, self.size, self.size, generator=generator), conditioning, rows)

        return SampleSet.in_order(forget=drawn(), retain=drawn())


@dataclass
class Clock:
    """Seconds spent in some functions, per step."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, adding its time under `name`."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self._wait()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            return result

        return wrapped

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class FlattenedTrainer(Trainer):
    """The reference procedure from its description: flatten, clone, project, unflatten (Ko et al. 2024, Eq. 4).

    Each term's gradient is cloned tensor by tensor and joined into one vector; each vector is cloned, so that it is
    projected against the other's original; their sum is split again, and every weight gets a clone of its part.
    """

    def _step(self, step: int) -> None:  # type: ignore[override]
        flat: dict[str, Tensor] = {}
        for term in self.method.config.terms:
            self._differentiate(term, step)
            flat[term] = torch.cat([p.grad.clone().flatten() for p in self.parameters if p.grad is not None])
            self.optimizer.zero_grad()
        forget, retain = flat["forget"].clone(), flat["retain"].clone()
        dot = torch.dot(flat["forget"], flat["retain"])
        if dot < 0:
            forget -= dot / flat["retain"].norm() ** 2 * flat["retain"]
            retain -= dot / flat["forget"].norm() ** 2 * flat["forget"]
        direction = forget + self.method.config.retain_weight * retain
        parts = direction.split([p.numel() for p in self.parameters])
        for p, part in zip(self.parameters, parts, strict=True):
            p.grad = part.view_as(p).clone()
        self.optimizer.step()
        self.optimizer.zero_grad()


def build(kind: type[Trainer], stand: Stand, batch: int) -> Trainer:
    spec = TrainingSection(steps=1, batch_size=batch, learning_rate=1e-6)
    trainer = kind(stand, build_method(RGDConfig(forget_limit=None)), stand.samples(4 * batch), spec)  # type: ignore[arg-type]
    trainer.denoiser.module.train()
    return trainer


def measure_time(trainer: Trainer, steps: int, warm_up: int = 1) -> dict[str, float]:
    """Medians of the shares and seconds of a step."""
    clock = Clock(trainer.denoiser.device)
    trainer._differentiate = clock.timed("passes", trainer._differentiate)  # type: ignore[method-assign]
    trainer.optimizer.step = clock.timed("optimizer", trainer.optimizer.step)  # type: ignore[method-assign]
    whole = clock.timed("step", trainer._step)
    with FlopCounterMode(display=False) as counter:
        Trainer._differentiate(trainer, "retain", 0)
    for parameter in trainer.parameters:
        parameter.grad = None
    flops = 2 * counter.get_total_flops() / weights_of(trainer.denoiser.module)
    rows = []
    for step in range(warm_up + steps):
        clock.seconds = {}
        whole(step)
        if step >= warm_up:
            rows.append(clock.seconds)

    def middle(figure: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(figure(row) for row in rows)

    def rest(row: dict[str, float]) -> float:
        return row["step"] - row["passes"] - row["optimizer"]

    overhead, optimizer = middle(rest), middle(lambda row: row["optimizer"])
    passes = middle(lambda row: row["passes"]) * STABLE_DIFFUSION_FLOPS / flops
    return {
        "overhead_share": middle(lambda row: rest(row) / row["step"]),
        "optimizer_share": middle(lambda row: row["optimizer"] / row["step"]),
        "seconds_per_step": middle(lambda row: row["step"]),
        "overhead_seconds": overhead,
        "overhead_share_stable_diffusion": overhead / (overhead + optimizer + passes),
        "flops_per_weight": round(flops),
    }


def measure_memory(kind: type[Trainer], stand: Stand) -> dict[str, float]:
    """Peaks in multiples of one gradient."""
    trainer = build(kind, stand, batch=1)
    gradient = sum(p.numel() * p.element_size() for p in trainer.parameters)
    trainer._step(0)  # Adam's moments are there from here on
    extra = peak_bytes(lambda: trainer._step(1), stand.device)

    def forward_only() -> None:
        trainer.method.loss("retain", trainer.denoiser, trainer.feed.batch("retain", 0, 0))

    activations = peak_bytes(forward_only, stand.device)
    return {"extra_gradients": extra / gradient, "activation_gradients": activations / gradient}


def weights_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def benchmark(width: int, size: int, steps: int, batch: int, device: torch.device) -> dict[str, Any]:
    result: dict[str, Any] = {"device": str(device), "threads": torch.get_num_threads(), "batch": batch, "size": size}
    stand = Stand(width, size, device)
    result["weights"] = weights_of(stand.module)
    result |= measure_time(build(Trainer, stand, batch), steps)
    flattened = measure_time(build(FlattenedTrainer, stand, batch), steps)
    del stand
    stand = Stand(MEMORY_WIDTH, 8, device)
    result["weights_memory"] = weights_of(stand.module)
    result["largest_tensor"] = max(p.numel() for p in stand.module.parameters()) / result["weights_memory"]
    result |= measure_memory(Trainer, stand)
    flattened |= measure_memory(FlattenedTrainer, stand)
    result["flattened"] = flattened
    result["overhead_ratio"] = flattened["overhead_seconds"] / result["overhead_seconds"]
    return result


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"One step: {result['weights'] / 1e6:.0f} M weights, batch {result['batch']}, {result['device']}"
    )
    for heading in ("", "three inner products", "flattened"):
        table.add_column(heading, justify="right" if heading else "left")
    for title, key, form in (
        ("overhead (no passes, no Adam)", "overhead_share", "{:.1%}"),
        ("  at Stable Diffusion's size (computed)", "overhead_share_stable_diffusion", "{:.1%}"),
        ("Adam's own update", "optimizer_share", "{:.1%}"),
        ("seconds a step", "seconds_per_step", "{:.2f}"),
        ("overhead, seconds", "overhead_seconds", "{:.3f}"),
        ("extra memory, gradients", "extra_gradients", "{:.2f}"),
        ("  of it activations", "activation_gradients", "{:.2f}"),
    ):
        table.add_row(title, form.format(result[key]), form.format(result["flattened"][key]))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--width", type=int, default=64, metavar="N", help="channels of the first level, a multiple of 32; default 64"
    )
    parser.add_argument("--size", type=int, default=64, metavar="N", help="height and width of the latents; default 64")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="steps that are timed; default 3")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="batch size; default 8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …; default auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    result = benchmark(options.width, options.size, options.steps, options.batch, choose_device(options.device))
    if options.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        show(result)


if __name__ == "__main__":
    main()

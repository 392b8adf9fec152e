"""Shared by the training scripts: resumable state, a learning-rate curve, an average of weights."""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from ...support.files import replacing

console = Console()


def arguments(
    description: str,
    steps: int,
    batch: int,
    work: str = "tiny-canvas-training",
    more: Callable[[argparse.ArgumentParser], None] | None = None,
) -> argparse.Namespace:
    """Parse the options that every training script has, and those that `more` adds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, default=Path(work), help="checkpoints, data and pictures")
    parser.add_argument("--out", type=Path, help="where the finished weights go (default: the work folder)")
    parser.add_argument("--steps", type=int, default=steps, help=f"optimizer steps (default {steps})")
    parser.add_argument("--batch", type=int, default=batch, help=f"pictures a step (default {batch})")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads")
    parser.add_argument("--seed", type=int, default=0)
    if more:
        more(parser)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)  # the moments of rarely used weights, else, slow the optimizer down
    return options


def cosine(step: int, steps: int, peak: float, warmup: int = 200, floor: float = 0.02) -> float:
    """Learning rate: linear warm-up, then half a cosine down to `floor` of the peak."""
    progress = min(step / steps, 1.0)
    return peak * min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def bfloat16_pays() -> bool:
    """Tell whether this processor multiplies bfloat16 matrices faster than float32."""
    return torch.cuda.is_available() or torch.cpu._is_amx_tile_supported()


class Average:
    """Exponential moving average of parameters, honest when few steps have been made."""

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters; `step` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the parameters (call again to swap back)."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)


def run(
    name: str,
    options: argparse.Namespace,
    state: dict[str, object],
    one_step: Callable[[int], float],
    show: Callable[[Path], None],
    minutes_between_shows: float = 8,
) -> None:
    """Run `one_step` until `options.steps`, saving everything in `state` to resume from.

    Args:
        name: file name of the checkpoint in the work folder.
        options: as `arguments` returns them.
        state: objects with `state_dict` and `load_state_dict`, or lists of tensors.
        one_step: makes step i and returns its loss.
        show: writes a picture of the progress to the path it is given.
        minutes_between_shows: how often to show and to save.
    """
    path = options.work / f"{name}.pt"
    start = _restore(path, state) if path.exists() else 0
    began = last = time.monotonic()
    losses: list[float] = []
    for step in _steps(start, options):
        losses.append(one_step(step))
        if (step + 1) % 250 == 0:
            spent = time.monotonic() - began
            rate = (step + 1 - start) / spent
            left = (options.steps - step - 1) / rate / 60
            console.print(f"{name} {step + 1}/{options.steps} loss {sum(losses) / len(losses):.5f} "
                          f"{rate * options.batch:.0f} pictures/s, {left:.0f} min left")  # fmt: skip
            losses.clear()
        if time.monotonic() - last > 60 * minutes_between_shows or step + 1 == options.steps:
            _save(path, state, step + 1)
            show(options.work / f"{name}-{step + 1:06d}.png")
            last = time.monotonic()


def _steps(start: int, options: argparse.Namespace) -> Iterator[int]:
    for step in range(start, options.steps):
        torch.manual_seed(options.seed * 1_000_003 + step)  # a resumed run draws what it would have drawn
        yield step


def _save(path: Path, state: dict[str, object], step: int) -> None:
    contents = {key: item if isinstance(item, list) else item.state_dict() for key, item in state.items()}  # type: ignore[attr-defined]
    with replacing(path) as partial:
        torch.save({"step": step, **contents}, partial)


def _restore(path: Path, state: dict[str, object]) -> int:
    saved = torch.load(path, weights_only=True)
    for key, item in state.items():
        if isinstance(item, list):
            for tensor, value in zip(item, saved[key], strict=True):
                tensor.copy_(value)
        else:
            item.load_state_dict(saved[key])  # type: ignore[attr-defined]
    return saved["step"]

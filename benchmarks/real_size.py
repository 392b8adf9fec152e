"""A whole fine-tuning step at the real size of Stable Diffusion 1.4, and the reference's combination beside ours.

    python -m turpentine.benchmarks.real_size [--part combination|step|all]

The UNet is of Stable Diffusion 1's class and shape with random weights; at a width of 320 channels it is that
of 1.4 (859,520,964 weights). Float32, batch 1, `rgd`. What is measured is one step with Adam's moments there:
two gradients, their combination, Adam.

- `step`: width 320, latents of 64 x 64 (512 pixels). Ours.
- `combination`: a width that both procedures fit, latents of 8 x 8, so that activations are small beside a
  gradient. `reference` is the published procedure from its description (`benchmarks.step.FlattenedTrainer`).
  `computed` are the peaks of both at width 320 before activations: weights, Adam's moments (3 gradients' worth),
  and what the procedure was seen to hold above them.

Every measurement is a process of its own. Peaks are resident memory as the kernel counts it (VmHWM, reset
before the step); `held` is what was resident before, interpreter and libraries (`base`) included. The process
may not allocate more than `--limit`, and is the first that the kernel would end if memory ran out. Larger
blocks are given back at once (MALLOC_MMAP_THRESHOLD_), or a peak would hold what malloc keeps.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from turpentine.benchmarks.step import Clock, FlattenedTrainer, Stand, build, weights_of
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.files import write_text
from turpentine.pipeline.support.text import GB
from turpentine.pipeline.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "real-size.json"
REAL_WIDTH, SHARED_WIDTH, SIDE = 320, 192, 64
TRAINERS: dict[str, type[Trainer]] = {"ours": Trainer, "reference": FlattenedTrainer}


def memory_now(key: str) -> int:
    """Bytes of a line of /proc/self/status: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(procedure: str, width: int, side: int) -> dict[str, Any]:
    """Peak and seconds of one step in this process."""
    base = memory_now("VmRSS")
    stand = Stand(width, side, torch.device("cpu"))
    trainer = build(TRAINERS[procedure], stand, batch=1)
    for parameter in trainer.parameters:
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()  # makes the moments
    trainer.optimizer.zero_grad()
    clock = Clock(stand.device)
    trainer._differentiate = clock.timed("passes", trainer._differentiate)  # type: ignore[method-assign]
    trainer.optimizer.step = clock.timed("adam", trainer.optimizer.step)  # type: ignore[method-assign]
    held = memory_now("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
    clock.timed("step", trainer._step)(0)
    seconds = clock.seconds
    return {
        "procedure": procedure,
        "width": width,
        "side": side,
        "weights": weights_of(stand.module),
        "threads": torch.get_num_threads(),
        "base": base,
        "held": held,
        "peak": memory_now("VmHWM"),
        "seconds": {**seconds, "combination": seconds["step"] - seconds["passes"] - seconds["adam"]},
    }


def in_a_process(procedure: str, width: int, side: int, limit: int) -> dict[str, Any]:
    """`measure` in a process that may take `limit` bytes.

    Raises:
        UserError: less memory is free than the limit, or the process needed more.
    """
    free = psutil.virtual_memory().available
    if free < limit:
        raise UserError(f"expected {limit / GB:.1f} GiB of free memory, got {free / GB:.1f}. Lower --limit.")

    def guard() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")

    command = [sys.executable, "-m", "turpentine.benchmarks.real_size", "--here", procedure, str(width), str(side)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, preexec_fn=guard, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{procedure} at width {width} ended with code {done.returncode} under {limit / GB:.1f} GiB.")
    return json.loads(done.stdout)


def compare(limit: int) -> dict[str, Any]:
    """Both procedures at a width that both fit, and what follows for the real one."""
    found: dict[str, Any] = {name: in_a_process(name, SHARED_WIDTH, 8, limit) for name in TRAINERS}
    real = 4 * weights_of(Stand(REAL_WIDTH, SIDE, torch.device("meta")).module)
    for each in found.values():
        each["extra_gradients"] = (each["peak"] - each["held"]) / (4 * each["weights"])
        each["computed_peak"] = (3 + each["extra_gradients"]) * real
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("combination", "step", "all"), default="all", help="default all")
    parser.add_argument("--limit", type=float, default=19.0, metavar="GIB", help="most that may be allocated")
    parser.add_argument("--here", nargs=3, metavar=("PROCEDURE", "WIDTH", "SIDE"), help="in this process, no limit")
    options = parser.parse_args()
    if options.here:
        name, width, side = options.here
        sys.stdout.write(json.dumps(measure(name, int(width), int(side))))
        return
    result = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    limit = int(options.limit * GB)
    if options.part != "step":
        result["combination"] = compare(limit)
    if options.part != "combination":
        result["step"] = in_a_process("ours", REAL_WIDTH, SIDE, limit)
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

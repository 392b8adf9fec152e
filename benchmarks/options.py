"""Measure the memory and time of each option that saves memory, beside the plan of `turpentine plan`.

    python -m turpentine.benchmarks.options [--json] [--width N] [--side N] [--batch N]

A UNet of Stable Diffusion 1's shape but narrower, with random weights, is trained by `rgd`. `peak` is what
tensors take at most in a step once Adam's moments are there: weights, moments, and what PyTorch's allocator
(CUDA) or every allocation of its CPU allocator (CPU) says. `plan` is an upper bound of the same.
`seconds` are of the process on the CPU (`time.process_time`), of that step.

A forget gradient that waits in the CPU's memory saves nothing where the network is there as well, and
bitsandbytes may be missing: such rows are left out.
"""

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from turpentine.benchmarks.memory import peak_bytes
from turpentine.benchmarks.step import Stand
from turpentine.pipeline.methods import build_method
from turpentine.pipeline.methods.restricted import RGDConfig
from turpentine.pipeline.models import choose_device
from turpentine.pipeline.run.cost import SETTINGS, plan, plan_network
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.support.files import write_text
from turpentine.pipeline.training.lora import inject
from turpentine.pipeline.training.optimizers import moments
from turpentine.pipeline.training.trainer import Trainer
from turpentine.pipeline.training.tuning import tuned

RESULTS = Path(__file__).parent / "results" / "options.json"


def usable(spec: TrainingSection, device: torch.device) -> bool:
    """Tell if a setting can be measured on this machine."""
    missing = spec.optimizer == "adam8bit" and find_spec("bitsandbytes") is None
    return not missing and not (spec.forget_gradient == "cpu" and device.type == "cpu")


def held_bytes(trainer: Trainer) -> int:
    """Weights and the optimizer's moments."""
    weights = sum(p.numel() * p.element_size() for p in trainer.denoiser.module.parameters())
    kept = (tensor for p in trainer.parameters for tensor in moments(trainer.optimizer, p).values())
    return weights + sum(tensor.numel() * tensor.element_size() for tensor in kept)


def measure(spec: TrainingSection, stand: Stand, batch: int, rule: str = "restricted") -> dict[str, float]:
    """Peak of tensors and seconds of the second step of a setting."""
    if spec.parameters == "lora":
        inject(stand.module, spec.adapter_rank, spec.adapter_alpha, spec.adapter_targets, 0)
    spec = spec.model_copy(update={"batch_size": batch, "learning_rate": 1e-6})
    method = build_method(RGDConfig(forget_limit=None, combine=rule))
    trainer = Trainer(stand, method, stand.samples(4 * batch), spec)  # type: ignore[arg-type]
    trained = {id(p) for p in trainer.parameters}
    for parameter in stand.module.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    stand.module.train()
    with tuned(stand.module, spec):
        trainer._step(0)
        held = held_bytes(trainer)
        extra = peak_bytes(lambda: trainer._step(1), stand.device)
        began = time.process_time()
        trainer._step(2)
        seconds = time.process_time() - began
    return {"peak": held + extra, "seconds": seconds}


def benchmark(width: int, side: int, batch: int, device: torch.device) -> dict[str, Any]:
    """Every setting of `cost.SETTINGS` that can be shown, and the rule that keeps one gradient."""
    rows = {}
    with TemporaryDirectory() as folder:
        Stand(width, side, torch.device("meta")).module.save_config(Path(folder) / "unet")
        for planned in plan(folder, [spec for spec in SETTINGS if usable(spec, device)], batch, side):
            rows[planned.name] = {"plan": planned.total, **measure(planned.setting, Stand(width, side, device), batch)}
    plain, stand = TrainingSection(), Stand(width, side, device)
    planned = plan_network(type(stand.module), stand.module.config, plain, batch, side, gradients=1)
    rows["full, fp32, combine famo"] = {"plan": planned.total, **measure(plain, stand, batch, "famo")}
    return {"width": width, "side": side, "batch": batch, "device": str(device), "rows": rows}


def show(result: dict[str, Any]) -> None:
    """Print the rows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="A step: width {width}, latents {side}x{side}, batch {batch}, {device}".format(**result))
    for heading in ("setting", "peak, MB", "plan, MB", "saved", "seconds"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    first = next(iter(result["rows"].values()))["peak"]
    for name, row in result["rows"].items():
        saved = f"{1 - row['peak'] / first:.0%}"
        table.add_row(name, f"{row['peak'] / 1e6:.0f}", f"{row['plan'] / 1e6:.0f}", saved, f"{row['seconds']:.1f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help=f"also write {RESULTS.name}")
    parser.add_argument("--width", type=int, default=64, metavar="N", help="channels of the first level; default 64")
    parser.add_argument("--side", type=int, default=32, metavar="N", help="side of the latents; default 32")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="batch size; default 4")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, …; default cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = benchmark(options.width, options.side, options.batch, choose_device(options.device))
    if options.json:
        write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    show(result)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

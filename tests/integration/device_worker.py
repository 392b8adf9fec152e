"""Tiny runs on a device without float64: every family, method and rule. See `support/device.py`.

Prints JSON: case -> "ok", or what went wrong.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import turpentine
from turpentine.pipeline.data.samples import SampleSet
from turpentine.pipeline.maths.choices import RULES
from turpentine.pipeline.methods import build_method, find, names
from turpentine.pipeline.models import entry, load, load_denoiser, wrap_pipeline
from turpentine.pipeline.models.device import DeviceLacks
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.training.edit import edit
from turpentine.pipeline.training.trainer import Trainer

from ..support import device
from ..support.tiny_models import BUILDERS, build_family
from ..support.training import make_samples

SHORT = {
    "prompts": {"n": 4, "n_test": 2}, "steps": 2, "batch_size": 2, "image_size": 16, "num_inference_steps": 2,
    "preview_every": 1, "formats": ["denoiser", "lora"],
    "audits": {"images": 2, "retain_train_images": 2, "alignment_model": "tiny-canvas"},
}  # fmt: skip
ROWS = [("a photo of a cat", "a photo of a dog", "a photo of a dog")]


def whole(family: str) -> None:
    """Drawing, training, previews, audits and weights of somebody's own pipeline."""
    method = {"name": "rgd", "forget": "ascend", "forget_limit": "auto"}
    with tempfile.TemporaryDirectory() as folder:
        pipe = build_family(family).to(device.DEVICE)
        result = turpentine.unlearn(pipe, "cat", out=Path(folder) / "run", method=method, **SHORT)
        assert {part.device.type for part in pipe.components.values() if hasattr(part, "device")} == {"npu"}
        assert result.results.audits.after.alignment is not None


def classes() -> None:
    """The same of the bundled class-conditional model."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = load_denoiser("digits", "cpu").pipeline.to(device.DEVICE)
        turpentine.unlearn(
            pipe, "3", out=Path(folder) / "run", model="digits", method="rgd", steps=1, formats=["denoiser"]
        )


def on_the_cpu(samples: SampleSet) -> SampleSet:
    """Samples as `SampleSet.draw` gives them."""
    parts = (
        replace(each, conditioning={name: rows.cpu() for name, rows in each.conditioning.items()})
        for each in (samples.forget, samples.retain)
    )
    return SampleSet.in_order(*parts)


def trained(method: str, where: str, options: dict, spec: dict) -> dict[str, torch.Tensor]:
    """The weights after a short training, or an edit."""
    denoiser = wrap_pipeline(build_family("sd1").to(where))
    section = TrainingSection(**{"steps": 2, "batch_size": 2, "learning_rate": 1e-3, **spec})
    config = find(method).config(**options)
    if config.closed_form:
        edit(denoiser, ROWS, config)
    else:
        Trainer(denoiser, build_method(config), on_the_cpu(make_samples(denoiser)), section).train()
    return {name: value.detach().cpu() for name, value in denoiser.module.state_dict().items()}


def alike(method: str, options: dict | None = None, **spec: object) -> Callable[[], None]:
    """Train there as on the CPU: to the same weights, but for the rounding of sums in blocks of another size."""

    def compare() -> None:
        found, expected = (trained(method, where, options or {}, spec) for where in (device.DEVICE, "cpu"))
        before = build_family("sd1").unet.state_dict()
        apart = sum((found[name] - value).square().sum() for name, value in expected.items())
        moved = sum((value - before[name]).square().sum() for name, value in expected.items())
        assert 0 < moved and apart < 0.02**2 * moved, f"{apart**0.5} beside {moved**0.5}"

    return compare


def lacking(name: str) -> Callable[[], None]:
    """What was chosen for the user gives way to the CPU with a word; what was named is refused in one line."""

    def check() -> None:
        with tempfile.TemporaryDirectory() as folder, device.rules(name):
            build_family("sd1").save_pretrained(folder)
            load.choose_device = lambda chosen: torch.device(device.DEVICE if chosen == "auto" else chosen)
            denoiser = load_denoiser(folder, "auto")
            assert denoiser.device.type == "cpu" == denoiser.module.device.type
            (warning,) = denoiser.warnings
            assert warning.startswith("the device npu:0 lacks an operation that this model needs"), warning
            assert name in warning and warning.endswith("so the CPU computes instead."), warning
            with pytest.raises(DeviceLacks, match=r"lacks an operation .*Choose the device 'cpu'\.") as refusal:
                load_denoiser(folder, device.DEVICE)
            assert "\n" not in str(refusal.value)

    return check


CASES: dict[str, Callable[[], None]] = {
    **{f"family {name}": lambda name=name: whole(name) for name in BUILDERS},
    "family class-conditional": classes,
    **{f"method {name}": alike(name, {"start_steps": 3} if name.startswith("esd") else {}) for name in names()},
    **{f"rule {rule}": alike("rgd", {"combine": rule, "budget": 0.0}) for rule in RULES},
    "metric adam": alike("rgd", {"projection": "per_layer"}, metric="adam"),
    "guard, clipped": alike("rgd", {"forget_limit": "auto"}, guard=True, max_grad_norm=0.1),
    "forget gradient on the cpu": alike("rgd", forget_gradient="cpu"),
    "warm start, distilled": alike("rgd", {"forget": "redirect", "retain": "distil", "warm_start": "uce"}),
    **{f"without {name}": lacking(f"aten::{name}") for name in ("native_group_norm", "convolution", "embedding")},
}


def main(chosen: list[str]) -> None:
    """Work through all cases, or those that are named."""
    device.set_up()
    torch.set_num_threads(1)
    entry._check_weights = lambda name, part: None  # the weights there are of a class of their own
    found = {}
    for name in chosen or CASES:
        print(name, file=sys.stderr)
        try:
            with device.rules():
                CASES[name]()
            found[name] = "ok"
        except Exception:
            found[name] = traceback.format_exc()
    print(json.dumps(found), flush=True)
    os._exit(0)  # the threads of a device that is none have no end


if __name__ == "__main__":
    main(sys.argv[1:])

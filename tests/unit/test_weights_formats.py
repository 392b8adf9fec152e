"""The registry of weights formats, and how one is added."""

import sys
from types import ModuleType
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.schema import choices
from turpentine.pipeline.schema.recipe import OutputSection
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.weights import FORMATS, Job, check_formats, needs_base, snapshot, write_weights
from turpentine.pipeline.weights import formats as package
from turpentine.pipeline.weights.apply import apply
from turpentine.pipeline.weights.change import Change
from turpentine.pipeline.weights.format import Format
from turpentine.pipeline.weights.job import Written

from ..support.pipelines import build_tiny_pipeline


def test_every_format_is_a_file_and_a_line():
    assert list(FORMATS) == list(choices.WEIGHT_FORMATS)
    assert all(isinstance(each, Format) for each in FORMATS.values())
    assert len({each.rank for each in FORMATS.values()}) == len(FORMATS)
    assert [name for name, each in FORMATS.items() if each.of_difference] == ["lora", "lora_diffusers", "delta"]
    field = OutputSection.model_fields["formats"]
    assert get_args(get_args(field.annotation)[0]) == tuple(FORMATS)
    assert all(f"{name}, {meaning}" in field.description for name, meaning in choices.WEIGHT_FORMATS.items())


def test_needs_base():
    assert needs_base(["diffusers", "delta"]) and not needs_base(["diffusers", "denoiser", "single_file"])


# how to add one -----------------------------------------------------------------------------------


def toy_file():
    """The first step: a file `weights/formats/toy.py`."""

    def write(job):
        path = job.folder / f"{job.name}-toy.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        difference = job.difference
        save_file({f"toy.{name}": job.cast(difference[name]) for name in difference}, path, job.header("toy"))
        return Written(path, [path])

    def check(denoiser):
        if denoiser.family != "stable-diffusion":
            raise UserError("no toys for this family.")

    def read(keys):
        names = {name for name in keys.names if name.startswith("toy.")}
        return names, (Change(name.removeprefix("toy."), keys.get(name)) for name in sorted(names))

    module = ModuleType("toy")
    module.FORMAT = Format(
        write, rank=9, of_difference=True, check=check, load=lambda path, family: f"play({path})", read=read
    )
    return module


@pytest.fixture
def with_toy(monkeypatch):
    """The second step: a line in `WEIGHT_FORMATS`. Both are read when the packages are imported."""
    monkeypatch.setitem(sys.modules, f"{package.__name__}.toy", toy_file())
    monkeypatch.setitem(choices.WEIGHT_FORMATS, "toy", "a toy")
    monkeypatch.setitem(FORMATS, "toy", package.load_format("toy"))


def test_a_format_is_written_refused_and_read_back(with_toy, tmp_path):
    denoiser = wrap_pipeline(build_tiny_pipeline(), "tiny")
    base = snapshot(denoiser.module)
    with torch.no_grad():
        denoiser.module.conv_in.weight.add_(1)
    assert needs_base(["toy"])
    (record,) = write_weights(Job(denoiser, tmp_path / "weights", "one", "fp32", {}, base=base), ["toy"])
    assert (record.format, record.path) == ("toy", "weights/one-toy.safetensors")
    written = load_file(tmp_path / record.path)["toy.conv_in.weight"]
    torch.testing.assert_close(written, torch.ones_like(written))
    pipe = build_tiny_pipeline()
    with pytest.warns(UserWarning, match="does not say which weights"):
        apply(pipe, tmp_path / record.path, any_base=True)
    torch.testing.assert_close(pipe.unet.state_dict()["conv_in.weight"], denoiser.module.conv_in.weight.detach())
    denoiser.family = "other"
    with pytest.raises(UserError, match="no toys"):
        check_formats(denoiser, ["toy"])

"""Runs on a device that has no float64 and lacks operations, as Apple's GPUs: see `support/device.py`."""

import json
import subprocess
import sys

import pytest
import torch
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.support.errors import UserError

from ..support import device
from ..support.tiny_models import build_family
from .device_worker import CASES


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What became of every case, in a process of its own."""
    words = [sys.executable, "-m", "turpentine.tests.integration.device_worker"]
    worker = subprocess.run(words, cwd=tmp_path_factory.mktemp("device"), capture_output=True, text=True, timeout=1800)
    assert worker.returncode == 0, worker.stderr[-3000:]
    return json.loads(worker.stdout.splitlines()[-1])


@pytest.mark.skipif(not device.AVAILABLE, reason="this PyTorch has no devices that are written in Python")
@pytest.mark.parametrize("case", CASES)
def test_a_device_without_float64(found, case):
    assert found[case] == "ok", found[case]


class Lacking(torch.autograd.Function):
    """An operation without a backward pass."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("The operator 'aten::lacking_backward' is not currently implemented")


def test_a_backward_pass_that_a_device_lacks_is_told_before_anything_is_drawn(monkeypatch):
    """On a device that may lack something; the CPU stands for it here."""
    pipe = build_family("sd1")
    pipe.unet.conv_out.register_forward_hook(lambda module, inputs, output: Lacking.apply(output))
    wrap_pipeline(pipe)
    monkeypatch.setattr("turpentine.pipeline.models.device._COMPLETE", ("cuda",))
    with pytest.raises(UserError, match=r"the device cpu lacks an operation .*lacking_backward.*MPS_FALLBACK=1"):
        wrap_pipeline(pipe)

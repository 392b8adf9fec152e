"""`training.deterministic`: what it switches, what it refuses, and that it leaves no trace."""

import os

import pytest
import torch
from turpentine.benchmarks.store import _still
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.run.preflight import preflight_model
from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.run.record import RunRecord, check_recipe
from turpentine.pipeline.run.repeatable import check_repeatable, repeatable
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.idle import idle_options
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent

from ..support.tiny_models import build_family
from ..support.training import same, weights

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
SHORT = {
    "concept": "cat", "model": "mine", "prompts": {"n": 4, "n_test": 2},
    "samples": {"image_size": 16, "num_inference_steps": 2}, "output": {"formats": ["denoiser"]},
    "audits": {"images": 2, "retain_train_images": 2, "alignment": False},
}  # fmt: skip


def recipe(wanted=True, **training):
    return build_recipe({**SHORT, "training": {"steps": 2, "batch_size": 2, "deterministic": wanted, **training}})


def switches():
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


@pytest.mark.parametrize("before", [(False, False, True), (True, True, False), (False, True, False)])
def test_switches_are_as_they_were_afterwards(before):
    cudnn, usual = torch.backends.cudnn, switches()
    try:
        torch.use_deterministic_algorithms(before[0], warn_only=True)
        cudnn.deterministic, cudnn.benchmark = before[1:]
        with repeatable(False, "cpu"):
            assert switches() == before
        with pytest.raises(KeyError), repeatable(True, "cpu"):
            assert switches() == (True, True, False)
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            raise KeyError
        assert switches() == before
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(usual[0])
        cudnn.deterministic, cudnn.benchmark = usual[1:]


@pytest.fixture
def cuda(monkeypatch):
    """A machine with a GPU on which nothing has run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)
    return monkeypatch


@pytest.mark.parametrize("device", ["auto", "cuda", torch.device("cuda", 1)])
def test_the_workspace_is_chosen_before_cublas_begins(cuda, device):
    with repeatable(True, device):
        assert os.environ[VARIABLE] == ":4096:8"


@pytest.mark.parametrize("device", ["cpu", "mps", torch.device("cpu")])
def test_other_devices_need_no_workspace(cuda, device):
    cuda.setattr(torch.cuda, "is_initialized", lambda: True)
    with repeatable(True, device):
        assert VARIABLE not in os.environ


@pytest.mark.parametrize("given", [":4096:8", ":16:8"])
def test_a_workspace_that_was_chosen_before_is_kept(cuda, given):
    cuda.setenv(VARIABLE, given)
    cuda.setattr(torch.cuda, "is_initialized", lambda: True)
    with repeatable(True, "cuda"):
        assert os.environ[VARIABLE] == given


@pytest.mark.parametrize(("given", "found"), [(None, "CUDA has begun without it"), (":0:0", "found ':0:0'")])
def test_a_workspace_that_comes_too_late_is_refused(cuda, given, found):
    cuda.setattr(torch.cuda, "is_initialized", lambda: given is None)
    if given:
        cuda.setenv(VARIABLE, given)
    with pytest.raises(UserError, match=rf"needs {VARIABLE}=:4096:8 .* {found}\. Set it"), repeatable(True, "cuda"):
        pass
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_that_does_not_repeat_itself_is_refused_before_the_work():
    denoiser = wrap_pipeline(build_family("sd1"))
    check_repeatable(denoiser)

    def never_the_same(module, inputs, outputs):
        zero = torch.zeros(1, dtype=torch.long)
        return (outputs[0].clone().put_(zero, outputs[0].flatten()[:1]),)

    handle = denoiser.module.register_forward_hook(never_the_same)
    setting = resolve(recipe())
    prompts = prompts_of(setting, denoiser)
    refusal = r"training\.deterministic .*never repeats itself on cpu \(put_.*Set it to false"
    with pytest.raises(UserError, match=refusal):
        preflight_model(setting, prompts, denoiser)
    preflight_model(resolve(recipe(False)), prompts, denoiser)
    handle.remove()


def test_the_whole_run_is_under_it(tmp_path, monkeypatch):
    seen = []

    class Watching(Silent):
        def stage(self, name, total):
            seen.append((name, switches()[0]))
            return super().stage(name, total)

    trained = []
    for place in ("a", "b"):
        denoiser = wrap_pipeline(build_family("sd1"))
        run_recipe(recipe(), tmp_path / place, denoiser=denoiser, progress=Watching())
        trained.append(weights(denoiser.module))
    assert same(*trained)
    assert {"unlearning", "drawing forget images"} <= {name for name, _ in seen} and all(on for _, on in seen)
    assert not switches()[0]


def test_records_without_the_field_stay_what_they_were(tmp_path):
    now = recipe(False)
    before = now.model_dump(mode="json")
    del before["training"]["deterministic"]
    check_recipe(before, now, tmp_path)
    with pytest.raises(UserError, match=r"training\.deterministic False, and the recipe now says True"):
        check_recipe(before, recipe(True), tmp_path)
    assert RunRecord(recipe=before).signed().sha256 == RunRecord(recipe=before).signed().sha256
    assert _still(before, now.model_dump(mode="json")) and not _still(before, recipe(True).model_dump(mode="json"))


def test_a_cpu_needs_it_not():
    (line,) = idle_options(resolve(recipe().model_copy(update={"device": "cpu"})), ("training.deterministic",))
    assert line.endswith("has no effect with device 'cpu', which repeats itself anyway.")
    assert not idle_options(resolve(recipe()), ("training.deterministic",))

"""Options that save memory or time: what they leave as it was, and what they really take."""

import pytest
import torch
from turpentine.benchmarks.options import measure
from turpentine.benchmarks.step import Stand
from turpentine.pipeline.maths.gradients import Waiting
from turpentine.pipeline.maths.rules import combine, restricted
from turpentine.pipeline.run.cost import plan
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.processes import Processes
from turpentine.pipeline.training import optimizers
from turpentine.pipeline.training.parallel import check_processes

from ..support.training import same, train, weights


@pytest.mark.parametrize("spec", [{}, {"guard": True, "max_grad_norm": 0.1}, {"metric": "adam"}])
def test_a_forget_gradient_that_waits_on_the_cpu_changes_nothing(spec):
    plain, _, _ = train(**spec)
    waited, _, _ = train(**spec, forget_gradient="cpu")
    assert same(weights(plain), weights(waited))


def test_a_forget_gradient_that_waits_in_bf16_changes_the_direction_by_its_rounding():
    generator = torch.Generator().manual_seed(0)
    forget = [torch.randn(40, 30, generator=generator), torch.randn(7, generator=generator)]
    retain = [torch.randn(40, 30, generator=generator) - part[..., :30] for part in forget[:1]] + [-forget[1]]
    whole = combine({"forget": forget, "retain": retain}, restricted, 1.5)
    waiting = Waiting([part.clone() for part in forget], "bf16")
    assert all(part.dtype == torch.bfloat16 for part in waiting.held)
    rounded = combine({"forget": waiting, "retain": retain}, restricted, 1.5)
    for index in range(2):
        assert rounded[index].dtype == torch.float32
        torch.testing.assert_close(rounded[index], whole[index], rtol=0, atol=0.02)
    assert not torch.equal(rounded[0], whole[0])
    rounded.release(0)
    assert not waiting.held[0].numel() and waiting.held[1].numel()


def test_channels_last_is_a_layout_and_no_more(tmp_path):
    plain, _, _ = train()
    module, _, _ = train(channels_last=True)
    for name, value in weights(plain).items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=0, atol=2e-4)
    assert module.conv_in.weight.is_contiguous()


def test_channels_last_resumes_as_if_it_had_not_stopped(tmp_path):
    whole, _, _ = train(channels_last=True)
    train(channels_last=True, folder=tmp_path, steps=2)
    resumed, _, _ = train(channels_last=True, folder=tmp_path, resume=True)
    assert same(weights(whole), weights(resumed))


def test_8bit_adam_keeps_its_moments_in_8_bits_and_resumes_as_if_it_had_not_stopped(tmp_path):
    whole, _, trainer = train(optimizer="adam8bit")
    assert any(state["state1"].dtype == torch.uint8 for state in trainer.optimizer.state.values())
    train(optimizer="adam8bit", folder=tmp_path, steps=2)
    resumed, _, _ = train(optimizer="adam8bit", folder=tmp_path, resume=True)
    assert same(weights(whole), weights(resumed))


def test_8bit_adam_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'needs the package \'bitsandbytes\'.*"turpentine\[adam8bit\]"'):
        train(optimizer="adam8bit")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"gradient_checkpointing": True},
        {"forget_gradient": "bf16"},
        {"parameters": "xattn"},
        {"parameters": "lora"},
    ],
    ids=str,
)
def test_a_plan_bounds_what_a_step_takes(tmp_path, spec):
    side, batch, width = 16, 2, 32
    Stand(width, side, torch.device("meta")).module.save_config(tmp_path / "unet")
    section = TrainingSection(**spec)
    (planned,) = plan(str(tmp_path), [section], batch, side)
    taken = measure(section, Stand(width, side, torch.device("cpu")), batch)["peak"]
    assert 0.75 * planned.total < taken < 1.05 * planned.total


@pytest.mark.parametrize(
    ("training", "method", "message"),
    [
        ({"optimizer": "adam8bit", "metric": "adam"}, "rgd", "metric 'adam' needs training.optimizer 'adam'"),
        (
            {"forget_gradient": "cpu"},
            "salun",
            "belongs to grad_diff, grad_diff_d, rg and rgd, got method 'salun'",
        ),
    ],
)
def test_options_that_exclude_each_other(training, method, message):
    with pytest.raises(UserError, match=message):
        build_recipe({"concept": "cat", "method": {"name": method}, "training": training})


@pytest.mark.parametrize(
    "spec",
    [{"optimizer": "adam8bit"}, {"torch_compile": True}, {"channels_last": True}, {"base_precision": "bf16"}],
)
def test_parts_refuse_what_needs_whole_weights(spec):
    _, _, trainer = train(steps=1)
    with pytest.raises(UserError, match="FSDP"):
        check_processes(trainer.method.config, TrainingSection(**spec), Processes(0, 2, "fsdp"))

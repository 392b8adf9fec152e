"""The loop on real diffusers classes at tiny size: every method, and every promise of the trainer."""

import json

import pytest
import torch
from turpentine.pipeline.maths.parameters import select_parameters
from turpentine.pipeline.methods import build_method, find, names
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.support.errors import Cancelled, UserError
from turpentine.pipeline.training.trainer import Trainer

from ..support.plugin import PLUGIN, install, python
from ..support.stopping import StopWhen
from ..support.tiny_models import build_tiny_pipeline
from ..support.training import make_samples, same, train, weights


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("method", [name for name in names() if not find(name).config.closed_form])
def test_every_method_trains_and_repeats_bit_for_bit(method, prediction_type):
    module, result, trainer = train(method, prediction_type=prediction_type)
    again, _, _ = train(method, prediction_type=prediction_type)
    assert same(weights(module), weights(again))
    assert not same(weights(module), weights(build_tiny_pipeline(prediction_type).unet))
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    for term in ("forget", "retain"):
        loss = getattr(result.final_loss, term)
        assert 0 < loss < 10 if term in trainer.method.config.terms else loss == 0


@pytest.mark.parametrize("method", ["rgd", "salun", "esd"])
@pytest.mark.parametrize("which", ["full", "xattn", "noxattn"])
def test_only_selected_weights_move(which, method):
    before = weights(build_tiny_pipeline().unet)
    module, _, _ = train(method, parameters=which)
    selected = set(select_parameters(module, which))
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and moved <= selected
    assert all(p.requires_grad for p in module.parameters()), "requires_grad is left as it was found"
    if which == "xattn":
        assert all(".attn2." in name for name in moved)
    if which == "noxattn":
        assert not any(".attn2." in name or "norm" in name for name in moved)


@pytest.mark.parametrize(
    ("method", "spec"),
    [
        ("rgd", {}),
        ("rgd", {"metric": "adam"}),
        ("rgd", {"guard": True, "gradient_accumulation_steps": 2}),
        ("rgd", {"config": {"combine": "budget", "budget": 0.0}}),
        ("rgd", {"config": {"combine": "famo"}}),
        ("rgd", {"config": {"combine": "famo", "forget": "redirect", "ascend_share": 0.5}}),
        ("rgd", {"config": {"forget": "redirect", "retain": "distil"}}),
        ("rg", {"config": {"forget": "redirect", "retain": "distil", "push": 1.0}, "parameters": "xattn"}),
        ("rgd", {"config": {"forget": "redirect", "retain": "distil", "combine": "budget"}}),
        ("salun", {}),
        ("esd", {"parameters": "xattn"}),
    ],
)
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, method, spec):
    config = spec.pop("config", None)
    whole, _, first = train(method, folder=tmp_path / "whole", steps=6, config=config, **spec)

    stop = StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 3)
    with pytest.raises(Cancelled, match=r"after step 3 of 6.*checkpoints"):
        train(method, folder=tmp_path / "cut", steps=6, progress=stop, config=config, **spec)
    resumed, _, trainer = train(method, folder=tmp_path / "cut", steps=6, resume=True, config=config, **spec)
    assert [e.retain_weight for e in trainer.events] == [e.retain_weight for e in first.events]
    assert same(weights(whole), weights(resumed))
    lines = (tmp_path / "cut" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(6))
    assert len(trainer.events) == 6


def test_an_early_end_is_found_again_after_a_stop(tmp_path):
    """Everything is above a tiny limit from the first step on, so the run ends after a pass and its cool-down."""
    config = {"forget_limit": 1e-6}
    spec = {"steps": 20, "early_stop": True, "learning_rate": 1e-6, "lr_scheduler": "cosine"}
    _, result, trainer = train("rgd", folder=tmp_path / "whole", config=config, **spec)
    assert result.steps == len(trainer.events) == 6 and result.settled == 3
    assert [path.name for path in trainer.checkpoints.found()] == ["step-000006.safetensors"]
    assert trainer.events[-1].learning_rate == pytest.approx(trainer.events[2].learning_rate / 3, rel=0.1)
    train("rgd", folder=tmp_path / "cut", config=config, **(spec | {"steps": 4}))
    _, again, _ = train("rgd", folder=tmp_path / "cut", config=config, resume=True, **spec)
    assert again.steps == 6 and again.settled == 3
    # the cosine of the cut run is another one, so the weights are compared with a level rate
    level = {**spec, "lr_scheduler": "constant"}
    a, _, _ = train("rgd", folder=tmp_path / "a", config=config, **level)
    train("rgd", folder=tmp_path / "b", config=config, **(level | {"steps": 4}))
    b, _, _ = train("rgd", folder=tmp_path / "b", config=config, resume=True, **level)
    assert same(weights(a), weights(b)) and not same(weights(a), weights(build_tiny_pipeline("epsilon").unet))


def test_a_measured_limit_is_recorded_and_resumed(tmp_path):
    config, spec = {"forget_limit": "auto"}, {"learning_rate": 1e-3, "lr_scheduler": "constant"}
    whole, _, trainer = train("rgd", folder=tmp_path / "whole", config=config, steps=6, **spec)
    assert all(event.forget_limit > 0 and 0 <= event.above_limit <= 1 for event in trainer.events)
    train("rgd", folder=tmp_path / "cut", config=config, steps=3, **spec)
    resumed, _, _ = train("rgd", folder=tmp_path / "cut", config=config, steps=6, resume=True, **spec)
    assert same(weights(whole), weights(resumed))


def test_empty_prompts_take_the_place_of_retain_prompts_only():
    denoiser = wrap_pipeline(build_tiny_pipeline())
    section = TrainingSection(steps=1, batch_size=6, proportion_empty_prompts=0.5)
    trainer = Trainer(denoiser, build_method(find("rgd").config()), make_samples(denoiser), section)
    plain = Trainer(denoiser, trainer.method, make_samples(denoiser), TrainingSection(steps=1, batch_size=6))
    (name, empty), *_ = denoiser.encode_prompts([""]).items()
    retain, before = (t.feed.batch("retain", 0, 0) for t in (trainer, plain))
    dropped = torch.tensor([torch.equal(row, empty[0]) for row in retain.conditioning[name]])
    assert 0 < dropped.sum() < 6
    assert torch.equal(retain.conditioning[name][~dropped], before.conditioning[name][~dropped])
    assert torch.equal(retain.noise, before.noise) and torch.equal(retain.timesteps, before.timesteps)
    forget = trainer.feed.batch("forget", 0, 0).conditioning[name]
    assert torch.equal(forget, plain.feed.batch("forget", 0, 0).conditioning[name])


def test_checkpoints_are_kept_few(tmp_path):
    train(folder=tmp_path, steps=6, checkpoint_every=1)
    names = [path.name for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["step-000005.safetensors", "step-000006.safetensors"]


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    """Two micro-batches differ from one batch in their noise, so compare against summing by hand."""
    denoiser = wrap_pipeline(build_tiny_pipeline())
    section = TrainingSection(steps=1, batch_size=4, gradient_accumulation_steps=2)
    trainer = Trainer(denoiser, build_method(find("rgd").config()), make_samples(denoiser), section)
    trainer._differentiate("retain", 0)
    accumulated = [p.grad.clone() for p in trainer.parameters]
    by_hand = [torch.zeros_like(g) for g in accumulated]
    for part in range(2):
        loss = trainer.method.loss("retain", denoiser, trainer.feed.batch("retain", 0, part))
        for total, gradient in zip(by_hand, torch.autograd.grad(loss.objective, trainer.parameters), strict=True):
            total += gradient / 2
    for a, b in zip(accumulated, by_hand, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_recorded_change_is_the_real_update_times_the_gradient():
    denoiser = wrap_pipeline(build_tiny_pipeline())
    trainer = Trainer(
        denoiser, build_method(find("rgd").config()), make_samples(denoiser), TrainingSection(steps=1, batch_size=2)
    )
    old = [p.detach().clone() for p in trainer.parameters]
    grads = {}
    for term in ("forget", "retain"):
        trainer._differentiate(term, 0)
        grads[term] = [p.grad.clone() for p in trainer.parameters]
        for p in trainer.parameters:
            p.grad = None
    event = trainer._step(0)
    for term in grads:
        pairs = zip(trainer.parameters, old, grads[term], strict=True)
        expected = sum(((p.detach() - o).double() * g.double()).sum().item() for p, o, g in pairs)
        assert getattr(event, f"change_{term}") == pytest.approx(expected, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("spec", [{"metric": "adam"}, {"guard": True}])
def test_the_guarantee_holds_for_the_step_that_is_taken(spec):
    _, result, trainer = train("rgd", steps=12, config={"forget_limit": None}, **spec)
    assert result.conflict_rate > 0.5, "a test of the guarantee needs conflicts"
    assert result.violation_rate.forget == 0 and result.violation_rate.retain == 0
    assert all(event.change_retain <= 1e-9 for event in trainer.events)


def test_plain_adam_breaks_the_guarantee():
    """Why `metric` and `guard` exist: what leaves the projection is not what the weights take."""
    torch.manual_seed(0)
    _, result, _ = train("rgd", steps=40, config={"forget_limit": None, "retain_weight": 5.0})
    assert result.violation_rate.forget + result.violation_rate.retain > 0


@pytest.mark.parametrize("parts", [1, 2, 6])
@pytest.mark.parametrize("combine", ["restricted", "famo"])
def test_a_limit_is_of_the_whole_batch_in_however_many_parts(parts, combine):
    """Of the parts some are above a limit near the mean, some below: all of them are pushed, or none."""

    def first(limit):
        config = {"forget_limit": limit, "combine": combine}
        spec = {"steps": 1, "batch_size": 6, "gradient_accumulation_steps": parts}
        module, _, trainer = train("rgd", config=config, **spec)
        return weights(module), trainer.events[0]

    free, event = first(None)
    below, pushed = first(event.loss_forget * 1.0001)
    assert same(free, below)
    assert (pushed.truncated, pushed.above_limit) == (False, 0.0) and pushed.norm_forget == event.norm_forget
    _, dropped = first(event.loss_forget * 0.9999)
    assert (dropped.truncated, dropped.above_limit) == (True, 1.0) and not dropped.norm_forget
    assert dropped.loss_forget == event.loss_forget and dropped.change_forget == (None if combine == "famo" else 0)


def test_truncated_steps_only_retain():
    _, result, trainer = train("rgd", config={"forget_limit": 1e-3})
    assert result.truncation_rate == 1
    assert all(event.norm_forget == 0 and event.cosine == 0 for event in trainer.events)


@pytest.mark.parametrize(("precision", "advice"), [("fp32", r"\. Try another copy"), ("bf16", "Train in fp32, or try")])
def test_a_bad_loss_before_the_first_step_is_not_the_learning_rates_fault(precision, advice):
    denoiser = wrap_pipeline(build_tiny_pipeline())
    samples = make_samples(denoiser)
    samples.forget.latents[:] = float("inf")
    spec = TrainingSection(steps=2, batch_size=2, precision=precision)
    with pytest.raises(UserError, match=rf"forget loss became \w+ in step 1\. No weights had changed.*{advice}"):
        Trainer(denoiser, build_method(find("rgd").config()), samples, spec).train()


def test_bad_loss_stops_and_keeps_the_last_good_weights(tmp_path):
    denoiser = wrap_pipeline(build_tiny_pipeline())
    samples = make_samples(denoiser)
    trainer = Trainer(
        denoiser, build_method(find("rgd").config()), samples, TrainingSection(steps=6, batch_size=2), 0, tmp_path
    )
    samples.retain.latents[trainer.feed.indices("retain", 2, 0)[0]] = float("nan")  # met in the third step
    with pytest.raises(
        UserError, match=r"retain loss became nan in step 3\..*after step 2 are kept in .*step-000002.* Lower the"
    ):
        trainer.train()
    assert all(torch.isfinite(value).all() for value in denoiser.module.state_dict().values())
    assert [path.name for path in trainer.checkpoints.found()] == ["step-000002.safetensors"]


@pytest.mark.parametrize("spec", [{"precision": "bf16"}, {"gradient_checkpointing": True}, {"max_grad_norm": 0.1}])
def test_variants_of_the_step(spec):
    module, result, _ = train(**spec)
    assert result.steps == 4 and 0 < result.final_loss.retain < 10
    assert next(module.parameters()).dtype == torch.float32


@pytest.mark.parametrize("method", ["salun", "esd"])
def test_targets_without_gradient_leave_the_gradient_whole_in_bf16(method):
    before = weights(build_tiny_pipeline().unet)
    still = []
    for precision in ("fp32", "bf16"):
        module, _, _ = train(method, steps=1, precision=precision)
        still.append({name for name, value in module.state_dict().items() if torch.equal(value, before[name])})
    assert still[1] <= still[0], "a weight that moves in fp32 moves in bf16"


def test_gradient_checkpointing_changes_no_number():
    plain, _, _ = train(steps=2)
    saved, _, _ = train(steps=2, gradient_checkpointing=True)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], value, rtol=1e-3, atol=2e-5)


def test_a_method_of_another_package_trains(tmp_path):
    install(tmp_path, "turpentine-push", "turpentine_push", PLUGIN)
    code = """
import torch
from turpentine.pipeline.data.samples import Samples, SampleSet
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.training.train import train

training = {"steps": 2, "batch_size": 2, "learning_rate": 1e-4}
recipe = build_recipe({"concept": "cat", "method": {"name": "push", "strength": 3}, "training": training})
denoiser = load_denoiser("tiny-canvas", "cpu")
conditioning = denoiser.encode_prompts(["a photo of a cat", "a photo of a dog"])
latents = torch.randn(4, denoiser.module.config.in_channels, 8, 8)
cats, dogs = (Samples(latents, conditioning, torch.full((4,), row)) for row in range(2))
result, _ = train(denoiser, SampleSet.in_order(cats, dogs), recipe.method, recipe.training)
print(result.steps, result.final_loss.forget > 0, result.final_loss.retain)
"""
    done = python(tmp_path, code)
    assert done.stdout == "2 True 0.0\n", done.stderr

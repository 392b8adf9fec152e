"""Every rule in the loop, with either forget loss; what a rule promises, and what moves from step to step."""

import math

import pytest
import torch
from turpentine.benchmarks.memory import peak_bytes
from turpentine.pipeline.maths.choices import RULES
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.report.summary import budget_text
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.training.trainer import Trainer

from ..support.tiny_models import build_tiny_pipeline
from ..support.training import make_samples, same, train, weights


@pytest.mark.parametrize("forget", ["ascend", "redirect"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains(rule, forget):
    module, _, trainer = train(config={"combine": rule, "forget": forget}, steps=3)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    assert not same(weights(module), weights(build_tiny_pipeline().unet))
    two = rule != "famo"
    assert all((event.cosine is not None) == two for event in trainer.events)
    moving = rule in ("budget", "famo")
    assert all((event.retain_weight is not None) == moving for event in trainer.events)


@pytest.mark.parametrize("rule", RULES)
def test_a_truncated_ascent_is_a_step_of_the_retain_gradient(rule):
    """The limit is passed from the first step on, so that g_f is zero: whatever the rule, Adam steps along g_r."""
    config = {"forget_limit": 1e-9, "retain_weight": 1.0, "budget": 0.0}
    found, _, trainer = train(config={"combine": rule, **config}, steps=1)
    expected, _, _ = train(config={"combine": "sum", **config}, steps=1)
    assert trainer.events[0].truncated
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=2e-5)


@pytest.mark.parametrize("rule", ["bisector", "mgda", "retain_first", "sago"])
def test_a_promise_holds_for_the_step_that_is_taken(rule):
    _, result, _ = train(config={"combine": rule, "forget_limit": None}, steps=6, metric="adam")
    assert result.violation_rate.retain == 0
    assert rule in ("retain_first", "sago") or result.violation_rate.forget == 0


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "famo"])
def test_a_guard_corrects_every_rule(rule):
    _, result, _ = train(config={"combine": rule, "forget_limit": None}, steps=4, guard=True)
    assert (result.violation_rate.forget, result.violation_rate.retain) == (0, 0)


@pytest.mark.parametrize("rule", ["bisector", "sago", "budget"])
def test_a_gradient_that_waits_on_the_cpu_changes_nothing(rule):
    here, _, _ = train(config={"combine": rule}, steps=2)
    waited, _, _ = train(config={"combine": rule}, steps=2, forget_gradient="cpu")
    assert same(weights(here), weights(waited))


def test_the_budget_compares_with_the_base_on_the_same_data():
    _, _, trainer = train(config={"combine": "budget", "budget": 5.0, "retain_weight": 2.0}, steps=4)
    before = trainer.method.moving.before
    assert len(before) == 4 and len(set(before)) == 4
    first, *later = trainer.events
    assert before[0] == first.loss_retain, "no weight has moved in the first step"
    assert all(event.loss_retain != loss for event, loss in zip(later, before[1:], strict=True))
    mean, weight = math.fsum(before) / 4, 2.0
    for event, loss in zip(trainer.events, before, strict=True):
        weight = max(0.0, weight + 20 * (event.loss_retain - 1.05 * loss) / mean)
        assert event.retain_weight == weight
    for event, loss in zip(trainer.events, before, strict=True):
        assert event.retain_rise == pytest.approx((event.loss_retain - loss) / mean, abs=1e-9)


@pytest.mark.parametrize(("budget", "retain_batch", "steps"), [(1000.0, "batch", 3), (0.0, "all", 1)])
def test_a_run_tells_whether_its_budget_held(budget, retain_batch, steps):
    config = {"combine": "budget", "budget": budget, "forget_limit": None, "retain_weight": 0.0}
    _, result, trainer = train(config=config, steps=5, retain_batch=retain_batch)
    last = trainer.events[-steps:]
    found = result.budget
    assert (found.allowed, found.steps, found.multiplier) == (budget / 100, steps, last[-1].retain_weight)
    assert found.rise == pytest.approx(math.fsum(event.retain_rise for event in last) / steps) and found.rise > 0
    text = budget_text(found)
    assert ("the budget of 1000 % held (μ = 0.00)" if budget else "the budget of 0 % did not hold") in text
    assert train(steps=1)[1].budget is None


@pytest.mark.parametrize("parts", [1, 2])
def test_famo_takes_the_gradient_of_the_weighted_sum(parts):
    denoiser = wrap_pipeline(build_tiny_pipeline())
    section = TrainingSection(steps=1, batch_size=4, gradient_accumulation_steps=parts)
    method = build_method(find("rgd").config(combine="famo", retain_weight=3.0))
    trainer = Trainer(denoiser, method, make_samples(denoiser), section)
    losses, grads = trainer._gradients(0)
    assert list(grads) == ["sum"] and set(losses) == {"forget", "retain"}
    by_hand = [torch.zeros_like(p) for p in trainer.parameters]
    for term, weight in (("forget", 0.5), ("retain", 1.5)):
        for part in range(parts):
            loss = method.loss(term, denoiser, trainer.feed.batch(term, 0, part)).objective
            for total, grad in zip(by_hand, torch.autograd.grad(loss, trainer.parameters), strict=True):
                total += weight / parts * grad
    for found, expected in zip(grads["sum"], by_hand, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_famo_keeps_one_gradient():
    def peak(rule):
        denoiser = wrap_pipeline(build_tiny_pipeline())
        section = TrainingSection(steps=2, batch_size=1)
        method = build_method(find("rgd").config(combine=rule))
        trainer = Trainer(denoiser, method, make_samples(denoiser), section)
        denoiser.module.train()
        trainer._step(0)
        gradient = sum(p.numel() * p.element_size() for p in trainer.parameters)
        return peak_bytes(lambda: trainer._step(1), denoiser.device) / gradient

    assert peak("restricted") - peak("famo") > 0.8

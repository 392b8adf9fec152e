"""Adam as a metric, by hand and against torch's."""

import pytest
import torch
from turpentine.pipeline.maths.gradients import gram
from turpentine.pipeline.maths.rules import combine, plain, restricted
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.training.optimizers import MetricAdam, build_optimizer
from turpentine.pipeline.training.schedule import Schedule

LR, BETA2, EPS = 0.1, 0.999, 1e-8


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def make(*values):
    parameter = torch.nn.Parameter(tensor(*values))
    return parameter, MetricAdam([parameter], LR)


def step(optimizer, parameter, direction):
    parameter.grad = direction.clone()
    optimizer.step()
    parameter.grad = None


def test_one_step_by_hand():
    parameter, optimizer = make(1.0, 1.0)
    optimizer.observe({"forget": [tensor(1.0, -2.0)], "retain": [tensor(3.0, 1.0)]}, 1.0)
    # v = 0.001 (1 + 9, 4 + 1); v-hat = (10, 5); P = 1 / v-hat^(1/2)
    a, b = 10**0.5, 5**0.5
    torch.testing.assert_close(optimizer.metric[0], tensor(1 / (a + EPS), 1 / (b + EPS)), rtol=1e-12, atol=0)
    step(optimizer, parameter, tensor(2.0, 3.0))
    torch.testing.assert_close(parameter.detach(), tensor(1 - 0.1 * 2 / a, 1 - 0.1 * 3 / b), rtol=1e-7, atol=0)


def test_two_steps_by_hand():
    parameter, optimizer = make(0.0)
    optimizer.observe({"retain": [tensor(4.0)]}, 1.5)
    step(optimizer, parameter, tensor(4.0))
    optimizer.observe({"retain": [tensor(2.0)]}, 1.5)
    step(optimizer, parameter, tensor(2.0))
    # v = 0.999 * 0.001 * 16 + 0.001 * 4 = 0.019984; correction = 1 - 0.999^2 = 0.001999
    second = 0.1 * 2 / (0.019984 / 0.001999) ** 0.5
    torch.testing.assert_close(parameter.detach(), tensor(-0.1 - second), rtol=1e-7, atol=0)
    assert optimizer.state[parameter]["step"].item() == 2


def test_the_retain_weight_counts_in_the_moments():
    _, optimizer = make(0.0)
    optimizer.observe({"forget": [tensor(1.0)], "retain": [tensor(3.0)]}, 2.0)
    torch.testing.assert_close(optimizer.metric[0], tensor(1 / 37**0.5), rtol=1e-7, atol=0)  # 1 + (2 * 3)^2


def test_a_lone_retain_term_is_not_weighted():
    _, optimizer = make(0.0)
    optimizer.observe({"retain": [tensor(3.0)]}, 2.0)
    torch.testing.assert_close(optimizer.metric[0], tensor(1 / 3), rtol=1e-7, atol=0)


def test_observing_does_not_change_weights_or_gradients():
    parameter, optimizer = make(1.0, 2.0)
    grads = {"forget": [tensor(1.0, -2.0)], "retain": [tensor(3.0, 1.0)]}
    kept = {term: [g.clone() for g in values] for term, values in grads.items()}
    optimizer.observe(grads, 1.5)
    assert torch.equal(parameter.detach(), tensor(1.0, 2.0)) and parameter.grad is None
    assert all(torch.equal(grads[term][0], kept[term][0]) for term in grads)


def test_zero_gradient_gives_a_finite_metric_and_no_step():
    parameter, optimizer = make(1.0)
    optimizer.observe({"retain": [tensor(0.0)]}, 1.0)
    assert optimizer.metric[0].item() == pytest.approx(1 / EPS)
    step(optimizer, parameter, tensor(0.0))
    assert parameter.item() == 1.0


def test_parameters_without_a_gradient_stay():
    first, second = torch.nn.Parameter(tensor(1.0)), torch.nn.Parameter(tensor(1.0))
    optimizer = MetricAdam([first, second], LR)
    optimizer.observe({"retain": [tensor(1.0), tensor(1.0)]}, 1.0)
    second.grad = tensor(1.0)
    optimizer.step()
    assert first.item() == 1.0 and second.item() == pytest.approx(0.9)


def test_a_term_alone_is_torch_adam_without_momentum():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,)]
    start = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    metric, adam = MetricAdam(ours, 1e-2), torch.optim.Adam(theirs, 1e-2, betas=(0.0, 0.999))
    for _ in range(20):
        gradients = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
        metric.observe({"retain": gradients}, 2.5)
        for mine, other, gradient in zip(ours, theirs, gradients, strict=True):
            mine.grad, other.grad = gradient.clone(), gradient.clone()
        metric.step()
        adam.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", [restricted, plain])
@pytest.mark.parametrize("left", [0.0, 1e-12, 1e-6, 1e-3])
def test_a_step_is_bounded_where_the_gradients_cancel(rule, left):
    """With v of the sum of both, a weight moved by 11,010 learning rates in the first step of a run."""
    generator = torch.Generator().manual_seed(1)
    forget, retain = (torch.randn(200, generator=generator, dtype=torch.float64) for _ in range(2))
    retain[:40] = -forget[:40] / 1.5 + left
    parameter = torch.nn.Parameter(torch.zeros(200, dtype=torch.float64))
    optimizer = MetricAdam([parameter], LR)
    grads = {"forget": [forget], "retain": [retain]}
    optimizer.observe(grads, 1.5)
    step(optimizer, parameter, combine(grads, rule, 1.5, weights=optimizer.metric)[0])
    assert parameter.abs().max() < 2 * LR


def test_learning_rate_of_the_group_is_the_one_in_use():
    parameter, optimizer = make(0.0)
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.observe({"retain": [tensor(2.0)]}, 1.0)
    step(optimizer, parameter, tensor(2.0))
    assert parameter.item() == pytest.approx(-0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_step_that_is_taken_harms_neither_objective(seed):
    """g . dtheta <= 0 for both gradients, where plain Adam may break it."""
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = MetricAdam([parameter], LR)
    for _ in range(10):
        forget = torch.randn(50, generator=generator, dtype=torch.float64)
        retain = -forget + torch.randn(50, generator=generator, dtype=torch.float64)
        grads = {"forget": [forget], "retain": [retain]}
        optimizer.observe(grads, 1.5)
        before = parameter.detach().clone()
        step(optimizer, parameter, combine(grads, restricted, 1.5, weights=optimizer.metric)[0])
        update = [parameter.detach() - before]
        change_forget, change_retain = gram([update, [forget], [retain]])[0, 0, 1:].tolist()
        assert change_forget <= 1e-9 and change_retain <= 1e-9


def test_build_optimizer():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    assert isinstance(build_optimizer(TrainingSection(metric="adam"), parameters), MetricAdam)
    plain = build_optimizer(TrainingSection(learning_rate=LR), parameters)
    assert type(plain) is torch.optim.Adam
    assert plain.param_groups[0]["lr"] == LR and plain.param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("scheduler", "wanted"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5]),
    ],
)
def test_learning_rate_rises_and_then_takes_its_course(scheduler, wanted):
    spec = TrainingSection(steps=6, warmup_steps=2, lr_scheduler=scheduler, learning_rate=1.0)
    rates = [Schedule(spec).rate(step) for step in range(6)]
    assert rates == pytest.approx(wanted)

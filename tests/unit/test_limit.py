"""The measured forget limit, and limits of each sample by itself."""

from types import SimpleNamespace

import pytest
import torch
from turpentine.pipeline.maths.objectives import EDM, Epsilon, FlowMatching
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.methods.base import Batch, Context
from turpentine.pipeline.methods.limit import LIMIT_FILE, MeasuredLimit, curve, measure_limit
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.support.errors import UserError

from ..support.linear import ALPHAS, Linear, make_batch, rows


def test_curve_is_the_mean_of_neighbours_and_linear_between():
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    timesteps = torch.arange(64)[order]
    limit = curve(timesteps, torch.where(timesteps < 32, 1.0, 3.0))
    assert limit.timesteps == (15.5, 47.5) and limit.limits == (1.0, 3.0)
    found = limit(torch.tensor([0, 15, 31, 60]))
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 1.0 + 2 * 15.5 / 32, 3.0]))


@pytest.mark.parametrize("timesteps", [torch.full((40,), 7), torch.full((80,), 0.25), torch.tensor([3])])
def test_few_or_equal_timesteps_give_one_level(timesteps):
    limit = curve(timesteps, torch.full((len(timesteps),), 0.5))
    assert limit(torch.tensor([0.0, 500.0])).tolist() == [0.5, 0.5]


def test_limit_survives_its_file(tmp_path):
    limit = MeasuredLimit((0.1, 900.0), (1 / 3, 2e-9))
    limit.save(tmp_path / LIMIT_FILE)
    assert MeasuredLimit.load(tmp_path / LIMIT_FILE) == limit


OBJECTIVES = {
    "epsilon": (Epsilon(ALPHAS), torch.tensor([0, 2])),
    "flow": (FlowMatching(), torch.tensor([300.0, 700.0])),
    "edm": (EDM(), torch.tensor([0.3, 2.0])),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_samples_below_their_own_limit_are_pushed(name):
    objective, timesteps = OBJECTIVES[name]
    target = torch.zeros(2, 1, 2, 2)
    prediction = torch.tensor([1.0, 3.0]).reshape(-1, 1, 1, 1).expand(2, 1, 2, 2).clone().requires_grad_()
    weight = objective.weight(timesteps)
    squares = torch.tensor([1.0, 9.0])
    own = objective.sample_losses(prediction, target, timesteps).detach()
    torch.testing.assert_close(own, squares if name == "edm" else weight * squares)
    for factors, pushed in (((1.1, 0.9), [True, False]), ((0.9, 1.1), [False, True]), ((0.9, 0.9), [False, False])):
        limits = own * torch.tensor(factors)
        prediction.grad = None
        found = objective.truncated_loss(prediction, target, timesteps, limits)
        found.loss.backward()
        assert prediction.grad.flatten(1).abs().sum(1).gt(0).tolist() == pushed
        assert found.above_limit == pytest.approx(1 - sum(pushed) / 2)
        held = torch.minimum(own, limits)
        torch.testing.assert_close(found.loss.detach(), (weight * held if name == "edm" else held).mean())
        torch.testing.assert_close(found.denoising, (weight * squares).mean())


def context(denoiser, batches, folder=None, resumed=False):
    return Context(denoiser, {}, lambda term: iter(batches), rows(0.0), folder, resumed)


@pytest.mark.parametrize("name", ["grad_diff", "rg", "rgd"])
def test_limit_is_how_far_targets_are_from_each_other(name, tmp_path):
    denoiser, batch = Linear(), make_batch(forget=3.0, paired=-1.0, count=6)
    method = build_method(find(name).config(forget_limit="auto"))
    method.prepare(context(denoiser, [batch], tmp_path))
    expected = (batch.noise - batch.noise.roll(1, 0)).square().mean().float()
    torch.testing.assert_close(method.limit(batch.timesteps), expected.expand(6))
    assert method.loss("forget", denoiser, batch).forget_limit == pytest.approx(expected.item())
    again = build_method(find(name).config(forget_limit="auto"))
    again.prepare(context(denoiser, [make_batch(count=6, seed=1)], tmp_path, resumed=True))
    assert again.measured == method.measured, "a resumed run reads what the first one measured"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_limit_of_an_objective(name):
    """Twice the variance of its targets: of the noise, of noise and image, of the image."""
    objective, _ = OBJECTIVES[name]
    generator = torch.Generator().manual_seed(0)
    samples = 3 * torch.randn(2000, 1, 4, 4, generator=generator) + 5
    timesteps = objective.sample_timesteps(2000, generator)
    batches = [
        Batch(part, rows(0.0), torch.randn(part.shape, generator=generator), at)
        for part, at in zip(samples.split(500), timesteps.split(500), strict=True)
    ]
    denoiser = SimpleNamespace(objective=objective)
    limit = measure_limit(context(denoiser, batches))(timesteps).mean().item()
    assert limit == pytest.approx({"epsilon": 2, "flow": 2 * (1 + 9), "edm": 2 * 9}[name], rel=0.05)


def test_one_sample_has_no_limit():
    batch = make_batch(count=1)
    with pytest.raises(UserError, match=r"'auto' compares forget samples with each other, got one\. Give it a number"):
        build_method(find("rgd").config(forget_limit="auto")).prepare(context(Linear(), [batch]))


def test_recipe_takes_auto_a_number_or_none():
    def limit(value):
        return build_recipe({"concept": "cat", "method": {"name": "rgd", "forget_limit": value}}).method.forget_limit

    assert (limit("auto"), limit("2.5"), limit(None)) == ("auto", 2.5, None)
    with pytest.raises(UserError, match=r"method\.forget_limit .*: expected a number or 'auto', got 'many'"):
        limit("many")


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ({"name": "finetune"}, "'finetune' without: take grad_diff, grad_diff_d, rg or rgd with --forget ascend"),
        ({"name": "rgd", "forget": "ascend", "forget_limit": None}, "'rgd' without: add --forget-limit auto"),
        ({"name": "rgd"}, "'rgd' that redirects: add --forget ascend"),
        ({"name": "rg", "forget": "redirect", "ascend_share": 0.5}, "'rg' that redirects: add --forget ascend"),
    ],
)
def test_early_stop_needs_a_limit(method, remedy):
    needs = r"^training\.early_stop \(--early-stop\) needs a method that ascends to a forget limit, got "
    with pytest.raises(UserError, match=f"{needs}{remedy}$"):
        build_recipe({"concept": "cat", "method": method, "training": {"early_stop": True}})


def test_early_stop_needs_denoising_losses():
    chosen = {"concept": "cat", "training": {"early_stop": True}}
    ascending = {"name": "rgd", "forget": "ascend"}
    assert build_recipe({**chosen, "method": ascending}).training.early_stop
    with pytest.raises(UserError, match=r"got method\.retain \(--retain\) 'distil': add --retain denoise$"):
        build_recipe({**chosen, "method": {**ascending, "retain": "distil"}})

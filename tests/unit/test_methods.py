"""The methods' losses by equation, in float64, on denoisers that can be worked out by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from turpentine.pipeline.maths.objectives import Epsilon, VPrediction
from turpentine.pipeline.maths.parameters import largest
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.methods.base import Batch, Context, Loss, guided_prediction, noise_loss
from turpentine.pipeline.methods.esd import sample_until
from turpentine.pipeline.methods.mask import load_mask, mask_shares, read_mask, save_mask
from turpentine.pipeline.methods.teacher import Teacher
from turpentine.pipeline.support.errors import UserError

from ..support.linear import ALPHAS, Flow, Linear, make_batch, rows


def context(denoiser, batches=(), folder=None, resumed=False, names=("w", "b")):
    parameters = {name: getattr(denoiser.module, name) for name in names}
    return Context(denoiser, parameters, lambda term: iter(batches), rows(0.0), folder, resumed)


# what they share ----------------------------------------------------------------------------------


def test_guided_prediction_by_hand():
    denoiser, x = Linear(), torch.full((2, 1, 2, 2), 4.0, dtype=torch.float64)
    for scale in (0.0, 1.0, 7.5, -1.0):
        guided = guided_prediction(denoiser, x, torch.tensor([1, 1]), rows(3.0, 3.0), rows(0.5), scale)
        torch.testing.assert_close(guided, torch.full_like(x, 0.5 * 4 + 2 * 0.5 + scale * 2 * (3.0 - 0.5)))


@pytest.mark.parametrize("objective", [Epsilon(ALPHAS), VPrediction(ALPHAS), Flow()], ids=lambda o: type(o).__name__)
def test_estimate_inverts_noising_and_target(objective):
    batch = make_batch(timestep=2)
    noisy = objective.add_noise(batch.samples, batch.noise, batch.timesteps)
    target = objective.target(batch.samples, batch.noise, batch.timesteps)
    samples, noise = objective.estimate(target, noisy, batch.timesteps)
    torch.testing.assert_close(samples, batch.samples)
    torch.testing.assert_close(noise, batch.noise)
    one = torch.ones_like(batch.timesteps)
    torch.testing.assert_close(
        objective.denoise(target, noisy, batch.timesteps, one), objective.add_noise(batch.samples, batch.noise, one)
    )


def test_a_step_of_a_flow_is_eulers():
    batch, flow = make_batch(timestep=3), Flow()
    velocity = torch.randn_like(batch.samples)
    to = torch.full_like(batch.timesteps, 1)
    expected = batch.noise + (1 / 3 - 1) * velocity  # s falls from 1 to 1/3
    torch.testing.assert_close(flow.denoise(velocity, batch.noise, batch.timesteps, to), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_denoise_is_diffusers_ddim(prediction_type):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=100, prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(10)
    objective = {"epsilon": Epsilon, "v_prediction": VPrediction}[prediction_type](scheduler.alphas_cumprod)
    sample, output = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    at, to = torch.tensor([50, 50]), torch.tensor([40, 40])
    theirs = scheduler.step(output, 50, sample).prev_sample
    torch.testing.assert_close(objective.denoise(output, sample, at, to), theirs, rtol=1e-4, atol=1e-5)


# salun --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99, 1.0])
def test_largest_is_what_sorting_gives(share):
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(shape, generator=generator) * scale for shape, scale in (((40, 7), 1), ((99,), 1e-4))]
    tensors.append(torch.randn(3, 3, generator=generator) * 1e6)
    masks = largest(tensors, share)
    flat = torch.cat([tensor.abs().flatten() for tensor in tensors])
    count = max(1, round(share * len(flat)))
    threshold = flat.sort(descending=True).values[count - 1]
    assert sum(int(mask.sum()) for mask in masks) == count
    for tensor, mask in zip(tensors, masks, strict=True):
        assert torch.equal(mask, tensor.abs() >= threshold)


def test_largest_keeps_ties_and_refuses_nonsense():
    assert [mask.tolist() for mask in largest([torch.tensor([1.0, -1.0, 0.5])], 1 / 3)] == [[True, True, False]]
    assert largest([torch.zeros(2)], 0.5)[0].all()
    for share in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="share to keep must be above 0 and at most 1"):
            largest([torch.zeros(2)], share)


def test_salun_distance_by_hand():
    """MSE(w x + b c_f, w x + b c') = b^2 (c_f - c')^2, and only the first of them is differentiated."""
    denoiser, batch = Linear(), make_batch(forget=3.0, paired=-1.0)
    loss = build_method(find("salun").config()).loss("forget", denoiser, batch)
    assert loss.objective.item() == pytest.approx(2.0**2 * 4.0**2)
    loss.objective.backward()
    assert denoiser.module.b.grad.item() == pytest.approx(2 * 2.0 * 4.0 * 3.0), "with both sides it would be 64"


@pytest.mark.parametrize("name", ["rg", "rgd", "grad_diff", "grad_diff_d"])
def test_redirect_by_hand(name):
    """The same distance to the anchor's prediction, from the first step on or once the ascent is over."""
    for options, done, redirects in (
        ({"forget": "redirect"}, 0.0, True),
        ({"forget": "redirect", "ascend_share": 0.3}, 0.29, False),
        ({"forget": "redirect", "ascend_share": 0.3}, 0.3, True),
        ({"forget": "ascend", "ascend_share": 0.3}, 0.9, False),
        ({}, 0.99, False),
    ):
        denoiser, batch = Linear(), replace(make_batch(forget=3.0, paired=-1.0), done=done)
        method = build_method(find(name).config(forget_limit=None, **options))
        loss = method.loss("forget", denoiser, batch)
        expected = 2.0**2 * 4.0**2 if redirects else -noise_loss(denoiser, batch).item()
        assert loss.objective.item() == pytest.approx(expected), options
        assert (loss.is_distance, loss.denoising) == (redirects, pytest.approx(abs(expected)))
        assert method.loss("retain", denoiser, batch).objective.item() == noise_loss(denoiser, batch).item()


def test_pushed_beyond_the_anchor_by_hand():
    """The original's b* (c_a - eta (c_f - c_a)) against b c_f, where b has moved by a half."""
    denoiser, batch = Linear(), make_batch(forget=3.0, paired=-1.0)
    method = build_method(find("rgd").config(forget="redirect", push=0.5))
    method.prepare(context(denoiser))
    with torch.no_grad():
        denoiser.module.b += 0.5
    loss = method.loss("forget", denoiser, batch)
    assert loss.objective.item() == pytest.approx((2.5 * 3.0 - 2.0 * (-1.0 - 0.5 * 4.0)) ** 2)
    assert method.config.has_teacher and not find("rgd").config(push=0.5).has_teacher


@pytest.mark.parametrize("name", ["rg", "rgd", "grad_diff", "grad_diff_d"])
def test_distil_by_hand(name):
    """MSE(w x + b c_r, w* x + b* c_r), where w and b have moved; the original's side is not differentiated."""
    denoiser, batch = Linear(), make_batch(forget=3.0)
    method = build_method(find(name).config(forget_limit=None, retain="distil"))
    method.prepare(context(denoiser))
    at_first = method.loss("retain", denoiser, batch)
    assert (at_first.objective.item(), at_first.is_distance) == (0.0, True)
    with torch.no_grad():
        denoiser.module.b += 0.5
    loss = method.loss("retain", denoiser, batch)
    assert loss.objective.item() == pytest.approx(0.5**2 * 3.0**2)
    loss.objective.backward()
    assert denoiser.module.b.grad.item() == pytest.approx(2 * 0.5 * 3.0**2)
    assert denoiser.module.b.item() == 2.5, "the trained weights are back in place"
    assert not method.loss("forget", denoiser, batch).is_distance


def test_what_redirects_and_what_has_no_effect():
    config = find("rgd").config
    assert (config().ascends, config().redirects) == (True, False)
    assert {"ascend_share", "push"} <= {*config(ascend_share=0.5, push=1).idle()}
    whole = config(forget="redirect")
    assert (whole.ascends, whole.redirects, {*whole.idle()}) == (False, True, {"forget_limit", "budget"})
    both = config(forget="redirect", ascend_share=0.5)
    assert (both.ascends, both.redirects, {*both.idle()}) == (False, True, {"budget"})
    assert find("salun").config().redirects and not find("esd").config().redirects


def test_salun_retain_term_is_the_denoising_loss():
    denoiser, batch = Linear(), make_batch()
    loss = build_method(find("salun").config()).loss("retain", denoiser, batch)
    assert loss.objective.item() == noise_loss(denoiser, batch).item()


def test_saliency_is_the_summed_gradient_over_all_batches():
    denoiser, batches = Linear(), [make_batch(seed=seed, timestep=seed) for seed in range(3)]
    method = build_method(find("salun").config(mask_guidance_scale=2.0, mask_share=0.5))
    saliency = method._saliency(context(denoiser, batches))
    expected = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        a, s = ALPHAS[batch.timesteps[0]].sqrt(), (1 - ALPHAS[batch.timesteps[0]]).sqrt()
        x = a * batch.samples + s * batch.noise
        error = 0.5 * x + 2.0 * (2.0 * 3.0) - batch.noise  # guided by 2: b (0 + 2 (c - 0))
        expected -= torch.stack([(2 * error * x).mean(), (2 * error * 6.0).mean()])
    torch.testing.assert_close(torch.stack(saliency), expected, rtol=1e-6, atol=1e-6)  # losses are float32
    assert denoiser.module.w.grad is None and denoiser.module.b.grad is None
    method.prepare(context(denoiser, batches))
    kept = {name: bool(part) for name, part in method.mask.items()}
    assert kept == {"w": bool(expected[0].abs() > expected[1].abs()), "b": bool(expected[1].abs() > expected[0].abs())}


def test_salun_masks_the_sum():
    method = build_method(find("salun").config(retain_weight=0.5))
    method.mask = {"w": torch.tensor([True, False]), "b": torch.tensor([False, True])}
    grads = {
        "forget": [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])],
        "retain": [torch.tensor([10.0, 20.0]), torch.tensor([30.0, 40.0])],
    }
    direction = method.combine(grads)
    assert [part.tolist() for part in direction] == [[6.0, 0.0], [0.0, 24.0]]
    assert grads["forget"][0].tolist() == [1.0, 2.0], "the gradients are left as they are"
    assert direction.gram.fr == 1 * 10 + 4 * 40, "angles are those of what the step is made of"


def test_mask_is_kept_loaded_and_refused(tmp_path):
    denoiser = Linear()
    method = build_method(find("salun").config())
    method.prepare(context(denoiser, [make_batch()], tmp_path))
    assert read_mask(tmp_path / "mask.safetensors") == method.mask
    opposite = {name: ~part for name, part in method.mask.items()}
    save_mask(opposite, tmp_path / "other.safetensors")
    named = build_method(find("salun").config(mask=str(tmp_path / "other.safetensors")))
    named.prepare(context(denoiser))
    assert named.mask == opposite
    save_mask(opposite, tmp_path / "mask.safetensors")
    resumed = build_method(find("salun").config())
    resumed.prepare(context(denoiser, folder=tmp_path, resumed=True))
    assert resumed.mask == opposite, "a resumed run keeps the mask that it began with"
    with pytest.raises(UserError, match=r"0 missing, 1 unexpected \(the first 'b'\)"):
        load_mask(tmp_path / "mask.safetensors", {"w": denoiser.module.w})
    with pytest.raises(UserError, match=r"has shape \[\] for 'w', expected \[2\]"):
        load_mask(tmp_path / "mask.safetensors", {"w": nn.Parameter(torch.zeros(2)), "b": denoiser.module.b})
    with pytest.raises(UserError, match=r"can't read the mask .*none\.safetensors"):
        load_mask(tmp_path / "none.safetensors", {})
    save_mask({"w": torch.ones(2)}, tmp_path / "floats.safetensors")
    with pytest.raises(UserError, match=r"expected a mask of booleans .* got torch.float32 for 'w'"):
        read_mask(tmp_path / "floats.safetensors")


def test_mask_shares_by_block():
    half, none = torch.tensor([True, False]), torch.tensor([False] * 3)
    mask = {
        "conv_in.weight": half,
        "down_blocks.0.resnets.0.conv1.weight": half,
        "down_blocks.0.resnets.1.conv1.weight": none,
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight": half,
    }
    assert mask_shares(mask) == {
        "conv_in": (0.5, 2),
        "down_blocks.0": (0.2, 5),
        "down_blocks.0 cross-attention": (0.5, 2),
    }


# esd ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [Epsilon(ALPHAS), VPrediction(ALPHAS), Flow()], ids=lambda o: type(o).__name__)
def test_esd_target_by_hand(objective):
    """Student w' x + b' c, teacher w x - eta b c: the loss at the teacher's own weights is b^2 c^2 (1 + eta)^2."""
    denoiser, eta = Linear(objective), 0.5
    method = build_method(find("esd").config(negative_guidance=eta, start_steps=2))
    method.prepare(context(denoiser))
    loss = method.loss("forget", denoiser, make_batch(forget=3.0))
    assert loss.objective.item() == pytest.approx((2.0 * 3.0 * (1 + eta)) ** 2, rel=1e-6)
    loss.objective.backward()
    assert denoiser.module.b.grad.item() == pytest.approx(2 * 2.0 * 3.0 * (1 + eta) * 3.0, rel=1e-6)
    with torch.no_grad():
        denoiser.module.b.copy_(torch.tensor(-eta * 2.0))  # the student has learnt what the teacher asks for
    loss = method.loss("forget", denoiser, make_batch(forget=3.0))
    assert loss.objective.item() == pytest.approx(0.0, abs=1e-12), "the teacher stays as it was"


def test_teacher_is_there_only_inside():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    teacher = Teacher([weight])
    place = weight.data_ptr()
    with torch.no_grad():
        weight.add_(5.0)
    with teacher:
        assert weight.tolist() == [1.0, 2.0]
    assert weight.tolist() == [6.0, 7.0] and weight.data_ptr() == place
    with pytest.raises(RuntimeError), teacher:
        raise RuntimeError
    assert weight.tolist() == [6.0, 7.0]


@pytest.mark.parametrize("objective", [Epsilon(ALPHAS), VPrediction(ALPHAS), Flow()], ids=lambda o: type(o).__name__)
def test_partial_sampling_by_hand(objective):
    """Two steps 3 -> 2 -> 1 of a drawing of three; the guidance is that of the weights as they are now."""
    denoiser, batch = Linear(objective), make_batch(timestep=1)
    drawn = sample_until(
        denoiser, batch.noise, batch.timesteps, batch.conditioning, rows(1.0), num_inference_steps=3, guidance_scale=4.0
    )
    x = batch.noise
    for now, following in ((3, 2), (2, 1)):
        at, to = torch.full((2,), now), torch.full((2,), following)
        x = objective.denoise(0.5 * x + 2.0 * (1.0 + 4.0 * 2.0), x, at, to)
    torch.testing.assert_close(drawn, x)
    assert not drawn.requires_grad and denoiser.module.training


def test_partial_sampling_of_the_noisiest_step_is_the_noise():
    denoiser, batch = Linear(VPrediction(ALPHAS)), make_batch(timestep=3)
    drawn = sample_until(
        denoiser,
        batch.noise,
        batch.timesteps,
        batch.conditioning,
        rows(0.0),
        num_inference_steps=50,
        guidance_scale=3.0,
    )
    torch.testing.assert_close(drawn, batch.noise)


def test_esd_takes_one_timestep_for_a_batch():
    denoiser, batch = Linear(), make_batch(timestep=2)
    method = build_method(find("esd").config(start_steps=2))
    method.prepare(context(denoiser))
    mixed = Batch(batch.samples, batch.conditioning, batch.noise, torch.tensor([2, 0]))
    values = [method.loss("forget", denoiser, b).objective.item() for b in (batch, mixed)]
    assert values[0] == values[1]


# data x combination -------------------------------------------------------------------------------


def test_named_combinations_of_data_differ_in_nothing_else():
    plain, diverse = (find(name).config() for name in ("grad_diff", "grad_diff_d"))
    assert (plain.data, diverse.data) == ("uniform", "diverse")
    assert find("grad_diff").method is find("grad_diff_d").method
    assert plain.model_dump(exclude={"name", "data"}) == diverse.model_dump(exclude={"name", "data"})
    assert (find("rg").config().data, find("rgd").config().data) == ("uniform", "diverse")
    assert find("rg").method is find("rgd").method


# what a step tells of its loss --------------------------------------------------------------------


def test_figures_of_a_loss_are_averaged_over_processes_and_parts():
    objective = torch.tensor(-1.0, requires_grad=True)
    own = Loss(objective, 2.0, above_limit=1.0, forget_limit=4.0)
    whole = own.averaged(lambda values: [value / 2 for value in values])  # the other process: all zero
    assert (whole.denoising, whole.above_limit, whole.forget_limit, whole.truncated) == (1.0, 0.5, 2.0, False)
    assert whole.objective is objective
    mean = Loss.mean([own, whole])
    assert (mean.denoising, mean.above_limit, mean.forget_limit, mean.truncated) == (1.5, 0.75, 3.0, False)
    assert not mean.objective.requires_grad
    plain = Loss(objective, 3.0).averaged(lambda values: values)
    assert (plain.denoising, plain.above_limit, plain.forget_limit, plain.truncated) == (3.0, None, None, False)


@pytest.mark.parametrize(
    ("losses", "above"), [((1.0, 2.9), 0.0), ((1.0, 3.1), 1.0), ((0.1, 0.1), 0.0), ((9.0, 9.0), 1.0)]
)
def test_a_limit_of_the_batch_is_compared_with_the_mean_of_all_of_it(losses, above):
    """Whatever one part or one process says of its own."""
    parts = [Loss(torch.tensor(-one), one, float(one > 2), 2.0, of_batch=True) for one in losses]
    mean = Loss.mean(parts)
    assert (mean.above_limit, mean.truncated, mean.forget_limit) == (above, above == 1, 2.0)
    shared = parts[0].averaged(lambda values: [sum(losses) / 2 for _ in values])
    assert (shared.above_limit, shared.truncated, shared.forget_limit) == (above, above == 1, 2.0)

"""Noising, targets and truncation, by equation."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from turpentine.pipeline.maths.objectives import (
    Epsilon,
    FlowMatching,
    VPrediction,
    denoising_loss,
    flow_matching_from_scheduler,
    objective_from_scheduler,
    truncate,
)

ALPHAS = torch.tensor([0.81, 0.36, 0.04], dtype=torch.float64)  # sqrt: 0.9, 0.6, 0.2


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def test_add_noise_by_hand():
    # t = 0: 0.9 * 2 + sqrt(0.19) * 1; t = 1: 0.6 * (-1) + 0.8 * 0.5 = -0.2; t = 2: 0.2 * 10 + sqrt(0.96) * 0
    noisy = Epsilon(ALPHAS).add_noise(column(2, -1, 10), column(1, 0.5, 0), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(noisy, column(1.8 + math.sqrt(0.19), -0.2, 2.0), rtol=1e-14, atol=1e-14)


def test_epsilon_target_is_the_noise():
    noise = column(1, 0.5)
    assert torch.equal(Epsilon(ALPHAS).target(column(2, -1), noise, torch.tensor([0, 1])), noise)


def test_velocity_target_by_hand():
    # v = 0.6 * 0.5 - 0.8 * (-1) = 1.1;  v = 0.2 * 1 - sqrt(0.96) * 2
    target = VPrediction(ALPHAS).target(column(-1, 2), column(0.5, 1), torch.tensor([1, 2]))
    torch.testing.assert_close(target, column(1.1, 0.2 - 2 * math.sqrt(0.96)), rtol=1e-14, atol=1e-14)


def test_sample_and_velocity_rotate_into_each_other():
    """(x_t, v) is a rotation of (x_0, eps): x_0 = sqrt(a) x_t - sqrt(1 - a) v."""
    generator = torch.Generator().manual_seed(0)
    samples, noise = (torch.randn(3, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    timesteps, objective = torch.tensor([0, 1, 2]), VPrediction(ALPHAS)
    noisy, velocity = objective.add_noise(samples, noise, timesteps), objective.target(samples, noise, timesteps)
    alpha = ALPHAS.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity, samples)
    torch.testing.assert_close((1 - alpha).sqrt() * noisy + alpha.sqrt() * velocity, noise)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_agrees_with_diffusers(schedule, prediction_type):
    scheduler = DDPMScheduler(beta_schedule=schedule, prediction_type=prediction_type)
    objective = objective_from_scheduler(scheduler.config, scheduler.alphas_cumprod)
    generator = torch.Generator().manual_seed(0)
    samples, noise = (torch.randn(5, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 1, 250, 750, 999])
    expected = scheduler.add_noise(samples, noise, timesteps)
    torch.testing.assert_close(objective.add_noise(samples, noise, timesteps), expected, rtol=1e-5, atol=1e-5)
    target = objective.target(samples, noise, timesteps)
    if prediction_type == "epsilon":
        assert torch.equal(target, noise)
    else:
        torch.testing.assert_close(target, scheduler.get_velocity(samples, noise, timesteps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_the_samples_is_kept(dtype):
    objective, samples = VPrediction(ALPHAS), torch.ones(2, 1, 1, 1, dtype=dtype)
    timesteps = torch.tensor([0, 2])
    assert objective.add_noise(samples, samples, timesteps).dtype == dtype
    assert objective.target(samples, samples, timesteps).dtype == dtype


def test_any_number_of_dimensions():
    for shape in [(2,), (2, 3), (2, 3, 4, 5, 6)]:
        ones = torch.ones(shape, dtype=torch.float64)
        noisy = Epsilon(ALPHAS).add_noise(ones, 0 * ones, torch.tensor([0, 1]))
        assert noisy.shape == shape
        torch.testing.assert_close(noisy[0], 0.9 * ones[0])
        torch.testing.assert_close(noisy[1], 0.6 * ones[1])


def test_timesteps_are_uniform_reproducible_and_leave_the_global_generator_alone():
    objective = Epsilon(torch.linspace(0.99, 0.01, 1000))
    state = torch.get_rng_state()
    drawn = objective.sample_timesteps(20_000, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn, objective.sample_timesteps(20_000, torch.Generator().manual_seed(3)))
    assert drawn.dtype == torch.int64 and drawn.min() == 0 and drawn.max() == 999
    counts = torch.bincount(drawn // 100, minlength=10)
    assert (counts - 2000).abs().max() < 5 * math.sqrt(2000 * 0.9)


def test_weights_are_uniform():
    assert torch.equal(Epsilon(ALPHAS).weight(torch.tensor([0, 2])), torch.ones(2))


def test_denoising_loss_by_hand():
    prediction = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    target = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    # means of squares: (1 + 4) / 2 = 2.5 and 9 / 2 = 4.5
    assert denoising_loss(prediction, target, torch.ones(2)).item() == 3.5
    assert denoising_loss(prediction, target, torch.tensor([1.0, 0.0])).item() == 1.25
    assert denoising_loss(prediction.half(), target.half(), torch.ones(2)).dtype == torch.float32


def gradient(loss, limit):
    loss = torch.tensor(loss, dtype=torch.float64, requires_grad=True)
    truncate(loss, limit).sum().backward()
    return loss.grad


def test_truncation_ends_forgetting_for_a_batch():
    assert gradient(1.7, 1.6).item() == 0.0, "exactly zero above the limit"
    assert gradient(1.5, 1.6).item() == 1.0, "untouched below"
    assert gradient(1e9, None).item() == 1.0, "no limit"
    assert truncate(torch.tensor(1.7), 1.6).item() == pytest.approx(1.6)
    assert truncate(torch.tensor(1.5), 1.6).item() == 1.5


def test_truncation_by_element():
    assert gradient([0.05, 0.2, 0.1000001, 0.09], 0.1).tolist() == [1.0, 0.0, 0.0, 1.0]


def test_truncated_weights_get_an_exactly_zero_gradient():
    weight = torch.tensor([2.0, -3.0], dtype=torch.float64, requires_grad=True)
    loss = denoising_loss(weight.reshape(1, 2), torch.zeros(1, 2), torch.ones(1))  # (4 + 9) / 2 = 6.5
    (-truncate(loss, 6.0)).backward()
    assert torch.equal(weight.grad, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["sample", "flow_prediction", "nonsense"])
def test_unknown_prediction_type(kind):
    with pytest.raises(
        ValueError, match=rf"prediction_type must be one of \['epsilon', 'v_prediction'\], got '{kind}'"
    ):
        objective_from_scheduler({"prediction_type": kind}, ALPHAS)


@pytest.mark.parametrize(
    ("config", "levels", "words"),
    [
        ({"use_flow_sigmas": True}, ALPHAS, "use_flow_sigmas must be off"),
        ({"use_flow_sigmas": True, "prediction_type": "v_prediction"}, ALPHAS, "use_flow_sigmas must be off"),
        ({}, torch.full((3,), torch.nan), "noise levels outside"),
        ({}, torch.tensor([0.9, -0.1]), "noise levels outside"),
        ({}, torch.tensor([1.5, 0.1]), "noise levels outside"),
        ({"num_train_timesteps": 1000}, torch.tensor([0.9, 0.1]), "2 trained_betas for 1000 num_train_timesteps"),
    ],
)
def test_noise_levels_that_no_diffusion_has(config, levels, words):
    with pytest.raises(ValueError, match=words):
        objective_from_scheduler(config, levels)


def test_a_scheduler_that_names_no_prediction_type_predicts_noise():
    assert isinstance(objective_from_scheduler({}, ALPHAS), Epsilon)


# flow matching ------------------------------------------------------------------------------------


def test_flow_by_hand():
    # sigma = 0.25: 0.75 * 2 + 0.25 * 1 = 1.75; sigma = 1: the noise
    objective, timesteps = FlowMatching(), torch.tensor([250.0, 1000.0])
    noisy = objective.add_noise(column(2, -1), column(1, 0.5), timesteps)
    torch.testing.assert_close(noisy, column(1.75, 0.5), rtol=1e-14, atol=1e-14)
    target = objective.target(column(2, -1), column(1, 0.5), timesteps)
    assert torch.equal(target, column(-1, 1.5)), "eps - x_0, whatever the timestep"
    torch.testing.assert_close(noisy - timesteps.double().reshape(-1, 1, 1, 1) / 1000 * target, column(2, -1))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_timesteps_are_those_of_diffusers_training_scripts(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    objective = flow_matching_from_scheduler(scheduler.config, 2)
    u = compute_density_for_timestep_sampling(
        "logit_normal", 500, logit_mean=0.0, logit_std=1.0, generator=torch.Generator().manual_seed(7)
    )
    index = (u * 1000).long()
    drawn = objective.sample_timesteps(500, torch.Generator().manual_seed(7))
    torch.testing.assert_close(drawn, scheduler.timesteps[index], rtol=1e-6, atol=1e-3)
    assert drawn.dtype == torch.float32 and 0 < drawn.min() and drawn.max() <= 1000
    weight = compute_loss_weighting_for_sd3("logit_normal", sigmas=scheduler.sigmas[index])
    assert torch.equal(objective.weight(drawn), weight)

    generator = torch.Generator().manual_seed(0)
    samples, noise = (torch.randn(500, 1, 2, 2, generator=generator) for _ in range(2))
    sigma = scheduler.sigmas[index].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(objective.add_noise(samples, noise, drawn), (1 - sigma) * samples + sigma * noise)


@pytest.mark.parametrize(("kind", "expected"), [("exponential", math.exp(0.825)), ("linear", 0.825)])
def test_dynamic_shift_lies_on_the_line_between_its_anchors(kind, expected):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    objective = flow_matching_from_scheduler(scheduler.config, 2).for_size(64, 136)  # 32 * 68 = (256 + 4096) / 2
    assert objective.shift == pytest.approx(expected)
    sigma = torch.tensor([0.1, 0.5, 0.9])
    shifted = objective.shift * sigma / (1 + (objective.shift - 1) * sigma)
    torch.testing.assert_close(scheduler.time_shift(0.825, 1.0, sigma), shifted)


def test_the_size_matters_only_where_the_shift_depends_on_it():
    diffusion, flow = Epsilon(ALPHAS), FlowMatching(3.0)
    assert diffusion.for_size(8, 8) is diffusion and flow.for_size(8, 8) is flow

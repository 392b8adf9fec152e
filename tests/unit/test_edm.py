"""EDM: preconditioning, weight, truncation and Heun's method against the equations of Karras et al. 2022."""

import math

import pytest
import torch
from diffusers import EDMEulerScheduler
from torch import nn
from turpentine.pipeline.maths.objectives import EDM
from turpentine.pipeline.maths.samplers import heun, karras_sigmas
from turpentine.pipeline.methods.esd import sample_until

SIGMAS = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


def test_coefficients_by_hand():
    """At sigma = sigma_data = 0.5: c_skip 1/2, c_out 1/(2 sqrt 2), c_in sqrt 2, weight 8."""
    objective, sigma = EDM(0.5), torch.tensor([0.5], dtype=torch.float64)
    assert objective.c_skip(sigma).item() == pytest.approx(0.5)
    assert objective.c_out(sigma).item() == pytest.approx(0.5 / math.sqrt(2))
    assert objective.c_in(sigma).item() == pytest.approx(math.sqrt(2))
    assert objective.c_noise(sigma).item() == pytest.approx(math.log(0.5) / 4)
    assert objective.weight(sigma).item() == pytest.approx(8)


@pytest.mark.parametrize("sigma_data", [0.5, 0.75])
def test_input_and_target_of_the_network_have_unit_variance(sigma_data):
    """Equations 114 and 124: what the network sees and what it should say have variance 1 at each sigma."""
    objective = EDM(sigma_data)
    variance = SIGMAS.square() + sigma_data**2  # of y + n
    torch.testing.assert_close(objective.c_in(SIGMAS).square() * variance, torch.ones_like(SIGMAS))
    skip, out = objective.c_skip(SIGMAS), objective.c_out(SIGMAS)
    target = ((1 - skip).square() * sigma_data**2 + skip.square() * SIGMAS.square()) / out.square()
    torch.testing.assert_close(target, torch.ones_like(SIGMAS))


def test_weight_makes_the_raw_networks_loss_uniform():
    """lambda(sigma) c_out(sigma)^2 = 1 (Equation 144)."""
    objective = EDM(0.7)
    torch.testing.assert_close(objective.weight(SIGMAS) * objective.c_out(SIGMAS).square(), torch.ones_like(SIGMAS))


def test_agrees_with_diffusers():
    scheduler, objective = EDMEulerScheduler(sigma_data=0.6), EDM(0.6)
    generator = torch.Generator().manual_seed(0)
    noisy, raw = (torch.randn(len(SIGMAS), 1, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    denoised = objective.precondition(lambda scaled, c_noise: raw, noisy, SIGMAS)
    for index, sigma in enumerate(SIGMAS):
        torch.testing.assert_close(denoised[index], scheduler.precondition_outputs(noisy[index], raw[index], sigma))
        assert objective.c_noise(sigma) == scheduler.precondition_noise(sigma)
    seen = []
    objective.precondition(lambda scaled, c_noise: seen.append(scaled) or raw, noisy, SIGMAS)
    torch.testing.assert_close(seen[0][3], scheduler.precondition_inputs(noisy[3], SIGMAS[3]))
    scheduler.set_timesteps(10)
    torch.testing.assert_close(karras_sigmas(10).float(), scheduler.sigmas)


def test_noise_levels_are_log_normal_and_leave_the_global_generator_alone():
    objective, state = EDM(p_mean=-1.2, p_std=1.2), torch.get_rng_state()
    logs = objective.sample_timesteps(20_000, torch.Generator().manual_seed(0)).log()
    assert torch.equal(torch.get_rng_state(), state)
    assert logs.mean().item() == pytest.approx(-1.2, abs=0.04) and logs.std().item() == pytest.approx(1.2, abs=0.03)


def test_noise_is_added_and_the_clean_image_is_the_target():
    samples, noise = torch.ones(2, 1, 2, 2, dtype=torch.float64), torch.full((2, 1, 2, 2), 2.0, dtype=torch.float64)
    sigmas = torch.tensor([0.5, 3.0])
    assert EDM().add_noise(samples, noise, sigmas)[:, 0, 0, 0].tolist() == [2.0, 7.0]
    assert EDM().target(samples, noise, sigmas) is samples


def test_truncation_is_by_element_and_the_weight_stays_outside():
    """Sigma = sigma_data = 0.5, so the weight is 8: mean of 8 min(e, 0.1) over e = 0.04, 0.25, 0.09, 1."""
    prediction = torch.tensor([[0.2, 0.5, 0.3, 1.0]], requires_grad=True)
    forget = EDM(0.5).truncated_loss(prediction, torch.zeros(1, 4), torch.tensor([0.5]), 0.1)
    assert forget.loss.item() == pytest.approx(8 * (0.04 + 0.1 + 0.09 + 0.1) / 4)
    assert forget.denoising.item() == pytest.approx(8 * (0.04 + 0.25 + 0.09 + 1) / 4)
    assert forget.above_limit == 0.5
    forget.loss.backward()
    torch.testing.assert_close(prediction.grad, torch.tensor([[0.8, 0.0, 1.2, 0.0]]))  # 8 * 2 e / 4, or zero


def test_no_limit_truncates_nothing():
    forget = EDM().truncated_loss(torch.full((1, 4), 9.0), torch.zeros(1, 4), torch.ones(1), None)
    assert forget.loss == forget.denoising and forget.above_limit == 0


def test_heun_against_the_exact_solution():
    """Data N(0, s^2): D = s^2 / (s^2 + sigma^2) x, and the ODE's solution is x sqrt((s^2 + sigma^2) / (s^2 + T^2))."""
    spread, noise = 0.5, torch.tensor([[1.0], [-0.3]], dtype=torch.float64)

    def denoise(samples, sigma):
        return spread**2 / (spread**2 + sigma**2) * samples

    exact = 80.0 * noise * spread / math.sqrt(spread**2 + 80.0**2)
    errors = [
        ((heun(denoise, noise, karras_sigmas(steps)) - exact).abs() / exact.abs()).max().item() for steps in (80, 160)
    ]
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] > 3, "second order: half the step, a quarter of the error"


@pytest.mark.parametrize("sigma", [0.05, 0.5, 10.0, 79.0, 80.0, 200.0])
def test_esd_starts_an_edm_from_the_noise_of_its_largest_sigma(sigma):
    """The same exact solution; with noise of unit size, x_t of the digits had 0.48 of noise at sigma 10."""
    spread = 0.5

    class Gaussian:
        objective, module = EDM(), nn.Identity()

        def predict(self, noisy_samples, timesteps, conditioning):
            return (spread**2 / (spread**2 + timesteps.square())).reshape(-1, 1, 1, 1) * noisy_samples

    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = sample_until(
        Gaussian(), noise, torch.full((2,), sigma, dtype=torch.float64), {}, {}, num_inference_steps=400,
        guidance_scale=1.0,
    )  # fmt: skip
    begun = max(80.0, sigma)
    expected = begun * noise * math.sqrt((spread**2 + sigma**2) / (spread**2 + begun**2))
    torch.testing.assert_close(drawn, expected, rtol=0.02, atol=0)


def test_heun_calls_the_network_twice_a_step_but_once_for_the_last():
    calls = []

    def denoise(samples, sigma):
        calls.append(sigma)
        return torch.zeros_like(samples)

    result = heun(denoise, torch.ones(1), karras_sigmas(4))
    assert len(calls) == 2 * 4 - 1 and min(calls) == pytest.approx(0.002)
    assert result.item() == pytest.approx(0.0, abs=1e-12), "a denoiser that says 0 ends at 0"


def test_karras_sigmas_by_equation_5():
    sigmas = karras_sigmas(5, 0.1, 10.0, rho=2.0)
    roots = torch.linspace(math.sqrt(10.0), math.sqrt(0.1), 5, dtype=torch.float64)
    torch.testing.assert_close(sigmas[:-1], roots.square())
    assert sigmas[-1] == 0

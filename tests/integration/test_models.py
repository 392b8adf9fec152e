"""The Stable Diffusion adapter on real classes of tiny size."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    TCDScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from turpentine.pipeline.maths.objectives import Epsilon, VPrediction
from turpentine.pipeline.models import BUNDLED, Sampling, choose_device, load_denoiser, wrap_pipeline
from turpentine.pipeline.support.errors import Cancelled, UserError
from turpentine.pipeline.support.progress import Silent

from ..support.stopping import StopWhen
from ..support.tiny_models import build_tiny_pipeline

PROMPTS = ["a photo of a cat", "a photo of a dog", "a cat", "a dog in the rain", "pop art"]
SEEDS = [5, 6, 7, 8, 9]


@pytest.fixture(scope="module")
def denoiser():
    return wrap_pipeline(build_tiny_pipeline())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline().save_pretrained(path, safe_serialization=True)
    return path


def draw(denoiser, prompts=PROMPTS, seeds=SEEDS, batch_size=8, scheduler="own", progress=None, **options):
    chosen = {"num_inference_steps": 3, "guidance_scale": 3.0, **options}
    sampling = Sampling(scheduler=scheduler, batch_size=batch_size, **chosen)
    return denoiser.sample(prompts, seeds, sampling, progress or Silent(), "drawing")


# sampling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["own", "dpm-solver++"])
def test_an_image_depends_on_its_prompt_and_seed_alone(denoiser, scheduler):
    whole = draw(denoiser, scheduler=scheduler)
    assert whole.shape == (5, 4, 8, 8) and whole.dtype == torch.float32 and torch.isfinite(whole).all()
    assert torch.equal(whole, draw(denoiser, scheduler=scheduler)), "the same call gives the same bits"
    for batch_size in (1, 2, 3):
        split = draw(denoiser, scheduler=scheduler, batch_size=batch_size)
        torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-4)
    backwards = draw(denoiser, PROMPTS[::-1], SEEDS[::-1], scheduler=scheduler).flip(0)
    torch.testing.assert_close(backwards, whole, rtol=1e-4, atol=1e-4)


def test_seed_prompt_and_guidance_matter(denoiser):
    cat = draw(denoiser, PROMPTS[:1], [5])
    for other in (
        draw(denoiser, PROMPTS[:1], [6]),
        draw(denoiser, PROMPTS[4:], [5]),
        draw(denoiser, PROMPTS[:1], [5], guidance_scale=0.0),
        draw(denoiser, PROMPTS[:1], [5], num_inference_steps=2),
        draw(denoiser, PROMPTS[:1], [5], scheduler="dpm-solver++"),
    ):
        assert not torch.equal(cat, other)


def test_sampling_leaves_the_pipeline_and_the_global_generator_as_they_were(denoiser):
    scheduler, state = denoiser.pipeline.scheduler, torch.get_rng_state()
    denoiser.module.train()
    draw(denoiser, scheduler="dpm-solver++")
    assert denoiser.pipeline.scheduler is scheduler and denoiser.module.training
    assert torch.equal(torch.get_rng_state(), state)
    denoiser.module.eval()
    draw(denoiser)
    assert not denoiser.module.training


def test_cancelling_between_denoising_steps(denoiser):
    def at_once(stage, told):
        calls.extend(told)
        return True

    calls, scheduler = [], denoiser.pipeline.scheduler
    denoiser.module.train()
    with pytest.raises(Cancelled, match="stop"):
        draw(denoiser, scheduler="dpm-solver++", progress=StopWhen(at_once))
    assert calls == [0], "asked after the first denoising step"
    assert denoiser.pipeline.scheduler is scheduler and denoiser.module.training


def test_progress_counts_images(denoiser):
    seen = []

    class Count(Silent):
        @contextmanager
        def stage(self, name, total):
            seen.append((name, total))
            yield lambda units=1, note="": seen.append(units)

    draw(denoiser, batch_size=2, progress=Count())
    assert seen[0] == ("drawing", 5)
    assert [units for units in seen[1:] if units] == [2, 2, 1]


# encoding, predicting, decoding -----------------------------------------------------------------


def test_prompts_are_embedded_row_by_row(denoiser):
    embeds = denoiser.encode_prompts(PROMPTS)["prompt_embeds"]
    assert embeds.shape == (5, 77, 32) and not embeds.requires_grad
    torch.testing.assert_close(
        denoiser.encode_prompts(PROMPTS[2:3])["prompt_embeds"], embeds[2:3], rtol=1e-5, atol=1e-5
    )
    many = denoiser.encode_prompts(PROMPTS * 30)["prompt_embeds"]
    assert many.shape == (150, 77, 32)
    torch.testing.assert_close(many[145:], embeds, rtol=1e-5, atol=1e-5)


def test_prediction_is_differentiable_and_shaped_like_its_input(denoiser):
    noisy, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([0, 999])
    prediction = denoiser.predict(noisy, timesteps, denoiser.encode_prompts(PROMPTS[:2]))
    assert prediction.shape == noisy.shape
    (gradient,) = torch.autograd.grad(prediction.sum(), denoiser.module.conv_in.weight)
    assert gradient.abs().sum() > 0


def test_encoding_and_decoding(denoiser):
    latents = denoiser.encode_images(torch.rand(3, 3, 16, 16))
    assert latents.shape == (3, 4, 8, 8) and latents.dtype == torch.float32
    images = denoiser.decode(latents)
    assert images.shape == (3, 16, 16, 3) and images.dtype == torch.uint8 and images.device.type == "cpu"
    split = torch.cat([denoiser.decode(part) for part in latents.split(1)])
    assert (split.int() - images.int()).abs().max() <= 1, "a rounding apart at most"


def test_latents_have_the_scale_that_trains(denoiser):
    images = torch.rand(2, 3, 16, 16)
    posterior = denoiser.pipeline.vae.encode(2 * images - 1).latent_dist
    expected = posterior.mean * denoiser.pipeline.vae.config.scaling_factor
    torch.testing.assert_close(denoiser.encode_images(images), expected)


def test_decoding_is_what_the_pipeline_does(denoiser):
    pipe = denoiser.pipeline
    generators = [torch.Generator().manual_seed(5)]
    options = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np"}
    expected = pipe([PROMPTS[0]], generator=generators, **options).images
    ours = denoiser.decode(draw(denoiser, PROMPTS[:1], [5]))
    assert abs(ours.numpy().astype(int) - (expected * 255).round().astype(int)).max() <= 1


# release and restore ----------------------------------------------------------------------------


@pytest.mark.parametrize("kept_on_disk", [False, True])
def test_released_components_come_back(folder, kept_on_disk):
    denoiser = load_denoiser(str(folder), "cpu") if kept_on_disk else wrap_pipeline(build_tiny_pipeline())
    assert bool(denoiser.source) == kept_on_disk
    latents = torch.randn(1, 4, 8, 8)
    embeds, images = denoiser.encode_prompts(PROMPTS)["prompt_embeds"], denoiser.decode(latents)
    unet = denoiser.module
    denoiser.release()
    assert denoiser.pipeline.vae is None and denoiser.pipeline.text_encoder is None
    assert denoiser.module is unet, "what trains stays"
    assert denoiser.predict(latents, torch.tensor([3]), {"prompt_embeds": embeds[:1]}).shape == latents.shape
    denoiser.restore()
    assert denoiser.module is unet
    for name in ("vae", "text_encoder"):
        assert denoiser.pipeline.config[name][0] is not None, "it is saved with the pipeline"
    assert torch.equal(denoiser.encode_prompts(PROMPTS)["prompt_embeds"], embeds)
    assert torch.equal(denoiser.decode(latents), images)
    denoiser.restore()
    assert denoiser.pipeline.vae is not None, "restoring twice does no harm"


@pytest.mark.parametrize("kept_on_disk", [False, True])
def test_releasing_twice_loses_nothing(folder, kept_on_disk):
    denoiser = load_denoiser(str(folder), "cpu") if kept_on_disk else wrap_pipeline(build_tiny_pipeline())
    denoiser.release()
    denoiser.release()
    denoiser.restore()
    assert denoiser.pipeline.vae is not None and denoiser.pipeline.text_encoder is not None


@pytest.mark.parametrize("kept_on_disk", [False, True])
def test_saving_restores_first(folder, tmp_path, kept_on_disk):
    denoiser = load_denoiser(str(folder), "cpu") if kept_on_disk else wrap_pipeline(build_tiny_pipeline())
    denoiser.release()
    denoiser.save(tmp_path / "saved", None)
    again = load_denoiser(str(tmp_path / "saved"), "cpu")
    assert torch.equal(draw(again, PROMPTS[:1], [5]), draw(denoiser, PROMPTS[:1], [5]))


# wrapping and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "steps", "can"),
    [
        (LCMScheduler, 50, True),
        (LCMScheduler, 60, False),
        (TCDScheduler, 60, False),
        (PNDMScheduler, 2, False),
        (PNDMScheduler, 20, True),
        (EulerDiscreteScheduler, 1000, True),
    ],
)
def test_a_number_of_steps_that_the_scheduler_can_not_take(kind, steps, can):
    pipeline = build_tiny_pipeline()
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    denoiser = wrap_pipeline(pipeline)
    denoiser.check_sampling(Sampling(num_inference_steps=steps, scheduler="dpm-solver++"))
    with nullcontext() if can else pytest.raises(UserError, match=f"{kind.__name__} can't draw in {steps} steps"):
        denoiser.check_sampling(Sampling(num_inference_steps=steps, scheduler="own"))


@pytest.mark.parametrize(("prediction_type", "objective"), [("epsilon", Epsilon), ("v_prediction", VPrediction)])
def test_objective_comes_from_the_scheduler(prediction_type, objective):
    denoiser = wrap_pipeline(build_tiny_pipeline(prediction_type))
    assert type(denoiser.objective) is objective
    assert torch.equal(denoiser.objective.alphas_cumprod.float(), denoiser.pipeline.scheduler.alphas_cumprod)


def test_the_users_own_pipeline_is_used():
    pipeline = build_tiny_pipeline()
    denoiser = wrap_pipeline(pipeline, "mine")
    assert denoiser.pipeline is pipeline and denoiser.module is pipeline.unet
    assert (denoiser.name, denoiser.family, denoiser.device.type) == ("mine", "stable-diffusion", "cpu")
    assert wrap_pipeline(pipeline).name == "StableDiffusionPipeline"


def test_a_saved_folder_loads(folder):
    denoiser = load_denoiser(str(folder), "cpu")
    assert denoiser.name == denoiser.source == str(folder)
    expected = build_tiny_pipeline().unet.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in denoiser.module.state_dict().items())
    assert next(denoiser.module.parameters()).dtype == torch.float32
    assert torch.equal(draw(denoiser), draw(wrap_pipeline(build_tiny_pipeline())))


def test_a_half_precision_folder_loads_in_float32(tmp_path):
    wrap_pipeline(build_tiny_pipeline()).save(tmp_path / "half", torch.float16)
    denoiser = load_denoiser(str(tmp_path / "half"), "cpu")
    assert {p.dtype for p in denoiser.module.parameters()} == {torch.float32}


def make_ddpm():
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    return DDPMPipeline(unet, DDPMScheduler())


def test_unsupported_pipeline_class(tmp_path):
    message = "expected a diffusers pipeline of one of these classes: StableDiffusionPipeline, .*; got DDPMPipeline"
    with pytest.raises(UserError, match=message):
        wrap_pipeline(make_ddpm())
    make_ddpm().save_pretrained(tmp_path / "ddpm")
    with pytest.raises(UserError, match=message):
        load_denoiser(str(tmp_path / "ddpm"), "cpu")
    with pytest.raises(UserError, match="got str"):
        wrap_pipeline("CompVis/stable-diffusion-v1-4")


def test_inpainting_unet_is_refused():
    pipeline = build_tiny_pipeline()
    config = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")}
    pipeline.unet = UNet2DConditionModel(**{**config, "in_channels": 9})
    with pytest.raises(UserError, match="as many input as output channels, got 9 and 4"):
        wrap_pipeline(pipeline)


@pytest.mark.parametrize("model", ["nobody/no-such-model", "/no/such/folder", "no-such-model", "./none", "a/b/c"])
def test_unknown_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"can't load the model|expected a diffusers folder") as caught:
        load_denoiser(model, "cpu")
    assert "\n" not in str(caught.value)
    assert model in str(caught.value) and all(name in str(caught.value) for name in BUNDLED)


def test_no_model():
    with pytest.raises(UserError, match="expected a path, got ''"):
        load_denoiser("", "cpu")


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin", ".pkl", ".CKPT"])
def test_pickles_are_refused_unopened(ending, tmp_path):
    (tmp_path / f"model{ending}").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match=r"is a pickle, which can run any code when it is opened\. Convert it"):
        load_denoiser(str(tmp_path / f"model{ending}"), "cpu")


def test_folder_of_something_else(tmp_path):
    with pytest.raises(UserError, match=r"expected a diffusers folder with a model_index\.json, found none in"):
        load_denoiser(str(tmp_path), "cpu")


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert isinstance(choose_device("auto"), torch.device)
    for device in ("gpu", "cuda:99", "cpu:x"):
        with pytest.raises(UserError, match=f"device '{device}' can't be used here"):
            choose_device(device)

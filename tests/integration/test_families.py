"""Every family behind the one protocol, on its real classes at tiny width."""

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    FluxImg2ImgPipeline,
    FluxPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig
from turpentine.pipeline.data.samples import Samples, SampleSet
from turpentine.pipeline.maths.objectives import Epsilon, FlowMatching, VPrediction
from turpentine.pipeline.maths.parameters import select_parameters
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.methods.base import Batch, noise_loss
from turpentine.pipeline.models import Sampling, load_denoiser, wrap_pipeline
from turpentine.pipeline.models.flux import pack_latents, position_ids, unpack_latents
from turpentine.pipeline.models.pixels import to_pixels
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.support.errors import Cancelled, UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.training.trainer import Trainer

from ..support.stopping import StopWhen
from ..support.tiny_models import BUILDERS, IMAGE, build_family

FAMILY = {
    "sd1": ("stable-diffusion", Epsilon),
    "sd2-v": ("stable-diffusion", VPrediction),
    "sdxl": ("stable-diffusion-xl", Epsilon),
    "sd3": ("stable-diffusion-3", FlowMatching),
    "sd3-no-t5": ("stable-diffusion-3", FlowMatching),
    "flux-dev": ("flux", FlowMatching),
    "flux-schnell": ("flux", FlowMatching),
}
PROMPTS = ["a photo of a cat", "a dog"]
every_family = pytest.mark.parametrize("name", BUILDERS)


def draw(denoiser, prompts=PROMPTS, seeds=(5, 6), scheduler="own", batch_size=2, **options):
    chosen = {"num_inference_steps": 2, "guidance_scale": 3.0, "image_size": IMAGE, **options}
    sampling = Sampling(scheduler=scheduler, batch_size=batch_size, **chosen)
    return denoiser.sample(prompts, seeds, sampling, Silent(), "drawing")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


# one protocol -------------------------------------------------------------------------------------


@every_family
def test_chosen_by_class(name):
    pipeline = build_family(name)
    denoiser = wrap_pipeline(pipeline)
    assert (denoiser.family, type(denoiser.objective)) == FAMILY[name]
    assert denoiser.pipeline is pipeline and denoiser.warnings == ()
    assert denoiser.module is (pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet)


@every_family
def test_drawing_encoding_predicting_decoding(name):
    denoiser = wrap_pipeline(build_family(name))
    latents = draw(denoiser)
    assert latents.shape == (2, 4, 8, 8) and latents.dtype == torch.float32 and torch.isfinite(latents).all()
    split = draw(denoiser, batch_size=1)
    torch.testing.assert_close(split, latents, rtol=1e-3, atol=1e-4)
    other = draw(denoiser, scheduler="dpm-solver++")
    assert other.shape == latents.shape and torch.isfinite(other).all() and not torch.equal(other, latents)

    conditioning = denoiser.encode_prompts(PROMPTS)
    assert all(len(value) == 2 and not value.requires_grad for value in conditioning.values())
    timesteps = denoiser.objective.sample_timesteps(2, torch.Generator().manual_seed(0))
    prediction = denoiser.predict(latents, timesteps, conditioning)
    assert prediction.shape == latents.shape and prediction.requires_grad
    flipped = {key: value.flip(0) for key, value in conditioning.items()}
    assert not torch.allclose(denoiser.predict(latents, timesteps, flipped), prediction), "the prompt matters"

    images = denoiser.decode(latents)
    assert images.shape == (2, IMAGE, IMAGE, 3) and images.dtype == torch.uint8
    assert denoiser.encode_images(images.permute(0, 3, 1, 2) / 255).shape == latents.shape


@every_family
def test_decoding_is_what_the_pipeline_does(name):
    denoiser = wrap_pipeline(build_family(name))
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": IMAGE, "width": IMAGE, "output_type": "np"}
    expected = denoiser.pipeline([PROMPTS[0]], generator=[torch.Generator().manual_seed(5)], **options).images
    ours = denoiser.decode(draw(denoiser, PROMPTS[:1], (5,)))
    assert abs(ours.numpy().astype(int) - (expected * 255).round().astype(int)).max() <= 1


@every_family
def test_latents_have_the_scale_and_shift_that_train(name):
    denoiser = wrap_pipeline(build_family(name))
    vae, images = denoiser.pipeline.vae, torch.rand(2, 3, IMAGE, IMAGE)
    shift = 0.25 if "3" in name or "flux" in name else 0.0
    expected = (vae.encode(2 * images - 1).latent_dist.mean - shift) * vae.config.scaling_factor
    torch.testing.assert_close(denoiser.encode_images(images), expected)


@pytest.mark.parametrize(("name", "multiple"), [("sd1", 8), ("sdxl", 8), ("sd3", 4), ("flux-dev", 4)])
def test_image_size_must_fit(name, multiple):
    """Every size that is let through is drawn and decoded."""
    denoiser = wrap_pipeline(build_family(name))
    for size in range(multiple, 41, 4):
        if size % multiple:
            with pytest.raises(UserError, match=f"image_size must be a multiple of {multiple} for .*, got {size}"):
                draw(denoiser, image_size=size)
        elif name == "sd3" and size > 32:
            with pytest.raises(UserError, match="image_size must be at most 32"):
                draw(denoiser, image_size=size)
        else:
            latents = draw(denoiser, PROMPTS[:1], (5,), image_size=size, num_inference_steps=1)
            assert denoiser.decode(latents).shape == (1, size, size, 3)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux-dev"])
def test_a_prediction_is_the_one_that_the_pipeline_steps_with(name, monkeypatch):
    """Without guidance, the pipeline's first call of its network is our `predict`."""
    denoiser = wrap_pipeline(build_family(name))
    seen = []

    def record(_module, args, kwargs, output):
        seen.append(output[0])

    def keep(_pipe, _step, timestep, kwargs):
        seen.append(timestep)
        return kwargs

    handle = denoiser.module.register_forward_hook(record, with_kwargs=True)
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    given = pack_latents(start) if name == "flux-dev" else start / getattr(
        denoiser.pipeline.scheduler, "init_noise_sigma", 1.0
    )  # fmt: skip
    denoiser.pipeline(
        PROMPTS[:1], latents=given, num_inference_steps=2, guidance_scale=1.0, height=IMAGE, width=IMAGE,
        output_type="latent", callback_on_step_end=keep,
    )  # fmt: skip
    handle.remove()
    output, timestep = seen[0], seen[1]
    expected = unpack_latents(output, 8, 8) if name == "flux-dev" else output
    ours = denoiser.predict(start, timestep.reshape(1), denoiser.encode_prompts(PROMPTS[:1]))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


# losses -------------------------------------------------------------------------------------------


def by_hand(denoiser, x, eps, t, conditioning):
    """The published objective of each family, with diffusers' own classes and nothing of ours."""
    pipe, embeds = denoiser.pipeline, conditioning["prompt_embeds"]
    if hasattr(pipe, "unet"):
        a = pipe.scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * eps
        added = None
        if denoiser.family == "stable-diffusion-xl":
            ids = torch.tensor([[IMAGE, IMAGE, 0, 0, IMAGE, IMAGE]] * len(x)).float()
            added = {"text_embeds": conditioning["pooled_prompt_embeds"], "time_ids": ids}
        output = pipe.unet(noisy, t, embeds, added_cond_kwargs=added).sample
        velocity = pipe.scheduler.config.prediction_type == "v_prediction"
        target = a.sqrt() * eps - (1 - a).sqrt() * x if velocity else eps
        return (output - target).square().mean()
    sigma = t.reshape(-1, 1, 1, 1) / 1000
    noisy, pooled = (1 - sigma) * x + sigma * eps, conditioning["pooled_prompt_embeds"]
    if denoiser.family == "stable-diffusion-3":
        output = pipe.transformer(noisy, embeds, pooled, t).sample
    else:
        guidance = torch.ones(len(x)) if pipe.transformer.config.guidance_embeds else None
        output = pipe.transformer(
            FluxPipeline._pack_latents(noisy, len(x), 4, 8, 8), embeds, pooled, t / 1000,
            FluxPipeline._prepare_latent_image_ids(len(x), 4, 4, "cpu", torch.float32),
            torch.zeros(embeds.shape[1], 3), guidance,
        ).sample  # fmt: skip
        output = FluxPipeline._unpack_latents(output, IMAGE, IMAGE, 2)
    return (output - (eps - x)).square().mean()


@every_family
def test_training_loss_is_the_formula(name):
    denoiser = wrap_pipeline(build_family(name))
    generator = torch.Generator().manual_seed(3)
    x, eps = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    t = denoiser.objective.sample_timesteps(2, generator)
    conditioning = denoiser.encode_prompts(PROMPTS)
    loss = noise_loss(denoiser, Batch(x, conditioning, eps, t))
    assert torch.isfinite(loss) and loss > 0
    torch.testing.assert_close(loss, by_hand(denoiser, x, eps, t, conditioning), rtol=1e-5, atol=1e-6)


def test_flux_packs_latents_as_diffusers_does():
    latents = torch.randn(2, 4, 8, 6)
    packed = FluxPipeline._pack_latents(latents, 2, 4, 8, 6)
    assert torch.equal(pack_latents(latents), packed)
    assert torch.equal(unpack_latents(packed, 8, 6), latents)
    expected = FluxPipeline._prepare_latent_image_ids(2, 4, 3, "cpu", torch.float32)
    assert torch.equal(position_ids(4, 3, latents), expected)


def test_flux_shifts_by_the_size_of_the_latents():
    """mu grows from base_shift at 256 tokens to max_shift at 4096, and the shift is e^mu."""
    objective = wrap_pipeline(build_family("flux-dev")).objective
    assert objective.shift == pytest.approx(math.exp(1.15)), "at the model's own size, 1024 px"
    assert objective.for_size(32, 32).shift == pytest.approx(math.exp(0.5))
    assert wrap_pipeline(build_family("flux-schnell")).objective.for_size(32, 32).shift == 1.0
    assert wrap_pipeline(build_family("sd3")).objective.for_size(32, 32).shift == 3.0


@pytest.mark.parametrize(("name", "shift"), [("sd3", 3.0), ("flux-schnell", 1.0), ("flux-dev", None)])
def test_dpm_solver_shifts_as_the_model_s_own_scheduler(name, shift, monkeypatch):
    denoiser = wrap_pipeline(build_family(name))
    shift = shift or math.exp(0.5 + (16 - 256) * 0.65 / 3840)  # 4x4 tokens, on the line through the two anchors
    used, sampler = [], denoiser.sampler
    monkeypatch.setattr(denoiser, "sampler", lambda config: used.append(sampler(config)) or used[0])
    draw(denoiser, scheduler="dpm-solver++", num_inference_steps=4)
    first, *middle, last = used[0].sigmas
    assert first == pytest.approx(0.999, abs=2e-3) and last == 0
    expected = torch.tensor([0.74925, 0.4995, 0.24975])  # quarters of 0.999
    torch.testing.assert_close(torch.stack(middle), shift * expected / (1 + (shift - 1) * expected), rtol=1e-3, atol=0)


# training -----------------------------------------------------------------------------------------


def make_samples(denoiser, count=4):
    conditioning = denoiser.encode_prompts(PROMPTS)
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([0, 1] * (count // 2))
    return SampleSet.in_order(
        *(Samples(torch.randn(count, 4, 8, 8, generator=generator), conditioning, rows) for _ in range(2))
    )


def train(name, folder=None, resume=False, progress=None, **spec):
    denoiser = wrap_pipeline(build_family(name))
    section = TrainingSection(**{"steps": 2, "batch_size": 2, "learning_rate": 1e-3, **spec})
    if folder:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    method = build_method(find("rgd").config())
    trainer = Trainer(denoiser, method, make_samples(denoiser), section, 0, folder, progress)
    return denoiser, trainer.train(resume=resume)


@pytest.mark.parametrize("which", ["full", "xattn", "noxattn"])
@pytest.mark.parametrize("name", ["sdxl", "sd3-no-t5", "flux-dev"])
def test_only_selected_weights_move(name, which):
    before = weights(wrap_pipeline(build_family(name)).module)
    denoiser, result = train(name, parameters=which)
    selected = set(select_parameters(denoiser.module, which))
    moved = {key for key, value in denoiser.module.state_dict().items() if not torch.equal(value, before[key])}
    assert moved and moved <= selected
    assert 0 < result.final_loss.retain < 20 and 0 < result.final_loss.forget < 20
    if which == "xattn" and "unet" not in denoiser.component:
        assert {part for key in moved for part in key.split(".") if "add" in part} == {
            "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
        } and all("add" in key for key in moved)  # fmt: skip


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux-dev"])
def test_resumed_run_equals_the_uninterrupted_one(name, tmp_path):
    whole, _ = train(name, tmp_path / "whole")
    with pytest.raises(Cancelled, match="after step 1 of 2"):
        train(name, tmp_path / "cut", progress=StopWhen(lambda stage, told: sum(told) >= 1))
    resumed, _ = train(name, tmp_path / "cut", resume=True)
    assert same(weights(whole.module), weights(resumed.module))


# memory and disk ----------------------------------------------------------------------------------


@every_family
def test_saved_and_loaded_it_draws_the_same_images(name, tmp_path):
    denoiser, _ = train(name)
    latents = draw(denoiser)
    denoiser.save(tmp_path / "model", None)
    again = load_denoiser(str(tmp_path / "model"), "cpu")
    assert type(again.pipeline) is type(denoiser.pipeline)
    assert torch.equal(draw(again), latents)
    assert torch.equal(again.decode(latents), denoiser.decode(latents))

    conditioning = again.encode_prompts(PROMPTS)
    again.release()
    kept = [part for part, value in again.pipeline.components.items() if isinstance(value, torch.nn.Module)]
    assert kept == [again.component]
    again.predict(latents, again.objective.sample_timesteps(2, torch.Generator()), conditioning)
    again.restore()
    assert same(again.encode_prompts(PROMPTS), conditioning)
    assert torch.equal(draw(again), latents)


def test_a_half_precision_folder_trains_in_float32(tmp_path):
    build_family("sd3-no-t5").to(torch.float16).save_pretrained(tmp_path / "half")
    denoiser = load_denoiser(str(tmp_path / "half"), "cpu")
    parts = [part for part in denoiser.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {value.dtype for part in parts for value in part.parameters()} == {torch.float32}
    assert draw(denoiser).dtype == torch.float32


# what comes in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd1", StableDiffusionImg2ImgPipeline), ("sd1", StableDiffusionInpaintPipeline),
        ("sdxl", StableDiffusionXLInpaintPipeline), ("sd3", StableDiffusion3Img2ImgPipeline),
        ("flux-dev", FluxImg2ImgPipeline),
    ],
)  # fmt: skip
def test_siblings_share_their_networks(name, kind):
    base = build_family(name)
    config = {"requires_safety_checker": False} if name == "sd1" else {}
    sibling = kind(**base.components, **config)
    denoiser = wrap_pipeline(sibling)
    assert type(denoiser.pipeline) is type(base)
    assert denoiser.module is (sibling.transformer if hasattr(sibling, "transformer") else sibling.unet)
    assert torch.equal(draw(denoiser), draw(wrap_pipeline(base)))


def test_sibling_with_more_inputs_is_refused():
    base = build_family("sdxl")
    config = {key: value for key, value in base.unet.config.items() if not key.startswith("_")}
    base.unet = UNet2DConditionModel(**{**config, "in_channels": 9})
    sibling = StableDiffusionXLInpaintPipeline(**base.components)
    with pytest.raises(UserError, match=r"text-to-image UNet2DConditionModel with as many .* got 9 and 4"):
        wrap_pipeline(sibling)


def test_other_pipelines_are_refused_with_the_list():
    controlled = StableDiffusionControlNetPipeline.__new__(StableDiffusionControlNetPipeline)
    names = "StableDiffusionXLPipeline, StableDiffusion3Pipeline, FluxPipeline, ClassConditionalPipeline"
    with pytest.raises(UserError, match=f"{names}; got StableDiffusionControlNetPipeline"):
        wrap_pipeline(controlled)


def test_schedulers_without_an_objective_are_refused():
    pipeline = build_family("sdxl")
    pipeline.scheduler = EDMEulerScheduler()
    with pytest.raises(UserError, match=r"can't train .*expected a scheduler of DDPM's kind.*got EDMEulerScheduler"):
        wrap_pipeline(pipeline)
    flow = build_family("sd3-no-t5")
    flow.scheduler = build_family("sd1").scheduler
    with pytest.raises(UserError, match="expected a FlowMatchEulerDiscreteScheduler, got DDIMScheduler"):
        wrap_pipeline(flow)


def add_lora(part, targets, name="style"):
    part.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False), name)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux-dev"])
def test_lora_adapters_are_fused_and_told(name):
    torch.manual_seed(1)
    pipeline = build_family(name)
    module = pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet
    plain = weights(module)
    add_lora(module, ["to_q", "to_v"])
    if name != "flux-dev":
        add_lora(pipeline.text_encoder, ["q_proj"])
    expected = pipeline([PROMPTS[0]], num_inference_steps=2, height=IMAGE, width=IMAGE, guidance_scale=3.0,
                        generator=[torch.Generator().manual_seed(5)], output_type="np").images  # fmt: skip
    denoiser = wrap_pipeline(pipeline, source="/somewhere")
    assert denoiser.warnings and "style" in denoiser.warnings[0] and "fused" in denoiser.warnings[0]
    assert denoiser.source is None, "what is on disk lacks the adapter"
    fused = weights(denoiser.module)
    assert fused.keys() == plain.keys() and not same(fused, plain)
    drawn = denoiser.decode(draw(denoiser, PROMPTS[:1], (5,))).numpy()
    assert abs(drawn.astype(int) - (expected * 255).round().astype(int)).max() <= 1


# what is read of a prompt -------------------------------------------------------------------------

LONG = {"sd1": 75, "sdxl": 75, "sd3-no-t5": 75, "sd3": 255, "flux-dev": 511}


@pytest.mark.parametrize(("name", "tokens"), LONG.items())
def test_a_prompt_is_read_up_to_the_limit_of_the_encoder_that_reads_most(name, tokens, caplog):
    """One word more at the end of what is read changes the embeddings, one word behind it changes nothing."""
    denoiser = wrap_pipeline(build_family(name))
    short, long = "A Cat, (dog)", "q " * 600 + "cat"
    assert denoiser.read_prompts([short, "", long])[:2] == [short, ""]
    (read,) = denoiser.read_prompts([long])
    assert not caplog.text, "no library complains"
    letters = 2 if tokens > 75 else 1  # T5's test tokenizer has the space as a token of its own
    assert len(read.split()) == pytest.approx(tokens / letters, abs=1) and long.startswith(read)
    whole, part, less = (denoiser.encode_prompts([text]) for text in (long, read, read[: len(read) // 2]))
    assert same(whole, part) and not same(whole, less)


def test_a_word_of_a_textual_inversion_counts_as_all_its_tokens():
    denoiser = wrap_pipeline(build_family("sd1"))
    denoiser.pipeline.load_textual_inversion(torch.randn(4, 32), token="<toy>")
    (read,) = denoiser.read_prompts(["<toy> " * 30])
    assert len(read.split()) == 75 and read.endswith("<toy>_2")


# what is no number --------------------------------------------------------------------------------


def break_scheduler(pipeline):
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )


def break_text(pipeline):
    class Broken(type(pipeline)):
        def encode_prompt(self, *args, **kwargs):
            return tuple(
                None if part is None else part * float("nan") for part in super().encode_prompt(*args, **kwargs)
            )

    pipeline.__class__ = Broken


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (break_scheduler, r"DDIMScheduler has rescale_betas_zero_snr, .*\(epsilon\)"),
        (break_text, "Either DDIMScheduler divides"),
    ],
)
def test_latents_that_are_no_numbers_stop_the_first_batch(change, cause):
    pipeline, told = build_family("sd1"), []
    change(pipeline)
    stop = StopWhen(lambda stage, units: bool(told.append(units[-1])))
    with pytest.raises(
        UserError, match=rf"from the unet, got NaN \(not a number\) .* 1 of 1 images\. {cause}"
    ) as caught:
        wrap_pipeline(pipeline).sample(PROMPTS * 2, (1, 2, 3, 4), Sampling(2, batch_size=1), stop, "drawing")
    assert 1 not in told and "\n" not in str(caught.value), "not one image was counted"


def test_an_autoencoder_that_overflows_stops_the_first_batch():
    denoiser, told = wrap_pipeline(build_family("sd1")), []
    denoiser.pipeline.vae.decoder.conv_out.weight.data.fill_(3e38)
    stop = StopWhen(lambda stage, units: bool(told.append(units[-1])))
    with pytest.raises(UserError, match=r"from the autoencoder \(vae\), got NaN"):
        denoiser.sample(PROMPTS * 2, (1, 2, 3, 4), Sampling(2, batch_size=1), stop, "drawing")
    assert 1 not in told, "not one image was counted"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_pictures_that_are_no_numbers_are_refused(bad):
    denoiser = wrap_pipeline(build_family("sd1"))
    latents = torch.zeros(3, 4, 8, 8)
    latents[1, 0, 0, 0] = bad
    with pytest.raises(UserError, match=r"from the autoencoder \(vae\), got NaN .* in 1 of 3 images"):
        denoiser.decode(latents)
    classes = torch.zeros(2, 1, 4, 4)
    classes[0, 0, 0, 0] = bad
    with pytest.raises(UserError, match="1 of 2 images"):
        to_pixels(classes)

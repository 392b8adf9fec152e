"""Class-conditional models: the adapter, the bundled digits, and a whole run on them."""

import json

import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler, UNet2DModel
from turpentine.pipeline.audits import ClassAudit, ClassJudge
from turpentine.pipeline.data.datasets import load_images
from turpentine.pipeline.data.samples import Samples, SampleSet
from turpentine.pipeline.methods import build_method, find, names
from turpentine.pipeline.methods.base import Batch
from turpentine.pipeline.methods.esd import sample_until
from turpentine.pipeline.models import Sampling, class_names, load_denoiser, wrap_pipeline
from turpentine.pipeline.models.class_conditional import ClassConditionalPipeline
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.training.trainer import Trainer

pytest.importorskip("sklearn")
pytest.importorskip("torchmetrics")


def build(null=True):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=8, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        num_class_embeds=3 + null,
    )  # fmt: skip
    return ClassConditionalPipeline(unet, EDMEulerScheduler(sigma_data=0.7), {"0": "a", "1": "b", "2": "c"}, -0.8)


def draw(denoiser, names, seeds, **options):
    sampling = Sampling(**{"num_inference_steps": 3, "guidance_scale": 1.0, **options})
    return denoiser.sample(names, seeds, sampling, Silent(), "")


def make_samples(denoiser, retain=9):
    generator = torch.Generator().manual_seed(0)
    conditioning = denoiser.encode_prompts(["a", "b", "c"])

    def part(count, rows):
        return Samples(torch.randn(count, 1, 8, 8, generator=generator), conditioning, torch.tensor(rows))

    return SampleSet.in_order(part(6, [0] * 6), part(retain, [1, 2, 1] * (retain // 3)))


@pytest.mark.parametrize("scheduler", [None, EDMDPMSolverMultistepScheduler(sigma_data=0.7)], ids=["own", "multistep"])
def test_the_pipeline_calls_back_as_those_of_diffusers_do(scheduler):
    pipe, seen = build(), []

    def after_step(given, step, sigma, kwargs):
        seen.append((given is pipe, step, float(sigma), set(kwargs)))
        return {"latents": torch.zeros_like(kwargs["latents"])} if step == 2 else {}

    images = pipe(["a", "b"], 3, output_type="latent", callback_on_step_end=after_step, scheduler=scheduler).images
    assert [(given, step, names) for given, step, _, names in seen] == [(True, step, {"latents"}) for step in range(3)]
    assert seen[0][2] > seen[1][2] > seen[2][2] > 0
    assert not images.any(), "what the last call returned takes the samples' place"


def test_a_saved_model_loads_as_it_was(tmp_path):
    denoiser = wrap_pipeline(build())
    denoiser.save(tmp_path / "model", None)
    loaded = load_denoiser(str(tmp_path / "model"), "cpu")
    assert loaded.family == "class-conditional" and loaded.pipeline.class_names == ["a", "b", "c"]
    assert class_names(str(tmp_path / "model")) == ["a", "b", "c"]
    assert (loaded.objective.sigma_data, loaded.objective.p_mean) == (0.7, -0.8)
    assert torch.equal(draw(denoiser, ["a", "c"], [1, 2]), draw(loaded, ["a", "c"], [1, 2]))
    assert not list((tmp_path / "model").rglob("*.bin"))


def test_an_image_depends_on_its_seed_and_class_alone():
    denoiser = wrap_pipeline(build())
    together = draw(denoiser, ["a", "b", "b"], [1, 2, 1])
    torch.testing.assert_close(together[1:2], draw(denoiser, ["b"], [2]), atol=1e-3, rtol=0)
    assert not torch.allclose(together[1], together[2]) and not torch.allclose(together[0], together[2])
    assert together.abs().max() <= 1


def test_the_multistep_solver_ends_near_heun():
    denoiser = load_denoiser("digits", "cpu")
    heun, solver = (
        draw(denoiser, ["0", "7"], [1, 2], num_inference_steps=steps, scheduler=scheduler)
        for steps, scheduler in ((40, "own"), (60, "dpm-solver++"))
    )
    assert (heun - solver).square().mean().sqrt() < 0.1


def test_guidance_needs_no_class():
    guided = draw(wrap_pipeline(build()), ["a"], [1], guidance_scale=3.0)
    assert not torch.allclose(guided, draw(wrap_pipeline(build()), ["a"], [1]))
    with pytest.raises(UserError, match="guidance_scale must be 1, got 3"):
        draw(wrap_pipeline(build(null=False)), ["a"], [1], guidance_scale=3.0)


def test_prompts_are_names_of_classes():
    denoiser = wrap_pipeline(build())
    assert denoiser.encode_prompts(["b", "a", ""])["class_labels"].tolist() == [1, 0, 3]
    with pytest.raises(UserError, match=r"one of \['a', 'b', 'c'\]; got 'cat'"):
        denoiser.encode_prompts(["cat"])
    with pytest.raises(UserError, match='knows no "no class"'):
        wrap_pipeline(build(null=False)).encode_prompts([""])


def test_pixels_there_and_back():
    denoiser = wrap_pipeline(build())
    pixels = torch.randint(0, 256, (2, 8, 8, 1), dtype=torch.uint8).expand(-1, -1, -1, 3)
    latents = denoiser.encode_images(pixels.permute(0, 3, 1, 2) / 255)
    assert latents.shape == (2, 1, 8, 8) and torch.equal(denoiser.decode(latents), pixels)


@pytest.mark.parametrize(
    "method", [name for name in names() if name in ("finetune", "salun", "grad_diff", "rg", "rgd")]
)
def test_methods_train_on_unpaired_data_and_repeat(method):
    def train():
        denoiser = wrap_pipeline(build())
        spec = TrainingSection(steps=3, batch_size=4, learning_rate=1e-3, retain_batch="all")
        Trainer(denoiser, build_method(find(method).config()), make_samples(denoiser), spec).train()
        return denoiser.module.state_dict()

    first, again = train(), train()
    assert all(torch.equal(first[name], again[name]) and first[name].isfinite().all() for name in first)
    assert not all(torch.equal(first[name], value) for name, value in build().unet.state_dict().items())


def test_the_whole_retain_set_is_in_each_step():
    denoiser = wrap_pipeline(build())
    samples = make_samples(denoiser, retain=12)
    spec = TrainingSection(steps=1, batch_size=4, gradient_accumulation_steps=2, retain_batch="all")
    trainer = Trainer(denoiser, build_method(find("rgd").config()), samples, spec)
    parts = [trainer.feed.batch("retain", 0, part).samples for part in range(2)]
    assert sorted(map(bytes, torch.cat(parts).numpy())) == sorted(map(bytes, samples.retain.latents.numpy()))
    assert len(trainer.feed.batch("forget", 0, 0).samples) == 2
    with pytest.raises(UserError, match="must divide its 9 samples, got 2"):
        Trainer(denoiser, trainer.method, make_samples(denoiser), spec)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 10.0])
def test_esd_trains_on_images_with_as_much_noise_as_their_sigma_says(sigma):
    denoiser = load_denoiser("digits", "cpu")
    noise = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, no_class = (denoiser.encode_prompts(names) for names in (["3"] * 8, [""]))
    sigmas = torch.full((8,), sigma)
    noisy = sample_until(denoiser, noise, sigmas, labels, no_class, num_inference_steps=50, guidance_scale=3.0)
    left = noisy - denoiser.predict(noisy, sigmas, labels).detach()
    assert left.std().item() == pytest.approx(sigma, rel=0.2)


def test_the_limit_cuts_elements_not_the_batch():
    """Above the limit an element has no gradient; a step still pushes the others."""
    denoiser = wrap_pipeline(build())
    method = build_method(find("rgd").config(forget_limit=0.5))
    samples, conditioning = make_samples(denoiser).forget.take(torch.arange(4), torch.device("cpu"))
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(1))
    batch = Batch(samples, conditioning, noise, torch.tensor([0.1, 0.5, 2.0, 9.0]))
    loss = method.loss("forget", denoiser, batch)
    assert not loss.truncated and loss.objective.item() > -loss.denoising
    loss.objective.backward()
    assert sum(p.grad.abs().sum() for p in denoiser.module.parameters() if p.grad is not None) > 0


# the bundled model and its judge ----------------------------------------------------------------


def test_the_bundled_model_draws_digits_that_its_judge_reads():
    denoiser, judge = load_denoiser("digits", "cpu"), ClassJudge.load("digits")
    names = denoiser.pipeline.class_names * 4
    guesses = judge.classify(draw(denoiser, names, list(range(40)), num_inference_steps=12, batch_size=40))
    assert sum(guess == name for guess, name in zip(guesses, names, strict=True)) >= 36


def test_the_judge_calls_noise_noise_and_audits_by_hand():
    judge, test = ClassJudge.load("digits"), load_images("digits", "test")
    noise = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert judge.classify(noise).count("random noise") >= 18
    real = [test.names[label] for label in test.labels.tolist()]
    others = test.labels != 3
    audit = ClassAudit(judge, (test.images, real))
    asked = ["3"] * 20 + [name for name in real if name != "3"]
    result = audit("3", torch.cat([noise, test.images[others]]), asked)
    assert result.UA >= 0.9 and result.RA > 0.97
    assert result.FID == pytest.approx(0, abs=1e-2) and result.CMMD == pytest.approx(0, abs=1e-6)
    assert result.noise >= 0.9 and "3" not in result.by_class and result.real_images == int(others.sum())


def test_a_judge_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"can't load the judge .* expected one of \['digits'\] or a folder"):
        ClassJudge.load(str(tmp_path))


def test_a_whole_run(tmp_path):
    recipe = build_recipe({
        "model": "digits", "concept": "3", "device": "cpu", "training": {"steps": 2}, "audits": {"images": 4},
        "samples": {"num_inference_steps": 6}, "data": {"retain_per_class": 4}, "prompts": {"n": 9, "n_test": 9},
    })  # fmt: skip
    assert recipe.kind == "class" and recipe.training.retain_batch == "all"
    done = run_recipe(recipe, tmp_path / "run")
    before, after = done.results.audits.before.classes, done.results.audits.after.classes
    assert before.images == 40 and before.RA > 0.8 and after.FID > 0
    assert isinstance(done.pipeline, ClassConditionalPipeline)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "RA (retain accuracy)" in page and "FID" in page
    unlearned = load_denoiser(str(tmp_path / "run" / "weights" / "diffusers"), "cpu")
    assert torch.equal(unlearned.module.conv_in.weight, done.pipeline.unet.conv_in.weight)
    assert json.loads((tmp_path / "run" / "prompts.json").read_text())["world"] == "classes"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"model": "tiny-canvas", "kind": "class", "data": {"dataset": "digits"}}, "needs a class-conditional model"),
        ({"model": "digits", "concept": "cat"}, r"one of \['0', .*'9'\]; got 'cat'"),
    ],
)
def test_refused_in_words(chosen, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_recipe(build_recipe({"concept": "3", "device": "cpu", **chosen}), tmp_path / "run")


def test_a_dataset_belongs_to_classes():
    with pytest.raises(UserError, match=r"data\.dataset belongs to kind 'class'"):
        build_recipe({"concept": "cat", "data": {"dataset": "digits"}})

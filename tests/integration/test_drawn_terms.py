"""What a method looks at is drawn, and nothing else: the runs end with the same weights, and say what they did."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from PIL import Image
from turpentine.pipeline.data.samples import Samples, SampleSet
from turpentine.pipeline.methods import build_method, find, names
from turpentine.pipeline.models import load_denoiser, wrap_pipeline
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.run.cost import estimate
from turpentine.pipeline.run.space import room_needed
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.idle import idle_options
from turpentine.pipeline.schema.recipe import SampleSection, TrainingSection
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import Cancelled
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.training.trainer import Trainer
from turpentine.ui.pictures import training_images

from ..support.stopping import StopWhen
from ..support.tiny_models import BUILDERS, build_family
from ..support.training import same, weights

SPEC = SampleSection(num_inference_steps=2, image_size=16, guidance_scale=2.0)
LOOKS = {"esd": (), "esd-x": (), "esd-u": (), "finetune": ("retain",), "uce": (), "rece": (), "speed": ()}
"""Methods that don't look at all images."""
SHORT = {
    "prompts": {"n": 4, "n_test": 2}, "samples": {"image_size": 16, "num_inference_steps": 2},
    "training": {"steps": 4, "batch_size": 2, "checkpoint_every": 2}, "output": {"formats": ["denoiser"]},
    "audits": {"images": 2, "retain_train_images": 2, "alignment": False},
}  # fmt: skip


class Told(Silent):
    """Keeps the stages of a run."""

    def __init__(self):
        self.stages = {}

    @contextmanager
    def stage(self, name, total):
        self.stages[name] = total
        yield lambda units=1, note="": None


@pytest.fixture(scope="module")
def prompts():
    return PromptSet.build("cat", "object", n=4, n_test=2)


@pytest.mark.parametrize("name", [*BUILDERS, "digits"])
@pytest.mark.parametrize("image_size", [None, 16, 32])
def test_the_shape_of_latents_is_known_without_drawing(name, image_size):
    if name == "digits":
        denoiser, image_size = load_denoiser("digits", "cpu"), None
        texts = ["3"]
    else:
        pipe = build_family(name)
        if image_size is None and "flux" in name:
            pipe.default_sample_size = 8
        denoiser, texts = wrap_pipeline(pipe), ["a cat"]
        if name.startswith("sd3") and image_size == 32:
            image_size = 16  # as large as it can draw
    sampling = replace(SPEC.sampling(), image_size=image_size, guidance_scale=1.0)
    drawn = denoiser.sample(texts, [0], sampling, Silent(), "")
    assert drawn.shape[1:] == denoiser.latent_shape(image_size)


@pytest.mark.parametrize("name", names())
def test_every_method_says_what_it_looks_at(name):
    assert find(name).config.sees == LOOKS.get(name, ("forget", "retain"))


@pytest.mark.parametrize("method", ["esd", "finetune"])
def test_the_weights_are_those_with_all_images(method, prompts, tmp_path):
    trained = []
    for terms in (("forget", "retain"), find(method).config.sees):
        denoiser = wrap_pipeline(build_family("sd1"))
        samples = SampleSet.draw(denoiser, prompts, SPEC, terms=terms)
        assert [samples.forget.drawn, samples.retain.drawn] == [term in terms for term in ("forget", "retain")]
        samples.save(tmp_path / "samples.safetensors")
        again = SampleSet.load(tmp_path / "samples.safetensors")
        assert len(again.forget) == len(again.retain) == 4
        config = find(method).config(**({"start_steps": 2} if method == "esd" else {}))
        spec = TrainingSection(steps=3, batch_size=2, learning_rate=1e-3, proportion_empty_prompts=0.5)
        Trainer(denoiser, build_method(config), again, spec).train()
        trained.append(weights(denoiser.module))
    assert same(*trained) and not same(trained[0], weights(build_family("sd1").unet))


@pytest.mark.parametrize("method", ["esd", "finetune", "rgd"])
def test_a_run_draws_what_its_method_looks_at_and_goes_on_with_it(method, tmp_path):
    chosen = {"name": method, **({"start_steps": 2} if method == "esd" else {})}
    recipe = build_recipe({"concept": "cat", "model": "mine", "method": chosen, **SHORT})

    def run(place, progress, resume=False):
        denoiser = wrap_pipeline(build_family("sd1"))
        run_recipe(recipe, tmp_path / place, denoiser=denoiser, progress=progress, resume=resume)
        return denoiser.module

    told = Told()
    whole = run("whole", told)
    sees = find(method).config.sees
    assert {name for name in told.stages if name.endswith("images") and name.startswith("drawing ")} == {
        *(f"drawing {term} images" for term in sees)
    }
    shown = [path.name for path in sorted((tmp_path / "whole" / "images").glob("training/*.png"))]
    assert shown == [f"{term}-{index:03d}.png" for term in sees for index in range(4)]
    pairs = [
        pair for each in training_images(tmp_path / "whole", build_recipe({"concept": "cat"})) for pair in each.pairs
    ]
    assert [(bool(pair.before), bool(pair.after)) for pair in pairs] == (
        [("forget" in sees, "retain" in sees)] * 4 if sees else []
    )
    with pytest.raises(Cancelled):
        run("cut", StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 2))
    assert same(weights(whole), weights(run("cut", Told(), resume=True)))


def test_forget_images_are_not_encoded_for_a_method_that_looks_at_none(tmp_path):
    (tmp_path / "pictures").mkdir()
    for index in range(2):
        Image.new("RGB", (16, 16), (index * 90, 0, 0)).save(tmp_path / "pictures" / f"{index}.png")
    told, pictures = Told(), {"data": {"forget_images": str(tmp_path / "pictures")}}
    recipe = build_recipe({"concept": "cat", "model": "mine", "method": {"name": "finetune"}, **SHORT, **pictures})
    run_recipe(recipe, tmp_path / "run", denoiser=wrap_pipeline(build_family("sd1")), progress=told)
    assert "drawing retain images" in told.stages
    assert not {"encoding the pictures to forget", "drawing forget images"} & {*told.stages}


def test_estimates_count_the_images_that_are_drawn(prompts):
    denoiser = wrap_pipeline(build_family("sd1"))
    found = {}
    for method in ("esd", "finetune", "rgd"):
        recipe = build_recipe(
            {"concept": "cat", "model": "mine", "method": {"name": method}, "samples": {"image_size": 16}}
        )
        found[method] = estimate(denoiser, recipe, prompts).drawing, room_needed(denoiser, recipe, prompts, {})
    assert found["esd"][0] == 0 < found["finetune"][0]
    bytes_of_a_term = 4 * 4 * 8 * 8 * 4
    assert found["rgd"][1] - found["finetune"][1] == found["finetune"][1] - found["esd"][1] == bytes_of_a_term


def test_options_of_training_images_are_told_where_there_are_none():
    chosen = {"concept": "cat", "method": {"name": "esd"}, "samples": {"training_guidance_scale": 4.0}}
    (line,) = idle_options(resolve(build_recipe(chosen)))
    assert "samples.training_guidance_scale" in line and "looks at no training images" in line


def test_samples_without_images_have_zeros_for_them():
    samples = Samples(torch.zeros(0, 4, 8, 8), {"c": torch.arange(3.0)[:, None]}, torch.tensor([2, 0]))
    latents, conditioning = samples.take(torch.tensor([1, 0, 1]), torch.device("cpu"))
    assert (len(samples), latents.shape, latents.any().item()) == (2, (3, 4, 8, 8), False)
    assert conditioning["c"].flatten().tolist() == [0, 2, 0]

"""What a program that follows a run is told: pictures while it trains, a progress file, an estimate before."""

import json

import pytest
import torch
import turpentine
from turpentine.pipeline.commands.terminal import TerminalProgress
from turpentine.pipeline.models import load_denoiser, wrap_pipeline
from turpentine.pipeline.run.cost import estimate
from turpentine.pipeline.run.folder import PREVIEWS
from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.run.samples import samples_of
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.presets import preset_for
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import Cancelled
from turpentine.pipeline.support.progress import Silent

from ..support.stopping import StopWhen
from ..support.tiny_models import build_tiny_pipeline


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(8)))
    return {"file": str(file)}


def test_pictures_while_training_change_nothing(pairs, tmp_path):
    unlearned = {
        every: turpentine.unlearn(
            build_tiny_pipeline(), "cat", out=tmp_path / str(every), steps=4, batch_size=2, num_inference_steps=2,
            prompts=pairs, preview_every=every, audits={"images": 2, "retain_train_images": 1, "alignment": False},
        )
        for every in (0, 2)
    }  # fmt: skip
    quiet, drawn = (unlearned[every].pipeline.unet.state_dict() for every in (0, 2))
    assert all(torch.equal(quiet[name], drawn[name]) for name in quiet)
    folders = sorted(path.name for path in (tmp_path / "2" / "images").iterdir() if path.is_dir())
    assert folders == ["after", "before", "step-000002", "step-000004", "training"]
    shown = sorted(path.name for path in (tmp_path / "2" / "images" / "training").iterdir())
    rows = range(PREVIEWS)
    assert shown == [f"{term}-{row:03d}.png" for term in ("forget", "retain") for row in rows]
    last, after = (tmp_path / "2" / "images" / name / "forget_test-000.png" for name in ("step-000004", "after"))
    assert last.read_bytes() == after.read_bytes(), "same prompt, same seed, same weights"
    assert not list((tmp_path / "0" / "images").glob("step-*"))


def test_a_picture_being_drawn_stops_with_the_training(pairs, tmp_path):
    def drawing(stage, told):
        """The second sign of life after a training step comes from the picture."""
        return stage == "unlearning" and told[-2:] == [1, 0]

    with pytest.raises(Cancelled, match="after step 2 of 4"):
        turpentine.unlearn(
            build_tiny_pipeline(), "cat", out=tmp_path / "run", steps=4, batch_size=2, num_inference_steps=2,
            prompts=pairs, preview_every=2, audits={"images": 2, "retain_train_images": 1, "alignment": False},
            progress=StopWhen(drawing),
        )  # fmt: skip
    assert not (tmp_path / "run" / "images" / "step-000002").exists()


def test_the_progress_file_tells_stage_and_place(tmp_path):
    file = tmp_path / "progress.json"
    progress = TerminalProgress(quiet=True, file=file)
    with progress() as shown, shown.stage("drawing", 4) as advance:
        assert json.loads(file.read_text()) == {"stage": "drawing", "done": 0, "total": 4, "seconds_left": None}
        advance(1)
        progress.stopping = True
        with pytest.raises(Cancelled):
            advance(1)


def test_an_estimate_grows_with_the_work(pairs):
    denoiser = wrap_pipeline(build_tiny_pipeline())
    chosen = {"concept": "cat", "model": denoiser.name, "prompts": pairs, "samples": {"num_inference_steps": 2}}
    small, large = (build_recipe({**chosen, "training": {"steps": steps}}) for steps in (10, 1000))
    first, second = (estimate(denoiser, recipe, prompts_of(resolve(recipe))) for recipe in (small, large))
    assert 0 < first.training < second.training and first.seconds > first.training
    weights = sum(p.numel() * 4 for p in denoiser.module.parameters())
    assert first.memory > 5 * weights and first.available > 0


def test_an_estimate_knows_what_a_plan_knows(pairs):
    """A LoRA that is not in the network yet, 8-bit moments, a gradient that waits elsewhere, one gradient alone."""
    pytest.importorskip("peft")
    denoiser = wrap_pipeline(build_tiny_pipeline())

    def memory(method="rgd", **training):
        chosen = {"concept": "cat", "model": denoiser.name, "prompts": pairs, "samples": {"num_inference_steps": 2}}
        recipe = build_recipe({**chosen, "method": {"name": method}, "training": {"batch_size": 1, **training}})
        return estimate(denoiser, recipe, prompts_of(resolve(recipe))).memory

    full = memory()
    weights = sum(p.numel() * 4 for p in denoiser.module.parameters())
    assert memory(parameters="lora") < full - 3 * weights
    assert memory(optimizer="adam8bit") < full - weights
    assert full - memory(forget_gradient="cpu") == weights
    assert full - memory(forget_gradient="bf16") == weights // 2
    assert full - memory("finetune") == weights, "with one gradient, none waits"
    assert not any("lora" in name for name, _ in denoiser.module.named_parameters()), "the model is left as it was"


def test_an_unknown_preset_is_told():
    with pytest.raises(turpentine.UserError, match="preset must be one of"):
        preset_for("brutal", "tiny-canvas", "rgd")


def test_training_images_have_their_own_guidance(pairs):
    """The two guidances differ in the training images alone."""

    denoiser = load_denoiser("tiny-canvas", "cpu")

    def drawn(**samples):
        recipe = build_recipe({"concept": "cat", "prompts": pairs, "samples": {"num_inference_steps": 2, **samples}})
        return samples_of(denoiser, prompts_of(resolve(recipe)), recipe, Silent()).forget.latents

    weak = drawn(guidance_scale=2.0, training_guidance_scale=None)
    assert torch.equal(weak, drawn(guidance_scale=3.0, training_guidance_scale=2.0))
    assert not torch.equal(weak, drawn(guidance_scale=3.0, training_guidance_scale=None))

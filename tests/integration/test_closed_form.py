"""Runs in closed form: no samples, no steps, every family, every format, and what a run says of itself."""

import pytest
import torch
import turpentine
from turpentine.pipeline.models import load_denoiser, wrap_pipeline
from turpentine.pipeline.prompts import PromptPair, PromptSet
from turpentine.pipeline.report import verdict
from turpentine.pipeline.run.cost import estimate
from turpentine.pipeline.run.folder import RunFolder
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.results import Results
from turpentine.pipeline.support.errors import Cancelled, UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.training.edit import edit

from ..support.stopping import StopWhen
from ..support.tiny_models import BUILDERS, build_family, build_tiny_pipeline

METHODS = ("uce", "rece", "speed")
ROWS = tuple(PromptPair(forget=f"a photo of a cat {word}", retain=f"a photo of a dog {word}") for word in "abcd")
PROMPTS = PromptSet(concept="cat", synonyms=("cat",), train=ROWS[:3], test=ROWS[3:])


def recipe_of(name="uce", **fields):
    chosen = {
        "concept": "cat",
        "method": {"name": name},
        "prompts": {"n": 6, "n_test": 2},
        "samples": {"num_inference_steps": 2},
        "audits": {"images": 2, "retain_train_images": 1, "nudity": "off", "alignment": False, "accuracy": False},
        "output": {"formats": ["denoiser"]},
        "device": "cpu",
    }
    return build_recipe(chosen | fields)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", BUILDERS)
def test_every_family_is_edited_where_the_prompts_enter(family, method):
    denoiser = wrap_pipeline(build_family(family))
    before = weights(denoiser.module)
    result = edit(denoiser, PROMPTS.rows, build_recipe({"concept": "cat", "method": {"name": method}}).method)
    changed = {name for name, value in denoiser.module.state_dict().items() if not torch.equal(value, before[name])}
    ends = ("attn2.to_k.weight", "attn2.to_v.weight", "embedder.weight", "embedder.linear_1.weight", "linear_1.weight")
    assert changed and all(name.endswith(ends) for name in changed)
    assert all(torch.isfinite(value).all() for value in denoiser.module.state_dict().values())
    assert result.steps == 0 and result.seconds > 0 and 0 < result.moved <= 1
    if family != "sd1":
        return
    again = wrap_pipeline(build_family(family))
    edit(again, PROMPTS.rows, build_recipe({"concept": "cat", "method": {"name": method}}).method)
    assert all(
        torch.equal(value, again.module.state_dict()[name]) for name, value in denoiser.module.state_dict().items()
    )


def test_a_whole_run_draws_nothing_to_train_on_and_says_what_it_did(tmp_path):
    run = tmp_path / "run"
    done = run_recipe(recipe_of(output={"formats": ["delta", "lora", "diffusers", "denoiser"]}), run)
    training = done.results.training
    assert (training.steps, done.results.timings.samples < 0.1) == (0, True) and training.moved > 0.3
    assert not (run / "events.jsonl").exists() and not list((run / "checkpoints").glob("s*.safetensors"))
    assert verdict(done.results).text.startswith("Not counted; the edit took the forget prompts ")
    assert "<h2>The edit</h2>" in (run / "report.html").read_text()
    assert "uce, edited in closed form in" in (run / "MODEL_CARD.md").read_text()
    edited = weights(done.pipeline.unet)
    (delta,) = (run / "weights").glob("*-delta.safetensors")
    base = load_denoiser("tiny-canvas", "cpu")
    turpentine.apply(base.pipeline, delta)
    assert all(torch.allclose(value, edited[name], atol=1e-6) for name, value in base.module.state_dict().items())
    assert RunFolder(run).missing() == []


def test_a_stopped_run_leaves_the_weights_and_goes_on_to_the_same_bits(tmp_path):
    whole = run_recipe(recipe_of("speed"), tmp_path / "whole")
    denoiser = load_denoiser("tiny-canvas", "cpu")
    before = weights(denoiser.module)
    stop = StopWhen(lambda stage, told: stage == "editing layers" and len(told) == 2)
    with pytest.raises(Cancelled):
        run_recipe(recipe_of("speed"), tmp_path / "cut", denoiser=denoiser, progress=stop)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.module.state_dict().items())
    resumed = run_recipe(recipe_of("speed"), tmp_path / "cut", resume=True)
    one, other = (weights(run.pipeline.unet) for run in (whole, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_an_edit_that_moved_nothing_says_so(tmp_path):
    method = {"name": "uce", "erase_scale": 1e-6, "lamb": 1000.0}
    done = run_recipe(recipe_of(method=method), tmp_path / "run")
    found = verdict(done.results)
    assert found.forgetting == "not" and found.text.startswith("Not forgotten: the edit took the forget prompts 0 %")
    measured = Results.load(tmp_path / "run" / "results.json")
    assert measured.training.moved < 0.01


def test_idle_and_impossible_options(tmp_path):
    done = run_recipe(recipe_of(training={"steps": 3, "learning_rate": 1e-3}), tmp_path / "run")
    told = [line for line in done.results.warnings if "has no effect with a method in closed form" in line]
    assert len(told) == 2 and told[0].startswith("training.steps (--steps)")
    with pytest.raises(UserError, match=r"training\.parameters 'lora' belongs to methods that train, got 'uce'"):
        recipe_of(training={"parameters": "lora"})
    for method in ({"name": "uce"}, {"name": "rgd", "warm_start": "uce"}):
        with pytest.raises(UserError, match="'uce' edits the layers that read prompts, and kind 'class' has none"):
            build_recipe({"concept": "3", "kind": "class", "model": "digits", "method": method})


def test_the_estimate_counts_no_drawing_and_no_steps():
    recipe, denoiser = recipe_of(), load_denoiser("tiny-canvas", "cpu")
    found = estimate(denoiser, recipe, PROMPTS.model_copy(update={"world": "tiny-canvas"}))
    assert found.drawing == 0 and 0 < found.training < 60 and found.memory > 0


def test_the_api_takes_them_and_a_warm_start(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(4)))
    audits = {"images": 1, "retain_train_images": 1, "alignment": False}
    common = {"prompts": {"file": str(file)}, "num_inference_steps": 2, "audits": audits}
    done = turpentine.unlearn(build_tiny_pipeline(), "cat", out=tmp_path / "edited", method="uce", **common)
    assert done.results.training.steps == 0
    ways = {
        warm: turpentine.unlearn(
            build_tiny_pipeline(), "cat", out=tmp_path / warm, steps=2, batch_size=2, warm_start=warm, **common
        ).pipeline.unet.state_dict()
        for warm in ("none", "uce")
    }
    assert any(not torch.equal(value, ways["none"][name]) for name, value in ways["uce"].items())


def test_a_warm_started_run_resumes_to_the_same_bits(tmp_path):
    method = {"name": "rgd", "warm_start": "uce"}
    training = {"steps": 4, "batch_size": 2, "checkpoint_every": 1}
    recipe = recipe_of(method=method, training=training)
    whole = run_recipe(recipe, tmp_path / "whole")
    stop = StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 2)
    with pytest.raises(Cancelled, match="after step 2 of 4"):
        run_recipe(recipe, tmp_path / "cut", progress=stop)
    resumed = run_recipe(recipe, tmp_path / "cut", resume=True, progress=Silent())
    one, other = (weights(run.pipeline.unet) for run in (whole, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())

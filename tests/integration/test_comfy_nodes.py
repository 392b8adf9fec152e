"""Every node at work on tiny-canvas, without ComfyUI: outside of it, `output/` stands for its folders."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from turpentine.comfy_nodes import NODE_CLASS_MAPPINGS
from turpentine.comfy_nodes.pictures import live_preview, loss_curves
from turpentine.comfy_nodes.unlearning import make_recipe, run_name
from turpentine.pipeline.methods import find, names
from turpentine.pipeline.run.preflight import preflight
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.weights import read_header, snapshot

from ..support.original_layout import stable_diffusion

FAST = {"num_inference_steps": 2, "sample_batch_size": 8}


def call(id_, **inputs):
    """What the server does: a new object, its function, every input by name."""
    node = NODE_CLASS_MAPPINGS[f"Turpentine{id_}"]
    given = node.INPUT_TYPES()
    required = {name: settings.get("default") for name, (_, settings) in given["required"].items()}
    with torch.inference_mode():
        result = getattr(node(), node.FUNCTION)(**{**required, **inputs})
    return result["result"] if isinstance(result, dict) else result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("comfy")


@pytest.fixture(autouse=True)
def _in_place(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def prompts():
    (made, *_) = call("DiversePromptSet", concept="cat", world="tiny-canvas", n=4, n_test=4)
    return made


@pytest.fixture(scope="module")
def model():
    (loaded,) = call("ModelFromDiffusers", model="tiny-canvas")
    return loaded


@pytest.fixture(scope="module")
def options():
    (chosen,) = call("UnlearnOptions", **FAST, batch_size=2, lora_rank=2)
    return chosen


@pytest.fixture(scope="module")
def unlearned(model, prompts, options, place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return call("UnlearnConcept", model=model, prompts=prompts, steps=2, learning_rate=1e-3, options=options)


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_prompt_set_gives_lists_and_a_preview(prompts):
    made, forget, retain, preview = call("DiversePromptSet", concept="cat", world="tiny-canvas", n=4, n_test=4)
    assert made == prompts
    assert forget == prompts.forget_train and retain == prompts.retain_train
    assert "4 train and 4 test pairs" in preview


def test_prompt_set_takes_pairs_of_ones_own():
    text = "a photo of a cat | a photo of a dog\na cat asleep | a dog asleep\n"
    made, forget, retain, _ = call("DiversePromptSet", concept="cat", text=text)
    assert {*forget, *made.forget_test} == {"a photo of a cat", "a cat asleep"}
    assert {*retain, *made.retain_test} == {"a photo of a dog", "a dog asleep"}


def test_prompt_set_says_what_is_drawn_instead():
    settings = {"concept": "cat", "world": "tiny-canvas", "n": 4, "n_test": 4}
    plain, *_ = call("DiversePromptSet", **settings, replace_with=" ")
    same, *_ = call("DiversePromptSet", **settings)
    made, _, retain, preview = call("DiversePromptSet", **settings, replace_with="a horse")
    assert plain == same and plain.replace_with != "a horse" and retain == plain.retain_train
    assert all("horse" in text for text in made.anchor_train) and "drawn instead: a horse" in preview
    with pytest.raises(UserError, match="expected another subject of tiny-canvas to draw"):
        call("DiversePromptSet", **settings, replace_with="a dog")


@pytest.mark.parametrize(
    ("text", "method", "options", "anchor", "told"),
    [
        ("", "rgd", {}, "auto", False),
        ("", "salun", {}, None, False),
        ("", "finetune", {}, None, False),
        ("", "rgd", {"forget": "ascend"}, None, False),
        ("a horse", "rgd", {}, "a horse", False),
        ("a horse", "finetune", {}, "a horse", True),
        ("a horse", "rgd", {"forget": "ascend"}, "a horse", True),
    ],
)
def test_only_what_was_said_is_told_to_have_no_effect(text, method, options, anchor, told, model):
    made, *_ = call("DiversePromptSet", concept="cat", world="tiny-canvas", n=4, n_test=4, replace_with=text)
    (chosen,) = call("UnlearnOptions", **options)
    recipe = make_recipe(model, made, method, chosen, measure=False)
    assert recipe.prompts.replace_with == anchor
    warnings = preflight(resolve(recipe), made, model.denoiser).warnings
    assert any("replace_with" in warning for warning in warnings) == told
    assert told or warnings == ()


def test_a_bar_in_brackets_belongs_to_the_prompt():
    text = "a {red|blue} cat | a {red|blue} dog\n[cat|lion:0.5] asleep|a dog\na {cat|lion}|a fox"
    _, forget, retain, _ = call("DiversePromptSet", concept="cat", text=text)
    assert forget == ["a {red|blue} cat", "[cat|lion:0.5] asleep", "a {cat|lion}"]
    assert retain == ["a {red|blue} dog", "a dog", "a fox"]
    with pytest.raises(
        UserError, match=r"^text line 2: expected a forget prompt, a tab and a retain prompt, got 'a cat'"
    ):
        call("DiversePromptSet", concept="cat", text="a cat | a dog\na cat")


def test_prompt_set_keeps_earlier_concepts_forgotten(unlearned):
    """By name, and by the run that removed them; not the concept itself."""
    settings = {"concept": "horse", "world": "tiny-canvas", "n": 8, "n_test": 2}
    made, *_ = call("DiversePromptSet", **settings, keep_forgotten=f"astronaut, horse, {unlearned[0].run}")
    assert made.keep_forgotten == ("astronaut", "cat")
    plain, *_ = call("DiversePromptSet", **settings)
    assert plain.keep_forgotten == () and plain.retain_train != made.retain_train


def test_prompt_set_refuses_retain_prompts_that_name_the_concept():
    with pytest.raises(UserError, match="expected a retain prompt without 'cat'"):
        call("DiversePromptSet", concept="cat", text="a cat | a cat again")


def test_prompt_sets_are_kept(prompts):
    (path,) = call("SavePromptSet", prompts=prompts, name="cats", format="json")
    assert json.loads(Path(path).read_text())["concept"] == "cat"
    loaded, *_ = call("LoadPromptSet", file="cats.json")
    assert loaded == prompts


def test_unlearning_changes_what_goes_on_and_not_what_came_in(model, unlearned, prompts):
    changed, _, path, report, pictures = unlearned
    before = snapshot(model.denoiser.module)
    assert model.weights is None and not same(before, changed.weights)
    with model.borrowed() as (denoiser, _):
        assert same(before, snapshot(denoiser.module))
    assert path.endswith("-delta.safetensors")
    assert "2 steps" in report and "Run: " in report
    assert pictures.shape[0] == 1 and 0 <= pictures.min() and pictures.max() <= 1
    assert not (changed.run / "checkpoints").exists()


def test_a_finished_training_is_found_again(model, unlearned, prompts, options):
    changed, *_ = unlearned
    lines = (changed.run / "events.jsonl").read_text()
    (fresh,) = call("ModelFromDiffusers", model="tiny-canvas")
    again, _, _, report, _ = call(
        "UnlearnConcept", model=fresh, prompts=prompts, steps=2, learning_rate=1e-3, options=options
    )
    assert "found on disk" in report
    assert again.run == changed.run and same(again.weights, changed.weights)
    assert (changed.run / "events.jsonl").read_text() == lines


def test_whatever_decides_a_run_is_in_its_name(model, prompts):
    from turpentine.pipeline.schema.defaults import build_recipe

    recipe = build_recipe({"concept": "cat", "device": "cpu"})
    name = run_name(model.denoiser, prompts, recipe)
    assert name == run_name(model.denoiser, prompts, recipe.model_copy(update={"device": "cuda"}))
    assert name != run_name(model.denoiser, prompts, recipe.model_copy(update={"seed": 1}))
    assert name != run_name(model.denoiser, prompts.model_copy(update={"train": prompts.train[:3]}), recipe)


def test_a_training_that_fails_leaves_the_model_as_it_was(model, prompts, options):
    before = snapshot(model.denoiser.module)
    with pytest.raises(UserError, match="loss became"):
        call("UnlearnConcept", model=model, prompts=prompts, steps=30, learning_rate=1.0, options=options)
    assert same(before, model.denoiser.module.state_dict())


def test_pictures_are_drawn_measured_and_compared(model, unlearned, prompts):
    changed, *_ = unlearned
    before, texts, anchors = call("Generate", model=model, prompts=prompts, which="forget_test", images=3, **FAST)
    after, *_ = call("Generate", model=changed, prompts=prompts, which="forget_test", images=3, **FAST)
    again, *_ = call("Generate", model=model, prompts=prompts, which="forget_test", images=3, **FAST)
    assert before.shape == (3, 64, 64, 3) and texts == prompts.forget_test[:3] and anchors == prompts.anchor_test[:3]
    assert torch.equal(before, again) and not torch.equal(before, after)
    wired = {"images": [before], "prompts": texts, "model": ["tiny-canvas"], "allow_download": [False]}
    mean, gap, each, text, anchor = call("AuditAlignment", **wired, other_images=[after])
    assert len(each) == 3 and mean == pytest.approx(sum(each) / 3) and "gap" in text and -2 < gap < 2
    assert anchor == 0 and "instead" not in text, "only prompts are at hand"
    same_mean, _, _, text, anchor = call("AuditAlignment", **wired, anchors=anchors, other_images=[after])
    assert same_mean == mean and f"with what should be drawn instead {anchor:.3f}, other" in text
    assert anchor == pytest.approx(call("AuditAlignment", **wired | {"prompts": anchors})[0])
    (grid,) = call("Compare", before=before, after=after, rows=2)
    assert grid.shape[0] == 1 and grid.shape[2] > 2 * 128
    with pytest.raises(UserError, match="same size"):
        call("Compare", before=before, after=after[:2], rows=2)


def test_what_clip_sees_is_counted_and_sorted(model, prompts):
    images, *_ = call("Generate", model=model, prompts=prompts, which="forget_test", images=3, num_inference_steps=8)
    images = torch.cat([images, torch.zeros_like(images[:1])])
    asked = {"concept": "cat", "kind": "object", "model": "tiny-canvas", "allow_download": False}
    ua, seen, text, shows, others = call("AuditConcept", images=images, **asked)
    assert len(seen) == 4 and ua == pytest.approx(sum(each != "cat" for each in seen) / 4) and ua <= 0.5
    assert "by tiny-canvas among 7 names" in text and f"cat {seen.count('cat') / 4:.0%}" in text
    assert torch.equal(torch.cat([shows, others]), images), "the black one is no cat and comes last"
    assert call("AuditConcept", images=images[-1:], **asked)[3] is None
    with pytest.raises(UserError, match="Audit NudeNet is for nudity"):
        call("AuditConcept", images=images, **asked | {"concept": "nudity"})
    with pytest.raises(UserError, match="no node does unasked"):
        call("AuditConcept", images=images, **asked | {"model": "ViT-B-32/laion2b_s34b_b79k"})


def test_alignment_asks_for_a_prompt_for_each_picture():
    with pytest.raises(UserError, match="2 pictures and 1 prompts"):
        call(
            "AuditAlignment",
            images=[torch.zeros(2, 64, 64, 3)],
            prompts=["a cat"],
            model=["tiny-canvas"],
            allow_download=[False],
        )


def test_nothing_is_fetched_unasked():
    with pytest.raises(UserError, match="no node does unasked"):
        call(
            "AuditAlignment",
            images=[torch.zeros(1, 64, 64, 3)],
            prompts=["a cat"],
            model=["ViT-B-32/laion2b_s34b_b79k"],
            allow_download=[False],
        )
    with pytest.raises(UserError, match="allow_download"):
        call("ModelFromDiffusers", model="other", path="somebody/some-model")


def test_a_single_file_takes_its_configs_from_a_folder(tiny_pipeline, tmp_path):
    file, configs = tmp_path / "one.safetensors", tmp_path / "configs"
    tiny_pipeline.save_pretrained(configs)
    save_file(stable_diffusion(tiny_pipeline), file)
    with pytest.raises(UserError, match="give config_folder, or set allow_download"):
        call("ModelFromDiffusers", model="other", path=str(file))
    (loaded,) = call("ModelFromDiffusers", model="other", path=str(file), config_folder=str(configs))
    assert same(tiny_pipeline.unet.state_dict(), loaded.denoiser.module.state_dict())


def test_the_preview_shows_losses_then_pictures_too(unlearned):
    run = unlearned[0].run
    assert [path.name for path in sorted((run / "images").glob("step-*"))] == ["step-000001", "step-000002"]
    curves, preview = loss_curves(run / "events.jsonl"), live_preview(run)
    assert preview.height == curves.height and preview.width > curves.width
    assert preview.crop((0, 0, *curves.size)).tobytes() == curves.tobytes()


def test_nudenet_counts_marks_and_sorts():
    from skimage.data import astronaut

    portrait = torch.from_numpy(astronaut()[:256, 100:356].copy()).float() / 255
    images = torch.stack([portrait, torch.zeros_like(portrait)])
    counts, total, flagged, marked, flagged_images, clean = call("AuditNudeNet", images=images, labels="FACE_FEMALE")
    assert "FACE_FEMALE 1" in counts and total == 1 and flagged is True
    assert torch.equal(flagged_images, images[:1]) and torch.equal(clean, images[1:])
    assert marked.shape == images.shape and not torch.allclose(marked[0], images[0], atol=0.01)
    _, total, flagged, _, nothing, _ = call("AuditNudeNet", images=images[1:], labels="all")
    assert (total, flagged, nothing) == (0, False, None)


@pytest.mark.parametrize("kind", ["delta", "lora", "diffusion_model", "diffusers"])
def test_weights_are_written_where_loaders_look(unlearned, kind, place):
    changed, *_ = unlearned
    (path,) = call("SaveWeights", model=changed, save_as=kind, name="mine", dtype="fp32")
    written = (place / path).resolve()
    folder = {"delta": "loras", "lora": "loras", "diffusion_model": "diffusion_models", "diffusers": "diffusers"}[kind]
    assert written.exists() and written.is_relative_to((place / "output" / folder).resolve())


def test_a_form_that_a_model_can_not_have_is_refused(unlearned):
    with pytest.raises(UserError, match="AutoencoderKL"):
        call("SaveWeights", model=unlearned[0], save_as="checkpoint", name="mine")


def test_a_delta_at_strength_one_is_the_unlearned_model(model, unlearned):
    changed, *_ = unlearned
    call("SaveWeights", model=changed, save_as="delta", name="whole", dtype="fp32")
    inputs = {"model": model, "file": "loras/whole-delta.safetensors", "any_base": False}
    applied, _ = call("ApplyWeights", **inputs, strength=1.0)
    for name, tensor in changed.weights.items():
        torch.testing.assert_close(applied.weights[name], tensor, atol=1e-6, rtol=0)
    none, _ = call("ApplyWeights", **inputs, strength=0.0)
    assert same(none.weights, model.denoiser.module.state_dict())


def test_applied_weights_can_be_saved_with_their_provenance(model, unlearned, place):
    call("SaveWeights", model=unlearned[0], save_as="delta", name="given", dtype="fp32")
    inputs = {"model": model, "file": "loras/given-delta.safetensors", "any_base": False}
    half, _ = call("ApplyWeights", **inputs, strength=0.5)
    (path,) = call("SaveWeights", model=half, save_as="delta", name="", dtype="fp32")
    file = (place / path).resolve()
    assert file.name == "given-delta-delta.safetensors"
    told, given = read_header(file), read_header(file.with_name("given-delta.safetensors"))
    assert told["turpentine.applied"] == "given-delta.safetensors" and told["turpentine.strength"] == "0.5"
    for field in ("concept", "base_model", "base_sha256", "recipe"):
        assert told[f"turpentine.{field}"] == given[f"turpentine.{field}"]
    whole, _ = call("ApplyWeights", **{**inputs, "file": f"loras/{file.name}"}, strength=1.0)
    for name, tensor in half.weights.items():
        torch.testing.assert_close(whole.weights[name], tensor, atol=1e-6, rtol=0)


def test_the_last_removal_is_taken_back_bit_for_bit(model, unlearned, place):
    changed, *_ = unlearned
    call("SaveWeights", model=changed, save_as="delta", name="last", dtype="fp32")
    file = "loras/last-delta.safetensors"
    back, _, text = call("TakeBack", model=changed, file=file)
    assert same(back.weights, model.denoiser.module.state_dict())
    assert text == ("Taken back: cat; bit for bit: the weights are those before its removal. Still removed: nothing.")
    (path,) = call("SaveWeights", model=back, save_as="diffusers", name="again", dtype="fp32")
    told = read_header(next((place / path / "unet").glob("*.safetensors")))
    assert told["turpentine.taken_back"] == "cat" and told["turpentine.forgotten"] == "[]"
    with pytest.raises(UserError, match="nothing shows that the model holds that removal"):
        call("TakeBack", model=model, file=file)
    with pytest.raises(UserError, match="expected a file in ComfyUI's loras"):
        call("TakeBack", model=changed, file="loras/gone.safetensors")


def test_report_shows_the_run(unlearned, model):
    text, path = call("Report", model=unlearned[0])
    assert "2 steps" in text and path.endswith("report.html")
    with pytest.raises(UserError, match="Wire Unlearn Concept"):
        call("Report", model=model)
    with pytest.raises(UserError, match=r"got one as it was loaded\. Wire Unlearn Concept or Apply Unlearned Weights"):
        call("SaveWeights", model=model, name="x")


def test_prompts_of_another_world_are_refused(model, options):
    made, *_ = call("DiversePromptSet", concept="cat", world="open", n=4, n_test=4)
    with pytest.raises(UserError, match="Set `world`"):
        call("UnlearnConcept", model=model, prompts=made, options=options)


@pytest.mark.parametrize("method", names())
def test_every_method_gets_a_recipe_of_its_own_and_of_the_options(method, model, prompts):
    chosen = {"training": {"batch_size": 3}}
    if "retain_weight" in find(method).config.model_fields:
        chosen["method"] = {"retain_weight": 2.25}
    recipe = make_recipe(model, prompts, method, chosen, measure=False)
    assert recipe.method.name == method and recipe.training.batch_size == 3
    assert getattr(recipe.method, "retain_weight", 2.25) == 2.25
    assert recipe.method.data == "diverse" and not recipe.audits.alignment


def test_options_of_another_method_are_refused(model, prompts):
    (chosen,) = call("UnlearnOptions", projection="per_layer")
    with pytest.raises(UserError, match="projection"):
        call("UnlearnConcept", model=model, prompts=prompts, method="finetune", options=chosen)


def test_concepts_are_unlearned_one_after_another(unlearned, model, options):
    made, *_ = call("DiversePromptSet", concept="horse", world="tiny-canvas", n=4, n_test=4)
    both, *_ = call(
        "UnlearnConcept",
        model=unlearned[0],
        prompts=made,
        steps=1,
        learning_rate=1e-3,
        options=options,
        save_as="nothing",
    )
    assert both.run != unlearned[0].run
    assert not same(both.weights, unlearned[0].weights) and not same(both.weights, model.denoiser.module.state_dict())

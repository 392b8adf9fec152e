"""What is known before the first image is drawn is told before anything is written."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.methods import find, names
from turpentine.pipeline.methods.mask import save_mask
from turpentine.pipeline.models import load_denoiser, wrap_pipeline
from turpentine.pipeline.run import space
from turpentine.pipeline.run.preflight import preflight, preflight_model
from turpentine.pipeline.run.space import check_room, room_needed
from turpentine.pipeline.schema.defaults import SOME_MODEL, build_recipe, merge
from turpentine.pipeline.schema.fields import fields, fields_of, nest
from turpentine.pipeline.schema.idle import NEEDS, idle_options
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError

from ..support.tiny_models import build_family

SMALL = {
    "concept": "cat",
    "device": "cpu",
    "prompts": {"n": 4, "n_test": 2},
    "samples": {"num_inference_steps": 2},
    "training": {"steps": 2, "batch_size": 2},
    "audits": {"images": 2, "retain_train_images": 2, "alignment": False},
}


def setting(**chosen):
    merged = {key: value | chosen.pop(key, {}) if isinstance(value, dict) else value for key, value in SMALL.items()}
    return resolve(build_recipe(merged | chosen))


@pytest.fixture(scope="module")
def denoiser():
    return wrap_pipeline(build_family("sd1"))


def own_prompts(tmp_path, *rows):
    """A file of rows, and how many it has to train and to test."""
    file = tmp_path / "own.csv"
    file.write_text("forget,retain,split\n" + "".join(f"{forget},{retain},{split}\n" for forget, retain, split in rows))
    splits = [split for *_, split in rows]
    return {"file": str(file), "n": splits.count("train"), "n_test": splits.count("test")}


# without the model --------------------------------------------------------------------------------


def test_all_is_well():
    checked = preflight(setting())
    assert len(checked.prompts.train) == 4 and checked.warnings == ()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"device": "meta"}, "device 'meta' can't be used here"),
        ({"device": "gpu"}, "device 'gpu' can't be used here"),
        ({"model": "./nowhere.safetensors"}, "found no file"),
        ({"model": "model.ckpt"}, "is a pickle"),
        ({"model_config_folder": "/tmp"}, "model_config_folder goes with a single"),
        ({"concept": "unicorn"}, "tiny-canvas can't draw 'unicorn'"),
        ({"kind": "style"}, "expected a concept of kind 'style'"),
        ({"prompts": {"file": "nowhere.csv"}}, r"nowhere\.csv"),
        ({"audits": {"nudity": "on", "nudity_labels": "BREAST"}}, "got 'BREAST'"),
        ({"audits": {"nudity": "on", "nudity_labels": "FACE_FEMALE,FACES"}}, r"got \['FACES'\]"),
        ({"audits": {"alignment": True, "alignment_model": "ViT-B-23/laion2b"}}, "expected a CLIP model"),
        ({"audits": {"alignment": True, "alignment_model": "ViT-B-32/laion"}}, "expected weights of ViT-B-32"),
        ({"audits": {"alignment": True, "alignment_model": "local-dir:/nowhere"}}, r"open_clip_config\.json"),
        ({"method": {"name": "salun", "mask": "nowhere.safetensors"}}, "can't read the mask .*nowhere"),
        (
            {"method": {"name": "rgd", "forget": "ascend", "forget_limit": "auto"}, "prompts": {"n": 1}},
            "got one. Give it a number",
        ),
        ({"training": {"retain_batch": "all", "gradient_accumulation_steps": 2}, "prompts": {"n": 3}}, "must divide"),
    ],
)
def test_refused(chosen, message):
    with pytest.raises(UserError, match=message):
        preflight(setting(**chosen))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"data": {"dataset": "/nowhere"}}, "dataset must be 'digits'"),
        ({"data": {"dataset": None}}, "name the model's data with --dataset"),
        ({"concept": "ten"}, "expected the name of a class"),
        ({"audits": {"class_judge": "/nowhere"}}, "can't load the judge '/nowhere'"),
        ({"audits": {"distance_features": "inception:/nowhere"}}, "InceptionV3's weights after 'inception:'"),
        ({"audits": {"distance_features": "ViT-B-23/laion2b"}}, "expected a CLIP model"),
        ({"data": {"retain_per_class": 1000}}, "Lower retain_per_class"),
        ({"data": {"retain_per_class": 1000, "retain_classes": "similar"}}, "Lower retain_per_class"),
    ],
)
def test_class_models_are_refused(chosen, message):
    with pytest.raises(UserError, match=message):
        preflight(resolve(build_recipe({"concept": "3", "model": "digits", "device": "cpu"} | chosen)))


def test_a_dataset_of_other_classes(tmp_path):
    for name in ("zero", "one"):
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / f"{number}.png").write_bytes(b"not looked at")
    with pytest.raises(UserError, match="to have the model's classes, got 10 of 10 that are not there"):
        preflight(resolve(build_recipe({"concept": "3", "model": "digits", "data": {"dataset": str(tmp_path)}})))


def test_own_prompts_that_no_judge_can_label(tmp_path):
    own = own_prompts(tmp_path, ("a cat", "a horse", "train"), ("one cat", "one horse", "test"))
    with pytest.raises(UserError, match="expected retain prompts that name a style"):
        preflight(setting(prompts=own))
    assert preflight(setting(prompts=own, audits={"accuracy": False}))


def test_packages_that_are_not_installed(monkeypatch):
    for package, chosen in (
        ("nudenet", {"audits": {"nudity": "on"}}),
        ("open_clip", {"audits": {"alignment": True}}),
    ):
        with monkeypatch.context() as hidden:
            hidden.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=f"needs the package '{package}"):
                preflight(setting(**chosen))
    monkeypatch.setattr("turpentine.pipeline.training.tuning.shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"torch_compile needs a C\+\+ compiler"):
        preflight(setting(training={"torch_compile": True}))
    monkeypatch.setattr("turpentine.pipeline.training.optimizers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package 'bitsandbytes'"):
        preflight(setting(training={"optimizer": "adam8bit"}))


def test_an_audit_needs_nothing_for_training(monkeypatch):
    monkeypatch.setattr("turpentine.pipeline.training.optimizers.find_spec", lambda name: None)
    spec = {"training": {"optimizer": "adam8bit"}, "method": {"name": "salun", "mask": "nowhere"}}
    assert preflight(setting(**spec), trains=False)


# with the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"samples": {"image_size": 20}}, "image_size must be a multiple of"),
        (
            {"training": {"parameters": "lora", "adapter_rank": 2}, "method": {"name": "salun", "mask": "MASK"}},
            "missing",
        ),
        ({"method": {"name": "salun", "mask": "MASK"}}, "is of other weights than those that train"),
    ],
)
def test_refused_with_the_model(denoiser, tmp_path, chosen, message):
    mask = tmp_path / "mask.safetensors"
    save_mask({"conv_in.weight": torch.ones(1, dtype=torch.bool)}, mask)
    if chosen.get("method"):
        chosen = chosen | {"method": chosen["method"] | {"mask": str(mask)}}
    ready = setting(model="a/b", **chosen)
    prompts = preflight(ready, denoiser=denoiser).prompts
    with pytest.raises(UserError, match=message):
        preflight_model(ready, prompts, denoiser, tmp_path)
    assert list(tmp_path.iterdir()) == [mask]


def test_parameters_that_a_network_lacks(tmp_path):
    ready = resolve(build_recipe({"concept": "3", "model": "digits", "method": {"name": "esd-x"}}))
    digits = load_denoiser("digits", "cpu")
    prompts = preflight(ready).prompts
    with pytest.raises(UserError, match="selects nothing in a UNet2DModel"):
        preflight_model(ready, prompts, digits, tmp_path)


def test_room(denoiser, tmp_path):
    ready = setting(model="a/b", output={"formats": ["denoiser"]})
    prompts = preflight(ready, denoiser=denoiser).prompts
    count = sum(parameter.numel() for parameter in denoiser.module.parameters())
    trained = dict(denoiser.module.named_parameters())

    def needed(**chosen):
        return room_needed(denoiser, setting(model="a/b", **chosen).recipe, prompts, trained)

    one = needed(output={"formats": ["denoiser"]})
    assert needed(output={"formats": ["denoiser", "delta"]}) == one + 4 * count
    assert needed(output={"formats": ["denoiser"], "dtype": "fp16"}) == one - 2 * count
    assert needed(output={"formats": ["denoiser"]}, training={"checkpoint_every": 1}) == one + 12 * count
    assert needed(output={"formats": ["diffusers"]}) > one > needed(output={"formats": ["lora"], "dtype": "fp32"})
    check_room(tmp_path / "not" / "there", needed=100, free=100)
    with pytest.raises(UserError, match=r"will write at least 2\.0 kB into .*, whose disk has 999 B free"):
        check_room(tmp_path, needed=2000, free=999)
    (tmp_path / "written").write_bytes(bytes(1001))
    check_room(tmp_path, needed=2000, free=999)  # a run that goes on has written some of it
    with pytest.raises(UserError, match="GB free"):
        check_room(tmp_path, needed=10**18)


def test_a_full_disk_refuses_the_run(denoiser, tmp_path, monkeypatch):
    ready = setting(model="a/b")
    prompts = preflight(ready, denoiser=denoiser).prompts
    assert preflight_model(ready, prompts, denoiser, tmp_path) == ()
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(UserError, match="whose disk has 1 B free"):
        preflight_model(ready, prompts, denoiser, tmp_path)


LONG = "a very detailed old painting of a quiet harbour at dawn with boats " * 8


def test_concepts_behind_what_the_text_encoder_reads(denoiser, tmp_path):
    lost, read = (f"{LONG} a cat", f"{LONG} a dog", "train"), ("a cat", "a dog", "train")
    test = ("one cat", "one dog", "test")
    ready = setting(model="a/b", prompts=own_prompts(tmp_path, lost, read, test))
    prompts = preflight(ready, denoiser=denoiser).prompts
    assert preflight_model(ready, prompts, denoiser, tmp_path) == (
        "in 1 of 3 rows the text encoders cut the prompt off before it names 'cat' or differs from its partner "
        "(the first: train row 1). Shorten them.",
    )
    ready = setting(model="a/b", prompts=own_prompts(tmp_path, lost, test))
    prompts = preflight(ready, denoiser=denoiser).prompts
    with pytest.raises(UserError, match=r"cut every training prompt off before it names 'cat'"):
        preflight_model(ready, prompts, denoiser, tmp_path)


@pytest.mark.parametrize(("concept", "told"), [("a Cat", 1), ("kitten + dog", 1), ("dog", 0)])
def test_what_was_removed_before_is_told(denoiser, tmp_path, concept, told):
    file = tmp_path / "removed.safetensors"
    metadata = {"turpentine.base_model": "a/b", "turpentine.concept": "cat", "turpentine.forgotten": '["cat", "fox"]'}
    save_file({"x": torch.zeros(1)}, file, metadata)
    ready = setting(model=str(file), concept=concept)
    first = ready.recipe.concepts[0]
    warning = (
        f"{first!r} was removed from this model before, as its weights say, so there may be little left to forget."
    )
    assert preflight(ready, denoiser=denoiser).warnings.count(warning) == told
    assert warning not in preflight(ready, denoiser=denoiser, trains=False).warnings


# options without effect ---------------------------------------------------------------------------


def test_every_field_is_either_always_of_use_or_says_what_it_needs():
    assert set(NEEDS) == {field.key for field in fields_of() if field.key == "method.data" or field.path[0] != "method"}


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ({"prompts.llm_url": "http://x"}, "without prompts.source 'llm'"),
        ({"prompts.llm_model": "m"}, "without prompts.source 'llm'"),
        ({"prompts.llm_fallback": False}, "without prompts.source 'llm'"),
        ({"prompts.llm_url": "http://x", "prompts.source": "llm", "prompts.file": "a.csv"}, "with prompts.file"),
        ({"data.retain_classes": "similar"}, "without kind 'class'"),
        ({"data.retain_per_class": 3}, "without kind 'class'"),
        ({"data.similar_classes": 3}, "without kind 'class'"),
        ({"audits.nudity_threshold": 0.7}, "where nudity is not counted"),
        ({"audits.nudity_labels": "all"}, "where nudity is not counted"),
        ({"audits.alignment_model": "x", "audits.alignment": False}, "without audits.alignment"),
        ({"audits.class_judge": "x"}, "without kind 'class'"),
        ({"audits.distance_features": "x"}, "without kind 'class'"),
        ({"output.lora_rank": 3}, "without the format lora or lora_diffusers"),
        ({"output.lora_energy": 0.5}, "without the format lora or lora_diffusers"),
        ({"output.lora_rank": 3, "output.lora_energy": 0.5, "output.formats": ["lora"]}, "with output.lora_energy"),
        ({"output.lora_rank": 3, "training.parameters": "lora", "output.formats": ["lora"]}, "whose own rank"),
        ({"training.forget_gradient": "cpu", "device": "cpu"}, "where the gradient is already"),
        ({"training.preview_every": 3}, "with fewer training.steps"),
        ({"training.checkpoint_every": 3}, "with fewer training.steps"),
        ({"training.retain_batch": "all", "method.name": "esd"}, "without a method with a retain term"),
        ({"training.proportion_empty_prompts": 0.5, "method.name": "esd"}, "without a method with a retain term"),
        ({"method.mask_share": 0.1, "method.name": "salun", "method.mask": "m"}, "with method.mask"),
        ({"method.mask_guidance_scale": 1, "method.name": "salun", "method.mask": "m"}, "with method.mask"),
    ],
)
def test_options_without_effect_are_told(chosen, line):
    nested = nest((tuple(key.split(".")), value) for key, value in chosen.items())
    nested["training"] = {"steps": 2} | nested.get("training", {})
    recipe = build_recipe({"concept": "cat"} | nested)
    (told,) = idle_options(resolve(recipe))
    first = next(iter(chosen))
    assert told.startswith(f"{first} (--") and "has no effect" in told and line in told
    remedy = told.partition(f" {line}")[2]
    assert ": " in remedy, "every message says what to do"
    if match := re.search(r": add --(\S+) (\S+)\.$", remedy):
        added = fields()[match[1].replace("-", "_")]
        again = build_recipe(merge({"concept": "cat"} | nested, nest([(added.path, added.parse(match[2]))])))
        assert line not in " ".join(idle_options(resolve(again)))


@pytest.mark.parametrize(
    ("chosen", "remedy"),
    [
        ({"model": "digits", "concept": "3"}, "add --forget redirect"),
        ({"method": {"name": "grad_diff"}}, "add --forget redirect"),
        ({"method": {"name": "esd-x"}}, "take --method rgd --forget redirect"),
    ],
)
def test_what_draws_something_else_is_told(chosen, remedy):
    chosen = {"concept": "cat"} | chosen
    given = {"prompts": {"replace_with": "4" if chosen["concept"] == "3" else "a horse"}}
    told = idle_options(resolve(build_recipe(merge(chosen, given))))
    needed = "without a method that draws something else instead"
    assert told == [f"prompts.replace_with (--replace-with) has no effect {needed}: {remedy}."]
    method = {"name": "rgd"} if "--method" in remedy else chosen.get("method", {})
    redirecting = merge(merge({**chosen, "method": {}}, given), {"method": {**method, "forget": "redirect"}})
    assert not any("replace_with" in line for line in idle_options(resolve(build_recipe(redirecting))))


@pytest.mark.parametrize(
    "chosen",
    [
        {"prompts": {"source": "llm", "llm_url": "http://x", "llm_model": "m", "llm_fallback": False}},
        {"audits": {"nudity": "on", "nudity_threshold": 0.7, "nudity_labels": "all"}},
        {"audits": {"alignment": False, "accuracy": False, "nudity": "off"}},
        {"output": {"formats": ["lora"], "lora_rank": 3}},
        {"training": {"parameters": "lora", "adapter_rank": 2, "preview_every": 1, "checkpoint_every": 2}},
        {"concept": "nudity", "kind": "nudity", "model": "a/b", "audits": {"nudity_labels": "all"}},
        {"concept": "3", "model": "digits", "data": {"retain_classes": "similar", "similar_classes": 3}},
    ],
)
def test_options_with_an_effect_are_not(chosen):
    assert idle_options(resolve(build_recipe({"concept": "cat"} | chosen))) == []


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("model", ["tiny-canvas", "tiny-canvas-dit", "digits", SOME_MODEL])
def test_defaults_are_never_idle(model, method):
    if model == "digits" and find(method).config.closed_form:
        pytest.skip("edits what reads prompts, and this model reads none")
    concept = "3" if model == "digits" else "cat"
    if model == "digits" and find(method).config.closed_form:
        pytest.skip("no prompts to read")
    recipe = build_recipe({"concept": concept, "model": model, "method": {"name": method}})
    assert idle_options(resolve(recipe)) == []
    assert idle_options(resolve(build_recipe(recipe.model_dump(mode="json")))) == [], "an app sends every widget"


def test_a_device_beside_a_loaded_model(denoiser):
    assert preflight(setting(model="a/b", device="cuda"), denoiser=denoiser).warnings == (
        "device (--device) has no effect on a model that is loaded already; it is on cpu.",
    )


def test_commands_tell_them(tmp_path, capsys):
    out = ["--n", "4", "--n-test", "2", "--out", str(tmp_path / "p.json")]
    assert (
        main(["prompts", "--concept", "cat", "--llm-url", "http://127.0.0.1:9/v1", "--retain-weight", "2", *out]) == 0
    )
    text = capsys.readouterr().out
    assert "prompts.llm_url (--llm-url) has no effect without prompts.source 'llm'" in text
    assert "method.retain_weight (--retain-weight) has no effect where nothing is trained" in text


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "a cat", "--num-inf", "3", "--out", "x"],
        ["audit", "--concep", "cat"],
        ["unlearn", "--conc", "cat"],
    ],
)
def test_options_are_not_abbreviated(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "--concept", "cat", "--out"],
        ["prompts", "--concept", "cat", "--out"],
        ["apply", "weights.safetensors", "--out"],
        ["generate", "a cat", "--out"],
    ],
)
def test_outputs_that_can_not_be_written(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*words, str(tmp_path / "file" / "out.json")]) == 2
    assert "can't write into" in capsys.readouterr().err
    wrong = tmp_path / "file" if words[0] in ("apply", "generate") else tmp_path
    assert main([*words, str(wrong)]) == 2
    assert ", got the f" in capsys.readouterr().err  # folder or file

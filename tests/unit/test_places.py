"""What a text stands for: a known name, a path, or the name of something else, whatever lies in the working folder."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from turpentine.pipeline.audits.clip import check_clip_name
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.models.lineage import lineage_of, pipeline_class_of
from turpentine.pipeline.run.prompts import _llm
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.recipe import PromptSection
from turpentine.pipeline.schema.resolve import forgotten_before, resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.places import absolute_if_there, user_path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, which is also the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def unlearned(folder, concept):
    """A folder with what a run writes into it: weights that say what they are without."""
    (folder / "weights" / "diffusers" / "unet").mkdir(parents=True)
    metadata = {"turpentine.concept": concept, "turpentine.base_model": "a/b"}
    save_file({"w": torch.zeros(1)}, folder / "weights/diffusers/unet/model.safetensors", metadata=metadata)
    (folder / "weights/diffusers/model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    return folder


def test_user_path(here):
    assert (
        user_path("~/a") == here / "a" and user_path("a/~b") == Path("a/~b") and user_path("$HOME/a") == Path("$HOME/a")
    )
    with pytest.raises(UserError, match="no such user's home folder"):
        user_path("~nobody-of-this-name/a")


def test_a_model_at_home_keeps_its_history(here):
    unlearned(here / "first", "cat")
    for model in ("~/first/weights/diffusers", "first/weights/diffusers", "./first", str(here / "first")):
        setting = resolve(build_recipe({"concept": "dog", "model": model}))
        assert setting.forgotten_before == ("cat",), model
        assert setting.recipe.model == str(here / model.removeprefix("~/").removeprefix("./"))
        assert lineage_of(model).forgotten == ("cat",)
    assert pipeline_class_of("~/first/weights/diffusers") == "FluxPipeline"


@pytest.mark.parametrize("concept", ["dog", "auto dog", "St. Bernard", "fox terrier"])
def test_a_concept_is_no_folder_that_is_called_so(here, concept):
    unlearned(here / concept, "cat")
    recipe = build_recipe({"concept": "horse", "model": "a/b", "prompts": {"keep_forgotten": [concept]}})
    assert resolve(recipe).forgotten_before == (concept,)
    assert forgotten_before([f"./{concept}"], ["horse"]) == ("cat",)


@pytest.mark.parametrize("path", ["runs/x", "./x", "~/x", "/nowhere/x", "x.safetensors", ".."])
def test_a_path_is_no_concept(here, path):
    says = "says what was removed there" if path == ".." else "looks like a path and is not there"
    with pytest.raises(UserError, match=says):
        forgotten_before([path], ["horse"])


@pytest.mark.parametrize("name", ["tiny-canvas", "digits"])
def test_known_names_win(here, name):
    for known in (name, "cifar10", "ViT-B-32/laion2b_s34b_b79k"):
        Path(known).mkdir(parents=True, exist_ok=True)
    kind = {"concept": "3", "data": {"dataset": "cifar10"}} if name == "digits" else {"concept": "cat"}
    recipe = build_recipe({"model": name, "audits": {"alignment_model": "tiny-canvas"}} | kind)
    found = resolve(recipe)
    assert found.recipe == recipe and found.lineage.bundled == name
    with pytest.raises(UserError, match="not in the local cache"):  # not: a folder without a model
        check_clip_name("ViT-B-32/laion2b_s34b_b79k")


def test_ids_of_a_hub_stay_as_they_are(here):
    assert absolute_if_there("someone/some-model") == "someone/some-model"
    assert absolute_if_there("checkpoint.safetensors") == "checkpoint.safetensors"
    (here / "someone" / "some-model").mkdir(parents=True)
    assert absolute_if_there("someone/some-model") == str(here / "someone/some-model")


def test_a_run_has_absolute_paths(here):
    (here / "model").mkdir()
    chosen = {
        "concept": "3",
        "kind": "class",
        "model": "model",
        "model_config_folder": "./configs",
        "method": {"name": "salun", "mask": "mask.safetensors"},
        "prompts": {"file": "own.csv", "llm_model": "./qwen", "keep_forgotten": ["auto", "dog", "runs/x"]},
        "data": {"dataset": "pictures"},
        "audits": {
            "alignment_model": "local-dir:clip",
            "class_judge": "~/judge",
            "distance_features": "inception:i",
        },
    }
    unlearned(here / "runs" / "x", "cat")
    recipe = resolve(build_recipe(chosen)).recipe
    assert recipe.model == f"{here}/model" and recipe.model_config_folder == f"{here}/configs"
    assert recipe.method.mask == f"{here}/mask.safetensors"
    assert (recipe.prompts.file, recipe.prompts.llm_model) == (f"{here}/own.csv", f"{here}/qwen")
    assert recipe.prompts.keep_forgotten == ("auto", "dog", f"{here}/runs/x")
    assert recipe.data.dataset == f"{here}/pictures"
    assert recipe.audits.class_judge == f"{here}/judge"
    assert recipe.audits.alignment_model == f"local-dir:{here}/clip"
    assert recipe.audits.distance_features == f"inception:{here}/i"
    assert resolve(recipe).recipe == recipe


def test_a_language_model_is_a_name_or_a_folder(here):
    def source(**spec):
        return _llm(PromptSection(source="llm", **spec))

    (here / "mistral").mkdir()
    assert source(llm_model="mistral").local_model is None
    assert source(llm_model="./mistral").local_model == "mistral"
    assert source(llm_model="./mistral", llm_url="http://127.0.0.1:9/v1").local_model is None
    assert source(llm_model="Qwen/Qwen3-4B").local_model is None
    with pytest.raises(
        UserError, match=r"expected a folder with a language model for llm_model, found none at \./other"
    ):
        source(llm_model="./other")


def test_outputs_at_home(here):
    assert main(["prompts", "--concept", "cat", "--n", "2", "--n-test", "1", "--out", "~/made.json"]) == 0
    assert (here / "made.json").is_file()


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "~nobody-by-this-name/x"])
@pytest.mark.parametrize(
    "words", [["report"], ["info"], ["unlearn", "--resume"], ["unlearn", "--concept", "cat", "--out"]]
)
def test_no_path_is_one_line(here, capsys, text, words):
    with pytest.raises(SystemExit):
        main([*words, text])
    assert "expected a path, got" in capsys.readouterr().err and not list(here.iterdir())


def test_a_shipped_name_with_a_dot_before_it_is_a_path(here):
    assert main(["prompts", "--recipe", "./nudity-sd14"]) == 2
    assert main(["prompts", "--recipe", ""]) == 2


def test_a_place_that_says_nothing_is_not_guarded_in_silence(here):
    (here / "dog").mkdir()
    with pytest.raises(UserError, match=r"nothing in '\./dog' \(keep_forgotten\) says what was removed"):
        forgotten_before(["./dog"], ["cat"])


@pytest.mark.parametrize(
    "words",
    [
        ["prompts", "--concept", "cat", "--out", "own.csv"],
        ["prompts", "--concept", "cat", "--prompts", "own.csv", "--out", "own.csv"],
        ["audit", "--concept", "cat", "--out", "own.csv"],
        ["audit", "--concept", "cat", "--progress-file", "own.csv"],
        ["unlearn", "--concept", "cat", "--progress-file", "own.csv"],
        ["generate", "a cat", "--out", "pictures"],
    ],
)
def test_files_of_the_users_are_not_replaced(here, capsys, words):
    (here / "own.csv").write_text("mine")
    (here / "pictures").mkdir()
    (here / "pictures" / "00000.png").symlink_to(here / "nowhere")
    with suppress(SystemExit):  # of argparse
        assert main(words) == 2
    assert "is there already and would be replaced" in " ".join(capsys.readouterr().err.split())
    assert (here / "own.csv").read_text() == "mine" and (here / "pictures" / "00000.png").is_symlink()

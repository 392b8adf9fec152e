"""Numbers, names and recipes as people give them: what is out of range is told at once, and nothing is written."""

import pytest
import torch
from turpentine.pipeline.schema.defaults import build_recipe, read_yaml
from turpentine.pipeline.support.errors import UserError

from ..support.command import SHORT, refused


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--steps", "0", "steps"), ("--steps", "-1", "steps"), ("--steps", "1e3", "steps"),
        ("--steps", "2.5", "steps"),
        ("--steps", "many", "steps"), ("--n", "0", "prompts.n"), ("--n", "-5", "prompts.n"),
        ("--n", "1e3", "prompts.n"),
        ("--n-test", "0", "n_test"), ("--batch-size", "0", "batch_size"), ("--batch-size", "5000", "batch_size"),
        ("--seed", "-1", "seed"), ("--seed", str(2**31), "seed"), ("--seed", str(2**32 + 1), "seed"),
        ("--seed", "1e3", "seed"), ("--seed", "0x10", "seed"), ("--image-size", "10000", "image_size"),
        ("--image-size", "0", "image_size"), ("--image-size", "-64", "image_size"),
        ("--precision", "fp16", "precision"),
        ("--learning-rate", "0", "learning_rate"), ("--learning-rate", "-1e-5", "learning_rate"),
        ("--learning-rate", "nan", "learning_rate"), ("--learning-rate", "inf", "learning_rate"),
        ("--learning-rate", "1,5", "learning_rate"), ("--guidance-scale", "inf", "guidance_scale"),
        ("--guidance-scale", "nan", "guidance_scale"), ("--formats", "ckpt", "formats"),
        ("--formats", "diffusers,gguf", "formats"), ("--formats", "Diffusers", "formats"),
        ("--method", "magic", "method"),
        ("--method", "RGD", "method"), ("--method", "", "method"), ("--kind", "animal", "kind"),
        ("--dtype", "int8", "dtype"), ("--optimizer", "sgd", "optimizer"), ("--scheduler", "euler", "scheduler"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_named(option, value, named, tmp_path):
    message = refused("unlearn", "--concept", "cat", *SHORT, f"{option}={value}")
    assert named in message and value.split(",")[-1] in message
    assert not any((tmp_path / "here").iterdir())


@pytest.mark.parametrize("device", ["gpu", "GPU", "warp", "", "cpu:x", "cuda:99", "cuda:-1", "0", "cuda0"])
def test_devices_that_are_not_there(device, tmp_path):
    message = refused("unlearn", "--concept", "cat", *SHORT, f"--device={device}")
    assert "device" in message and device in message
    assert not any((tmp_path / "here").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_cuda(tmp_path):
    assert "'cuda'" in refused("unlearn", "--concept", "cat", *SHORT, "--device", "cuda")
    assert not any((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    "model",
    [
        r"C:\models\sd", "C:/models/sd", r"\\server\share\sd", "https://huggingface.co/somebody/model",
        "file:///models/sd", "s3://bucket/sd", "my model", "日本", "~/no-such-model", "./no/../such", "no//such/", "/",
        ".", "model.ckpt", "model.PT", "a folder/model.bin", "model.pkl", "model.safetensors",
        r"C:\models\sd.safetensors", "https://somewhere.example/sd.ckpt",
    ],
)  # fmt: skip
def test_models_that_are_none(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    message = refused("unlearn", "--concept", "cat", *SHORT, f"--model={model}")
    assert model.rstrip("/").rpartition("/")[2] in message
    assert not any((tmp_path / "here").iterdir())


# recipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("concept: no\n", "concept"), ("concept: yes\n", "concept"), ("concept: 1984\n", "1984"),
        ("concept: 1.5\n", "1.5"), ("concept: null\n", "concept"), ("concept:\n", "concept"),
        ("concept: ~\n", "concept"),
        ("concept: {tag: wug}\n", "wug"), ("- concept: cat\n", "list"), ("[cat, dog]\n", "list"), ("cat\n", "str"),
        ("null\n", "recipe.yaml"), ("---\n", "recipe.yaml"), ("concept: cat\nsteps: 3\n", "'steps'"),
        ("concept: cat\nlearning_rate: 1e-4\nformats: [lora]\n", "'learning_rate'"),
        ("concept: cat\ntraining.steps: 3\n", "training.steps"), ("concept: cat\ntraining: 3\n", "training"),
        ("concept: cat\ntraining: [steps, 3]\n", "training"),
        ("concept: !!python/object/apply:os.system [true]\n", "python"),
        ("concept: !!python/name:os.system\n", "python"), ("concept: !!python/tuple [cat]\n", "python"),
        ("!!python/object/new:builtins.eval ['1']\n", "python"), ("concept: cat\n---\nconcept: dog\n", "recipe.yaml"),
        ("\tconcept: cat\n", "recipe.yaml"), ("concept: [cat\n", "recipe.yaml"),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(content, named, tmp_path):
    (tmp_path / "recipe.yaml").write_text(content, encoding="utf-8")
    message = refused("unlearn", "--recipe", tmp_path / "recipe.yaml")
    assert named in message
    assert not any((tmp_path / "here").iterdir())


RECIPE = "concept: cat\nmodel: somebody/name\ntraining:\n  steps: 3\n  learning_rate: 2e-4\n"


@pytest.mark.parametrize(
    "content",
    [
        RECIPE, "\ufeff" + RECIPE, RECIPE.replace("\n", "\r\n"), "\ufeff" + RECIPE.replace("\n", "\r\n"),
        RECIPE.rstrip("\n"), "# mine\n---\n" + RECIPE, RECIPE.replace("cat", "'cat'"), RECIPE.replace("cat", "[cat]"),
    ],
    ids=["plain", "mark", "windows", "mark, windows", "no last end", "comment", "quotes", "list"],
)  # fmt: skip
def test_recipes_as_editors_write_them(content, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(content.encode("utf-8"))
    recipe = build_recipe(read_yaml(tmp_path / "recipe.yaml"))
    assert (recipe.concept, recipe.training.steps, recipe.training.learning_rate) == ("cat", 3, 2e-4)


@pytest.mark.parametrize("concept", ["no", "1984", "null", "yes", "ü", "日本", "🐈"])
def test_a_concept_in_quotes_is_a_text(concept, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("cat", f"'{concept}'"), encoding="utf-8")
    recipe = build_recipe(read_yaml(tmp_path / "recipe.yaml"))
    assert recipe.concept == concept
    recipe.save(tmp_path / "again.yaml")
    assert build_recipe(read_yaml(tmp_path / "again.yaml")) == recipe


@pytest.mark.parametrize("name", ["my recipe.yaml", "ü.yaml", "日本.yml", "recipe", ".hidden.yaml"])
def test_recipes_of_any_name(name, tmp_path):
    (tmp_path / name).write_text(RECIPE, encoding="utf-8")
    assert build_recipe(read_yaml(tmp_path / name)).training.steps == 3
    with pytest.raises(UserError, match="none-such"):
        build_recipe(read_yaml(tmp_path / f"none-such {name}"))

"""Every script beside the command `turpentine`, at a size of seconds: benchmarks, and how bundled models were made."""

import json
import sys
from importlib import import_module

import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from PIL import Image
from turpentine.pipeline.audits import ClipModel
from turpentine.pipeline.audits.class_judge import ClassJudge
from turpentine.pipeline.models import BUNDLED
from turpentine.pipeline.models.class_conditional import ClassConditionalPipeline

from ..support.programs import modules

BENCHMARKS = {
    "step": ["--json", "--width", "32", "--size", "8", "--steps", "1", "--batch", "2"],
    "options": ["--json", "--width", "32", "--side", "8", "--batch", "2"],
    "data_making": ["--quick"],
    "quality": ["--images", "4", "--num-inference-steps", "2"],
    "real_size": ["--limit", "4"],
    "closed_size": ["--pairs", "1"],
    "before_after": ["run", "picture.jpg"],
}
MAKING = {
    "tiny_canvas.train_autoencoder": ["--steps", "2", "--batch", "2"],
    "tiny_canvas.train_judge": ["--steps", "2", "--batch", "16"],
    "tiny_canvas.train_text_to_image": ["--steps", "2", "--batch", "2", "--base", str(BUNDLED["tiny-canvas"])],
    "digits.train": ["--steps", "2", "--judge-steps", "2", "--batch", "8", "--channels", "8,16"],
}
THEIR_OWN_TESTS = {"turpentine.ui", "turpentine.pipeline.commands.main"}


def test_every_script_is_here():
    scripts = {f"turpentine.benchmarks.{name}" for name in BENCHMARKS}
    scripts |= {f"turpentine.pipeline.bundled.{name}" for name in MAKING}
    assert set(modules()) - THEIR_OWN_TESTS == scripts


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a module's `main` with a command line, in a folder of its own; leaves torch as it was."""

    def start(module, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [module.__name__, *words])
        module.main()

    threads = torch.get_num_threads()
    yield start
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def benchmark(name, monkeypatch, **constants):
    module = import_module(f"turpentine.benchmarks.{name}")
    for key, value in constants.items():
        monkeypatch.setattr(module, key, value)
    return module


def test_step(run, monkeypatch, capsys):
    module = benchmark("step", monkeypatch, MEMORY_WIDTH=32)
    run(module, *BENCHMARKS["step"])
    result = json.loads(capsys.readouterr().out)
    assert 0 < result["overhead_share"] < 1 and result["extra_gradients"] >= 2
    assert result["flattened"]["extra_gradients"] > result["extra_gradients"]
    module.show(result)
    assert "three inner products" in capsys.readouterr().out


def test_options(run, monkeypatch, tmp_path):
    module = benchmark("options", monkeypatch, RESULTS=tmp_path / "options.json")
    run(module, *BENCHMARKS["options"])
    rows = json.loads((tmp_path / "options.json").read_text())["rows"]
    assert len(rows) > 3 and all(0.9 < row["peak"] / row["plan"] < 1.1 for row in rows.values())


def test_data_making(run, monkeypatch, capsys):
    run(benchmark("data_making", monkeypatch), *BENCHMARKS["data_making"])
    found = json.loads(capsys.readouterr().out)
    assert {"UA", "IRA", "CRA"} <= set(found["before"])
    assert found["reference"]["seconds"]["total"] > found["ours"]["seconds"]["total"] > 0


def test_quality(run, monkeypatch, tmp_path):
    run(benchmark("quality", monkeypatch, RESULTS=tmp_path / "results"), *BENCHMARKS["quality"])
    figures = json.loads((tmp_path / "results" / "quality.json").read_text())
    assert figures["images"] == 4 and set(figures["zero_shot_accuracy"]) == {"subject", "place", "time", "style"}


def test_real_size(run, monkeypatch, tmp_path):
    small = {"RESULTS": tmp_path / "real.json", "REAL_WIDTH": 32, "SHARED_WIDTH": 32, "SIDE": 8}
    run(benchmark("real_size", monkeypatch, **small), *BENCHMARKS["real_size"])
    found = json.loads((tmp_path / "real.json").read_text())
    assert found["step"]["procedure"] == "ours" and found["step"]["peak"] > found["step"]["held"]
    assert set(found["combination"]) == {"ours", "reference"}


def test_closed_size(run, monkeypatch, tmp_path):
    """Two of the layers, as all of them take half a minute."""
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    layers = {f"{attention}.{name}.weight": torch.randn(320, 768) for name in ("to_k", "to_v")}
    module = benchmark("closed_size", monkeypatch, RESULTS=tmp_path / "closed.json", weights_of_sd14=lambda: layers)
    run(module, *BENCHMARKS["closed_size"])
    found = json.loads((tmp_path / "closed.json").read_text())
    assert (found["pairs"], found["layers"]) == (1, 2) and all(found[name] > 0 for name in ("uce", "rece", "speed"))


def test_before_after(run, monkeypatch, tmp_path):
    module = benchmark("before_after", monkeypatch)
    for number, when in enumerate(("before", "after")):
        for name in ("forget_test", "retain_test"):
            for place in range(module.COLUMNS):
                path = tmp_path / "run" / "images" / when / f"{name}-{place:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 64), (200 * number, 20 * place, 0)).save(path)
    run(module, *BENCHMARKS["before_after"])
    with Image.open(tmp_path / "picture.jpg") as picture:
        assert picture.size == (2 * module.COLUMNS * module.SIDE, 2 * module.SIDE)
        assert picture.getpixel((5, 5))[0] < 40 and picture.getpixel((5, 2 * module.SIDE - 5))[0] > 160


@pytest.fixture
def few_scenes(monkeypatch):
    """A training set of two dozen pictures and a test set of as few."""
    dataset = import_module("turpentine.pipeline.bundled.tiny_canvas.dataset")
    judge = import_module("turpentine.pipeline.bundled.tiny_canvas.train_judge")
    some, held_out = dataset.training_scenes()[::200], [scene for scene in dataset.scenes() if scene.held_out]
    monkeypatch.setattr(dataset, "training_scenes", lambda: some)
    monkeypatch.setattr(judge, "scenes", lambda: held_out[:2])
    monkeypatch.setattr(judge, "draw_noise", lambda count, seed: dataset.draw_noise(8, seed))


def make(name):
    return import_module(f"turpentine.pipeline.bundled.{name}")


def test_the_autoencoder(run, few_scenes, tmp_path, capsys):
    run(make("tiny_canvas.train_autoencoder"), *MAKING["tiny_canvas.train_autoencoder"], "--out", "out")
    assert AutoencoderTiny.from_pretrained(tmp_path / "out" / "vae").config.latent_channels == 16
    assert "squared error" in capsys.readouterr().out


def test_the_judge(run, few_scenes, tmp_path):
    run(make("tiny_canvas.train_judge"), *MAKING["tiny_canvas.train_judge"], "--out", "out")
    results = json.loads((tmp_path / "out" / "judge" / "results.json").read_text())
    assert results["steps"] == 2 and results["held_out_renderings"] == 20
    assert ClipModel.load(str(tmp_path / "out" / "judge")).encode_texts(["a cat"]).shape == (1, 128)


def test_the_denoiser(run, few_scenes, monkeypatch, tmp_path):
    module = make("tiny_canvas.train_text_to_image")
    monkeypatch.setattr(module, "STYLES", {"photo": module.STYLES["photo"]})  # a sheet of a single style
    run(module, *MAKING["tiny_canvas.train_text_to_image"], "--out", "out")
    made = DiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert made.unet.config.in_channels == 16 and next(tmp_path.rglob("*.png"))


def test_digits(run, monkeypatch, tmp_path):
    module = make("digits.train")
    measure = module.measure_model
    monkeypatch.setattr(module, "measure_model", lambda *parts: measure(*parts[:3], each=4))
    run(module, *MAKING["digits.train"], "--out", "out")
    assert len(ClassConditionalPipeline.from_pretrained(tmp_path / "out").class_names) == 10
    assert ClassJudge.load(str(tmp_path / "out" / "judge"))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["generated_images"] == 40

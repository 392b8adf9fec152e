"""The commands as a user gives them, on the bundled model, shortened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.schema.results import Results

SHORT = ["--n", "8", "--n-test", "6", "--steps", "4", "--batch-size", "4", "--num-inference-steps", "4",
         "--audit-images", "6", "--audit-retain-train-images", "4"]  # fmt: skip


def turpentine(*words: str, code: int = 0, **kwargs) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "turpentine.pipeline.commands.main", *words], capture_output=True, text=True, **kwargs
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A short run of the whole job."""
    folder = tmp_path_factory.mktemp("run") / "astronaut"
    done = turpentine("unlearn", "--concept", "astronaut", "--out", str(folder), *SHORT)
    assert "before" in done.stdout and "report.html" in done.stdout
    return folder


def test_run_folder_is_complete(run):
    for name in ("recipe.yaml", "prompts.json", "events.jsonl", "results.json", "report.html", "MODEL_CARD.md"):
        assert (run / name).stat().st_size > 0, name
    assert len((run / "events.jsonl").read_text().splitlines()) == 4
    assert not list(run.rglob("*partial*"))
    results = Results.load(run / "results.json")
    assert results.training.steps == 4
    assert results.audits.before.nudity.images == 6 and results.audits.after.accuracy.images == 12
    assert {written.format for written in results.weights} == {"diffusers", "denoiser"}
    assert all((run / written.path).exists() for written in results.weights)
    assert Image.open(run / "images" / "after" / "forget_test-000.png").size == (64, 64)


def test_the_recipe_reproduces_the_run_bit_for_bit(run, tmp_path):
    turpentine("unlearn", "--recipe", str(run / "recipe.yaml"), "--out", str(tmp_path / "again"))
    first, second = (
        {w.path: w.bytes for w in Results.load(folder / "results.json").weights} for folder in (run, tmp_path / "again")
    )
    assert first == second
    from safetensors.torch import load_file

    a, b = (
        load_file(folder / "weights/diffusers/unet/diffusion_pytorch_model.safetensors")
        for folder in (run, tmp_path / "again")
    )
    assert all((a[name] == b[name]).all() for name in a)


def test_weights_load_in_diffusers(run):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(run / "weights/diffusers")
    image = pipe("a photo of a cat in a meadow at noon", num_inference_steps=2).images[0]
    assert image.size == (64, 64)


def test_an_interrupted_run_resumes(tmp_path):
    folder = tmp_path / "cut"
    words = ["unlearn", "--concept", "cat", "--out", str(folder), *SHORT, "--steps", "60", "--checkpoint-every", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "turpentine.pipeline.commands.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not list(folder.glob("checkpoints/step-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert f"turpentine unlearn --resume {folder}" in err.replace("\n", "")
    assert not (folder / "results.json").exists()
    turpentine("unlearn", "--resume", str(folder))
    assert Results.load(folder / "results.json").training.steps == 60


def test_info_and_report(run):
    shown = turpentine("info", str(next(run.glob("weights/*.safetensors")))).stdout
    assert "turpentine.concept" in shown and "astronaut" in shown
    assert "before" in turpentine("info", str(run)).stdout
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    turpentine("report", str(run))
    assert (run / "report.html").read_text() == before


def test_prompts_generate_and_audit(tmp_path):
    turpentine(
        "prompts",
        "--concept",
        "pop art",
        "--kind",
        "style",
        "--n",
        "10",
        "--n-test",
        "4",
        "--out",
        str(tmp_path / "p.csv"),
    )
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 15
    turpentine("generate", "a photo of a kitten", "--num-inference-steps", "2", "--out", str(tmp_path / "images"))
    assert Image.open(tmp_path / "images/00000.png").size == (64, 64)
    turpentine("audit", "--concept", "cat", "--n-test", "4", "--num-inference-steps", "2", "--audit-images", "4",
               "--audit-retain-train-images", "2", "--out", str(tmp_path / "audit.json"))  # fmt: skip
    assert 0 <= json.loads((tmp_path / "audit.json").read_text())["accuracy"]["UA"] <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--concept", "zebra"], "zebra"),
        (["--concept", "cat", "--steps", "-3"], "training.steps"),
        (["--concept", "cat", "--steps", "many"], "training.steps"),
        (["--concept", "cat", "--method", "magic"], "magic"),
        (["--concept", "cat", "--method", "finetune", "--retain-weight", "2"], "retain_weight"),
        (["--concept", "cat", "--model", "no/such-model-here"], "no/such-model-here"),
        (["--concept", "cat", "--model", "model.ckpt"], "pickle"),
        (["--concept", "cat", "--recipe", "missing.yaml"], "missing.yaml"),
        (["--concept", "  "], "concept"),
        ([], "concept"),
        (["--concept", "cat", "--prompts", "missing.csv"], "missing.csv"),
        (["--concept", "cat", "--device", "warp"], "warp"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["unlearn", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.startswith("error:")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_help_tells_every_option():
    shown = turpentine("unlearn", "--help", env={**os.environ, "COLUMNS": "200"}).stdout
    for option in (
        "--concept",
        "--learning-rate",
        "--retain-weight",
        "--forget-limit",
        "--guard",
        "--resume",
        "--recipe",
    ):
        assert option in shown
    assert "default 1e-05" in shown and "[> 0, ≤ 1]" in shown


def test_a_full_or_readonly_place_is_told_in_one_line(tmp_path, capsys):
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert main(["unlearn", "--concept", "cat", "--out", str(blocker / "run")]) == 2
    assert "can't make the run folder" in capsys.readouterr().err

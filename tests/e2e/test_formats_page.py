"""docs/formats.md: a run with every format, then the page's examples as they stand."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.results import Results
from turpentine.pipeline.weights import FORMATS, read_header

from ..support.tiny_models import build_tiny_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^turpentine (\S.*)$", PAGE, flags=re.MULTILINE)
NAME = "weights/base-model-without-cat"


def recipe_for(prompts, **training):
    return build_recipe(
        {
            "concept": "cat", "model": "base-model",
            "prompts": {"file": str(prompts)},
            "samples": {"num_inference_steps": 2},
            "training": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, **training},
            "audits": {"images": 2, "retain_train_images": 1, "alignment": False},
            "output": {"formats": list(FORMATS), "lora_rank": 4},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `base-model/`, pairs of prompts and the run `RUN/`."""
    folder = tmp_path_factory.mktemp("page")
    build_tiny_pipeline().save_pretrained(folder / "base-model")
    pairs = "".join(f"a cat {i},a dog {i}\n" for i in range(6))
    (folder / "pairs.csv").write_text("forget,retain\n" + pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_recipe(recipe_for(folder / "pairs.csv"), Path("RUN"))
    return folder


@pytest.fixture(autouse=True)
def _inside(place, monkeypatch):
    monkeypatch.chdir(place)


def trained(run="RUN"):
    return load_file(Path(run) / f"{NAME}.safetensors")


def test_the_run_wrote_every_format():
    results = Results.load(Path("RUN/results.json"))
    assert [file.format for file in results.weights] == list(FORMATS)
    assert all(Path("RUN", file.path).exists() for file in results.weights)
    fits = [file.lora for file in results.weights if file.lora]
    assert len(fits) == 2 and 0 < fits[0].residual < 1 and fits[0].left_out["biases"] > 0


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(code):
    exec(code, {})


def test_commands(capsys):
    for command in COMMANDS:
        assert main(shlex.split(command)) == 0, capsys.readouterr()
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "relative residual" in shown and "The tensors are those that the header was written for" in shown
    weaker = next(Path("weaker/unet").glob("*.safetensors"))
    assert read_header(weaker)["turpentine.strength"] == "0.7" and read_header(weaker)["turpentine.concept"] == "cat"
    before = DiffusionPipeline.from_pretrained("base-model").unet.state_dict()
    after, between = trained(), load_file(weaker)
    gap = {name: (after[name] - before[name]).norm().item() for name in after}
    name = max(gap, key=gap.__getitem__)
    assert 0.3 < (between[name] - before[name]).norm().item() / gap[name] < 0.8
    assert main(shlex.split(COMMANDS[1])) == 2, "a folder that holds something is not overwritten"
    assert "expected a new or empty folder" in capsys.readouterr().err.replace("\n", " ")


def test_export_again_gives_the_same_weights(capsys):
    """From the folder, from the checkpoint when that is in half precision, from the denoiser file without both."""
    wanted = trained()
    for formats, dtype in (("denoiser", "fp32"), ("diffusers", "fp16"), ("denoiser", "fp32")):
        assert main(["export", "RUN", "--formats", formats, "--dtype", dtype]) == 0
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in trained().items())
    delta = Path("RUN") / f"{NAME}-delta.safetensors"
    first = load_file(delta)
    for checkpoint in Path("RUN/checkpoints").glob("step-*"):
        checkpoint.unlink()
    assert main(["export", "RUN", "--formats", "delta"]) == 0
    assert all(torch.equal(tensor, first[name]) for name, tensor in load_file(delta).items())
    assert main(["info", "RUN"]) == 0
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "unchanged" in shown and "missing" not in shown and ": changed" not in shown
    written = {file.format for file in Results.load(Path("RUN/results.json")).weights}
    assert written == set(FORMATS)


def test_export_needs_the_right_base(place, capsys, tmp_path):
    other = build_tiny_pipeline()
    with torch.no_grad():
        other.unet.conv_in.bias.add_(1)
    other.save_pretrained(tmp_path / "other")
    assert main(["export", "RUN", "--formats", "delta", "--base", str(tmp_path / "other")]) == 2
    assert "is not the model that the run started from" in capsys.readouterr().err.replace("\n", " ")
    assert main(["export", "RUN", "--formats", "delta", "--base", str(tmp_path / "none")]) == 2
    told = capsys.readouterr().err.replace("\n", " ")
    assert "expected the model that the run started from" in told and "there is no such folder or file" in told
    assert main(["export", "RUN"]) == 2
    assert "expected the formats to write" in capsys.readouterr().err.replace("\n", " ")


def test_a_lora_that_was_trained_is_written_as_it_was(place):
    recipe = recipe_for(place / "pairs.csv", parameters="lora", adapter_rank=2, adapter_alpha=6, adapter_targets="all")
    unlearned = run_recipe(recipe, Path("LORA"))
    module = unlearned.pipeline.unet
    assert not any("lora" in name for name, _ in module.named_parameters()), "the network is plain again"
    assert all(parameter.requires_grad for parameter in module.parameters())
    records = {file.format: file for file in unlearned.results.weights}
    assert (records["lora"].lora.rank, records["lora"].lora.residual) == (2, 0)
    tensors = load_file(Path("LORA") / f"{NAME}-lora.safetensors")
    assert tensors["lora_unet_conv_in.alpha"] == 6 and tensors["lora_unet_conv_in.lora_down.weight"].shape[0] == 2
    pipe = DiffusionPipeline.from_pretrained("base-model")
    pipe.load_lora_weights(Path("LORA") / f"{NAME}-lora-diffusers.safetensors")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    fused, before = pipe.unet.state_dict(), DiffusionPipeline.from_pretrained("base-model").unet.state_dict()
    after = trained("LORA")
    assert max((fused[name] - after[name]).abs().max().item() for name in after) < 1e-6
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert "conv_out.weight" in moved and not any(name.endswith("bias") for name in moved)
    assert main(["export", "LORA", "--formats", "lora"]) == 0
    again = load_file(Path("LORA") / f"{NAME}-lora.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())

"""A run by pictures, whole: through the API and the command line, stopped and resumed, and what it leaves."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from turpentine.pipeline.api import unlearn
from turpentine.pipeline.data.pictures import find_pictures
from turpentine.pipeline.run.folder import RunFolder
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe, merge
from turpentine.pipeline.support.errors import Cancelled, UserError

from ..support.stopping import StopWhen
from ..support.tiny_models import build_family
from ..support.training import same

SHORT = {
    "concept": "my logo",
    "device": "cpu",
    "prompts": {"n": 4, "n_test": 3},
    "samples": {"num_inference_steps": 2},
    "training": {"steps": 4, "batch_size": 2, "checkpoint_every": 2},
    "audits": {"images": 3, "retain_train_images": 2, "alignment_model": "tiny-canvas"},
    "output": {"formats": ["denoiser"]},
}


@pytest.fixture
def given(tmp_path):
    (tmp_path / "given").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "given" / f"{name}.png")
    return tmp_path / "given"


def test_through_the_api_with_pictures_in_memory(tmp_path, given):
    images = [Image.open(file) for file in sorted(given.glob("*.png"))]
    pipe = build_family("sd1")
    done = unlearn(pipe, forget_images=images, out=tmp_path / "runs" / "one", **SHORT)
    assert done.pipeline is pipe
    kept = find_pictures(done.results.recipe["data"]["forget_images"])
    assert kept[0].path.parent.parent == tmp_path / "runs" and len(kept) == 2
    before, after = done.results.audits.before.resemblance, done.results.audits.after.resemblance
    assert (before.pictures, before.images) == (2, 3) and [each.picture for each in after.nearest] == [
        "0000.png",
        "0001.png",
    ]
    for when in ("given", "before", "after"):
        assert [file.name for file in sorted((done.run / "images" / when).glob("nearest-*.png"))] == [
            "nearest-000.png",
            "nearest-001.png",
        ]
    page = (done.run / "report.html").read_text()
    assert page.count('class="pair beside"') == 2 and "0001.png; before: " in page and "Copies" in page
    record = json.loads((done.run / "run.json").read_text())
    assert [key for key in record["files"] if key.startswith("data.")] == [
        "data.forget_images/0000.png",
        "data.forget_images/0001.png",
    ]


def test_stopped_and_resumed_with_the_same_bits(tmp_path, given):
    recipe = build_recipe(
        merge(SHORT, {"model": "tiny-canvas", "concept": "a cat in a meadow", "data": {"forget_images": str(given)}})
    )
    whole = run_recipe(recipe, tmp_path / "whole")
    with pytest.raises(Cancelled):
        run_recipe(
            recipe, tmp_path / "cut", progress=StopWhen(lambda stage, told: stage == "unlearning" and len(told) == 3)
        )
    run_recipe(RunFolder.open(tmp_path / "cut").recipe(), tmp_path / "cut", resume=True)
    written = [whole.run / whole.results.weights[0].path, tmp_path / "cut" / whole.results.weights[0].path]
    assert same(*map(load_file, written))


def test_a_stopped_run_refuses_another_picture(tmp_path, given):
    recipe = build_recipe(
        merge(SHORT, {"model": "tiny-canvas", "concept": "a cat in a meadow", "data": {"forget_images": str(given)}})
    )
    with pytest.raises(Cancelled):
        run_recipe(recipe, tmp_path / "cut", progress=StopWhen(lambda stage, told: stage == "unlearning"))
    Image.new("RGB", (40, 30), "green").save(given / "b.png")
    with pytest.raises(UserError, match=r"b\.png \(data\.forget_images\) has changed or gone since"):
        run_recipe(recipe, tmp_path / "cut", resume=True)


def test_forgetting_moves_the_model_away_from_the_pictures(tmp_path, given):
    """The forget loss is that of the given pictures: it rises on them from step to step."""
    fields = merge(
        SHORT, {"training": {"steps": 12, "learning_rate": 1e-3}, "method": {"name": "grad_diff", "retain_weight": 0.0}}
    )
    done = unlearn(build_family("sd1"), forget_images=given, out=tmp_path / "run", **fields)
    lines = [json.loads(line) for line in (done.run / "events.jsonl").read_text().splitlines()]
    losses = torch.tensor([line["loss_forget"] for line in lines])
    assert losses[-3:].mean() > losses[:3].mean()

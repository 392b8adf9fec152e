"""docs/diffusers.md: its examples as they stand, one after another, on a model of random weights."""

import re
from pathlib import Path

import pytest
import torch
import turpentine
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from turpentine.pipeline.support.errors import UserError

from ..support.tiny_models import build_tiny_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    build_tiny_pipeline().save_pretrained(folder / "base-model")
    (folder / "pairs.csv").write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(6)))
    return folder


@pytest.fixture
def options(place, monkeypatch):
    monkeypatch.chdir(place)
    return {
        "prompts": {"file": str(place / "pairs.csv")},
        "samples": {"num_inference_steps": 2},
        "training": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3},
        "audits": {"images": 2, "retain_train_images": 1, "alignment": False, "nudity": "off"},
    }


def unet_before():
    return DiffusionPipeline.from_pretrained("base-model").unet.state_dict()


@pytest.mark.parametrize("code", EXAMPLES, ids=["unlearn", "apply", "sequence", "blocks"])
def test_example(code, options):
    names = {"options": options}
    exec(code, names)
    before, after = unet_before(), names["pipe"].unet.state_dict()
    moved = any(not torch.equal(after[name], before[name]) for name in before)
    assert moved is ("remove" not in code)


def test_blocks_train_as_unlearn_does(options):
    """The same weights from the blocks, which run under no_grad, as from the function."""
    with torch.no_grad():
        pipe = DiffusionPipeline.from_pretrained("base-model")
        modular = turpentine.modular.unlearning_blocks().init_pipeline()
        modular.update_components(**pipe.components)
        state = modular(concept="cat", model="base-model", options=options)
    other = DiffusionPipeline.from_pretrained("base-model")
    result = turpentine.unlearn(other, "cat", out="OTHER", **options)
    expected, found = other.unet.state_dict(), pipe.unet.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert state.get("training").final_loss == result.results.training.final_loss
    assert state.get("after") == result.results.audits.after


def test_what_blocks_declare():
    blocks = turpentine.modular.unlearning_blocks(StableDiffusionPipeline)
    names = {spec.name for spec in blocks.expected_components}
    assert {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= names
    assert "requires_safety_checker" not in names
    made = {output.name for output in blocks.intermediate_outputs}
    assert set(blocks.required_inputs) - made == {"concept"}
    assert [output.name for output in blocks.intermediate_outputs] == [
        "recipe",
        "prompts",
        "before",
        "training",
        "after",
    ]


def test_missing_components(options):
    modular = turpentine.modular.unlearning_blocks().init_pipeline()
    with pytest.raises(UserError, match=r"'unet'.* are missing. Give them with pipeline.update_components"):
        modular(concept="cat", options=options)

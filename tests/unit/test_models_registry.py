"""Families: what each one's file says of it holds for a real network of its class."""

import re
from pathlib import Path

import pytest
import torch
import turpentine
from turpentine.pipeline.models import ADAPTERS
from turpentine.pipeline.models.architectures import example_inputs, find_architecture
from turpentine.pipeline.models.lineage import COMPONENTS
from turpentine.pipeline.models.registry import family_of, family_of_pipeline
from turpentine.pipeline.models.single_file import recognise
from turpentine.pipeline.schema.defaults import RECIPES
from turpentine.pipeline.training.lora import layer_names
from turpentine.pipeline.weights.layouts import denoiser_layout

every_family = pytest.mark.parametrize("family", ADAPTERS, ids=lambda family: family.family)


def build(family):
    torch.manual_seed(0)
    return family.network(**family.tiny).eval()


@every_family
def test_a_tiny_network_is_the_familys_and_takes_the_example_inputs(family):
    network = build(family)
    assert family_of(network) is family and family.component in COMPONENTS
    inputs = example_inputs(network, 2, 8)
    with torch.no_grad():
        output = network(**inputs, return_dict=False)[0]
    noisy = inputs.get("sample", inputs.get("hidden_states"))
    assert output.shape == noisy.shape and output.isfinite().all()
    layers = layer_names(network, "attention")
    assert layers and {name.rpartition(".to_")[2] for name in layers if ".to_" in name} >= {"q", "k", "v", "out.0"}
    assert set(layers) < set(layer_names(network, "all"))


@every_family
def test_a_file_of_its_denoiser_is_recognised_in_both_layouts(family, tmp_path):
    if not family.marks:
        pytest.skip("no checkpoints of one file")
    state = build(family).state_dict()
    assert recognise(state, tmp_path) is family
    original = denoiser_layout(build(family))
    assert recognise([f"model.diffusion_model.{key}" for key in original], tmp_path) is family


@every_family
def test_its_defaults_and_classes(family):
    assert all((RECIPES / folder).is_dir() for folder in family.defaults)
    for kind in (family.pipeline_class, *family.siblings):
        assert family_of_pipeline(kind.__name__) is family
    assert set(family.places) <= {"vae", family.component, *family.text_encoders}
    for name, config in family.known.items():
        assert find_architecture(name) == (family.network, config)


def test_the_base_families_are_told_apart():
    assert len({family.family for family in ADAPTERS}) == len(ADAPTERS)
    assert family_of(torch.nn.Linear(1, 1)) is None and family_of_pipeline("Nonsense") is None


def test_no_family_is_known_by_name_elsewhere():
    """Nor by its classes: whoever needs a fact of a family reads it off the registry."""
    root = Path(turpentine.__file__).parent / "pipeline"
    words = {word for family in ADAPTERS for word in (family.network.__name__, family.pipeline_class.__name__)}
    words |= {family.family for family in ADAPTERS} - {"stable-diffusion", "flux", "class-conditional"}
    allowed = ("models", "bundled", "modular.py", "api.py")
    for file in root.rglob("*.py"):
        if file.relative_to(root).parts[0] not in allowed:
            code = re.sub(r'"""[\s\S]*?"""|#.*', "", file.read_text(encoding="utf-8"))
            assert not [word for word in words if re.search(rf"\b{re.escape(word)}\b", code)], file

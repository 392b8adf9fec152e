"""Families: what each one's file says of it holds for a real network of its class."""

import json
import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import turpentine
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from turpentine.pipeline.models import ADAPTERS, registry
from turpentine.pipeline.models.architectures import example_inputs, find_architecture
from turpentine.pipeline.models.family import Family, Place
from turpentine.pipeline.models.lineage import COMPONENTS
from turpentine.pipeline.models.registry import family_of, family_of_pipeline
from turpentine.pipeline.models.single_file import recognise
from turpentine.pipeline.models.stable_diffusion import StableDiffusion
from turpentine.pipeline.schema.defaults import RECIPES, build_recipe
from turpentine.pipeline.support.errors import UserError
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


# how to add one -----------------------------------------------------------------------------------


class ToyNetwork(UNet2DConditionModel):
    """A network of a class of its own."""


class ToyPipeline(DiffusionPipeline):
    """Nothing but the network and its scheduler."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)


class Toy(StableDiffusion):
    """The first step: a file with the adapter."""

    family = "toy"
    pipeline_class = ToyPipeline
    siblings = ()
    network = ToyNetwork
    marks = ("toy.weight",)
    kinds = ("toy",)
    other_kinds = ()
    defaults = ("stable-diffusion", "flux")
    places: ClassVar = {"unet": Place("toy.", "denoiser")}
    known: ClassVar = {"toy-one": {"sample_size": 8}}

    @classmethod
    def owns(cls, module):
        return isinstance(module, ToyNetwork)

    @staticmethod
    def layout(config):
        return [("**", "toy.**")]


@pytest.fixture
def with_toy(monkeypatch):
    """The second step: a line in the registry."""
    everybody = (Toy, *ADAPTERS)
    for module in ("registry", "single_file", "architectures"):
        monkeypatch.setattr(f"turpentine.pipeline.models.{module}.ADAPTERS", everybody)


def test_a_family_is_its_file_and_a_line(with_toy, tmp_path):
    network = ToyNetwork(**StableDiffusion.tiny)
    assert family_of(network) is Toy and issubclass(Toy, Family)
    assert recognise(["toy.weight"], tmp_path) is Toy
    assert set(denoiser_layout(network)) == {f"toy.{name}" for name in network.state_dict()}
    assert find_architecture("toy-one") == (ToyNetwork, {"sample_size": 8})
    assert layer_names(network, "attention")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline"}))
    recipe = build_recipe({"concept": "cat", "model": str(tmp_path)})
    assert recipe.samples.guidance_scale == 3.5, "the defaults of the folders that it names"
    with pytest.raises(UserError, match=r"families .*: toy, "):
        recognise(["w"], tmp_path)
    denoiser = registry.wrap_pipeline(ToyPipeline(network, DDIMScheduler(clip_sample=False)), "a toy")
    assert isinstance(denoiser, Toy) and denoiser.module is network

"""Memory plans, against tensors that really exist."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.models.architectures import build_network, example_inputs, find_architecture, saved_bytes
from turpentine.pipeline.models.lineage import BUNDLED, denoiser_files
from turpentine.pipeline.run.cost import SETTINGS, plan
from turpentine.pipeline.schema.recipe import TrainingSection as Setting
from turpentine.pipeline.support.errors import UserError

SMALL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "sample_size": 16,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    UNet2DConditionModel(**SMALL).save_pretrained(path / "unet")
    return path


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_are_planned_by_name(name):
    kind, config = find_architecture(name)
    (file,) = denoiser_files(BUNDLED[name])
    with safe_open(file, "pt") as opened:
        shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}
    assert {key: list(tensor.shape) for key, tensor in build_network(kind, config).state_dict().items()} == shapes
    settings = [each.setting.parameters for each in plan(name)]
    assert "full" in settings and ("lora" in settings) is (name != "digits")


def test_a_plan_is_what_real_tensors_take(folder):
    network = UNet2DConditionModel.from_pretrained(folder / "unet").train()
    gradient = sum(p.numel() * 4 for p in network.parameters())
    (planned,) = plan(str(folder), [Setting()], batch_size=2)
    assert (planned.weights, planned.optimizer, planned.gradients) == (gradient, 2 * gradient, 2 * gradient)
    assert planned.activations == saved_bytes(network, example_inputs(network, 2))
    assert planned.total == 5 * gradient + planned.activations


def test_settings_save_what_they_promise(folder):
    settings = (Setting(), Setting(gradient_checkpointing=True), Setting(parameters="xattn"))
    full, checkpointed, xattn = plan(str(folder), settings)
    assert checkpointed.activations < 0.5 * full.activations
    assert xattn.gradients < 0.5 * full.gradients
    assert xattn.weights == full.weights


def test_activations_grow_with_the_batch(folder):
    one, two = (plan(str(folder), [Setting()], batch_size=count)[0].activations for count in (1, 2))
    assert 1.9 < two / one <= 2.0


def test_stable_diffusion_has_its_published_size():
    (planned,) = plan("sd14", [Setting(parameters="xattn", gradient_checkpointing=True)])
    assert planned.weights == 4 * 859_520_964


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match=r"expected one of .*'sd14'.* or a diffusers folder, got 'nothing'"):
        plan("nothing")


def test_inputs_are_not_kept_twice():
    layer = torch.nn.Linear(4, 4)

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, return_dict):
            return (self.layer(x) * self.layer(x)).sum()

    x = torch.zeros(8, 4)
    assert saved_bytes(Twice(), {"x": x}) == 3 * x.nbytes  # x once, and the two factors of the product


def test_the_command_says_what_fits(folder, capsys):
    assert main(["plan", "--model", str(folder), "--vram", "8"]) == 0
    shown = capsys.readouterr().out
    assert "full, fp32" in shown and "xattn, bf16, checkpointing" in shown
    assert shown.count("yes") == len(SETTINGS)
    assert main(["plan", "--model", "nothing"]) == 2

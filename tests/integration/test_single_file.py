"""Models out of one file: every layout, and every way in which something is missing."""

import shutil

import pytest
import torch
from safetensors.torch import save_file
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.models.single_file import recognise
from turpentine.pipeline.support.errors import UserError

from ..support.original_layout import stable_diffusion, stable_diffusion_xl, unet_keys, with_prefix
from ..support.pipelines import build_family

WEIGHTS = ("*.safetensors", "*.bin")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of some families the whole diffusers folder, and its configs and tokenizers alone."""
    root = tmp_path_factory.mktemp("folders")
    for name in ("sd1", "sdxl", "sd3-no-t5", "flux-dev"):
        build_family(name).save_pretrained(root / name)
        shutil.copytree(root / name, root / f"{name}-configs", ignore=shutil.ignore_patterns(*WEIGHTS))
    return root


def write(path, tensors):
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return str(path)


def assert_same_networks(pipeline, expected):
    for name, part in expected.components.items():
        if isinstance(part, torch.nn.Module):
            got = getattr(pipeline, name).state_dict()
            assert got.keys() == part.state_dict().keys(), name
            assert all(torch.equal(got[key], value) for key, value in part.state_dict().items()), name


@pytest.mark.parametrize(("name", "layout"), [("sd1", stable_diffusion), ("sdxl", stable_diffusion_xl)])
def test_complete_checkpoint(name, layout, folders, tmp_path):
    pipeline = build_family(name)
    file = write(tmp_path / "model.safetensors", layout(pipeline))
    denoiser = load_denoiser(file, "cpu", str(folders / f"{name}-configs"))
    assert type(denoiser.pipeline) is type(pipeline) and denoiser.name == file
    assert denoiser.source is None, "released parts stay in memory: no folder holds them"
    assert_same_networks(denoiser.pipeline, pipeline)
    assert {value.dtype for value in denoiser.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3-no-t5", "flux-dev"])
def test_denoiser_in_diffusers_layout_goes_into_the_given_pipeline(name, folders, tmp_path):
    expected = build_family(name)
    module = expected.transformer if hasattr(expected, "transformer") else expected.unet
    torch.manual_seed(9)
    for value in module.parameters():
        value.data = torch.randn_like(value)
    file = write(tmp_path / "denoiser.safetensors", module.half().state_dict())
    module.float()
    assert_same_networks(load_denoiser(file, "cpu", str(folders / name)).pipeline, expected)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_denoiser_in_the_original_layout(prefix, folders, tmp_path):
    expected = build_family("sd1")
    file = write(tmp_path / "denoiser.safetensors", with_prefix(prefix, unet_keys(expected.unet.state_dict())))
    assert_same_networks(load_denoiser(file, "cpu", str(folders / "sd1")).pipeline, expected)


def test_denoiser_alone_is_refused_with_what_to_do(tmp_path):
    file = write(tmp_path / "unet.safetensors", build_family("sd1").unet.state_dict())
    with pytest.raises(UserError, match=r"holds a unet alone \(stable-diffusion\).*Give model_config_folder"):
        load_denoiser(file, "cpu")


def test_missing_weights_are_named(folders, tmp_path):
    pipeline = build_family("sd1")
    configs = str(folders / "sd1-configs")
    file = write(tmp_path / "unet.safetensors", pipeline.unet.state_dict())
    with pytest.raises(UserError, match=r"can't load .*unet\.safetensors with the configs in .*(vae|text_encoder)"):
        load_denoiser(file, "cpu", configs)
    file = write(tmp_path / "no-text.safetensors", stable_diffusion(pipeline, "unet", "vae"))
    with pytest.raises(UserError, match=r"can't load .*no-text.* neither of them holds weights of the text_encoder\."):
        load_denoiser(file, "cpu", configs)
    final_norm = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
    for key, message in (
        ("model.diffusion_model.out.2.bias", "lacks weights of the networks that"),
        (final_norm, r"lacks 1 tensors of the text_encoder .* for example .*final_layer_norm\.bias"),
    ):
        tensors = stable_diffusion(pipeline)
        del tensors[key]
        with pytest.raises(UserError, match=rf"gap\.safetensors {message}"):
            load_denoiser(write(tmp_path / "gap.safetensors", tensors), "cpu", configs)


def test_weights_that_the_file_lacks_come_from_the_folder(folders, tmp_path):
    pipeline = build_family("sd1")
    file = write(tmp_path / "no-text.safetensors", stable_diffusion(pipeline, "unet", "vae"))
    assert_same_networks(load_denoiser(file, "cpu", str(folders / "sd1")).pipeline, pipeline)


def test_folder_of_another_family_or_of_nothing(folders, tmp_path):
    file = write(tmp_path / "model.safetensors", stable_diffusion(build_family("sd1")))
    with pytest.raises(UserError, match=r"must be of a StableDiffusionPipeline; .* is of a StableDiffusionXLPipeline"):
        load_denoiser(file, "cpu", str(folders / "sdxl-configs"))
    with pytest.raises(UserError, match=r"expected a diffusers folder for model_config_folder, found no model_index"):
        load_denoiser(file, "cpu", str(tmp_path))
    with pytest.raises(UserError, match=r"model_config_folder goes with a single \.safetensors file"):
        load_denoiser(str(folders / "sd1"), "cpu", str(folders / "sd1"))


def test_configs_come_from_the_hub_s_cache_then_from_the_hub(folders, tmp_path, monkeypatch):
    """No network here: the cache is laid out as the hub's client lays it out."""
    from huggingface_hub import constants

    pipeline = build_family("sd1")
    file = write(tmp_path / "model.safetensors", stable_diffusion(pipeline))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = r"needs the configs and tokenizers of stable-diffusion-v1-5/stable-diffusion-v1-5, which are neither"
    with pytest.raises(UserError, match=rf"{message} .*Give model_config_folder"):
        load_denoiser(file, "cpu")
    repository = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folders / "sd1-configs", repository / "snapshots" / ("0" * 40))
    assert_same_networks(load_denoiser(file, "cpu").pipeline, pipeline)


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.safetensors is empty\. Download it again"):
        load_denoiser(str(tmp_path / "empty.safetensors"), "cpu")
    with pytest.raises(UserError, match="found no file"):
        load_denoiser(str(tmp_path / "absent.safetensors"), "cpu")
    file = write(tmp_path / "lora.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="found a LoRA, which holds no model"):
        load_denoiser(file, "cpu")
    file = write(tmp_path / "other.safetensors", {"encoder.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"families.*stable-diffusion, flux|found keys such as \['encoder\.weight'\]"):
        load_denoiser(file, "cpu")


def test_kinds_that_can_t_be_unlearned(tmp_path):
    refiner = {
        "model.diffusion_model.label_emb.0.0.weight": torch.zeros(1),
        "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": torch.zeros(1),
    }
    with pytest.raises(UserError, match="a checkpoint of the kind 'xl_refiner'; expected one of v1, v2, xl_base"):
        load_denoiser(write(tmp_path / "refiner.safetensors", refiner), "cpu")


@pytest.mark.parametrize(
    ("key", "family"),
    [
        ("joint_blocks.0.x_block.attn.qkv.weight", "stable-diffusion-3"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "stable-diffusion-3"),
        ("double_blocks.0.img_attn.qkv.weight", "flux"),
        ("model.diffusion_model.input_blocks.0.0.weight", "stable-diffusion"),
    ],
)
def test_families_by_their_keys(key, family, tmp_path):
    assert recognise([key, "vae.x"], tmp_path).family == family

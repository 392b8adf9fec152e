"""Models out of one file: every layout, and every way in which something is missing."""

import shutil

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import save_file
from turpentine.pipeline.maths.objectives import Epsilon, VPrediction
from turpentine.pipeline.models import Sampling, load_denoiser, wrap_pipeline
from turpentine.pipeline.models.single_file import recognise
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.weights.formats.single_file import checkpoint_tensors

from ..support.original_layout import stable_diffusion, stable_diffusion_xl, unet_keys, with_prefix
from ..support.tiny_models import build_family

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


# what a file says of itself ------------------------------------------------------------------------

SAYS_V = [
    ({"v_pred": torch.zeros(0)}, {}),
    ({"model.diffusion_model.v_pred": torch.zeros(0)}, {}),
    ({}, {"modelspec.prediction_type": "v"}),
    ({}, {"modelspec.prediction_type": "v_prediction"}),
    ({}, {"ss_v_parameterization": "True"}),
]
ZERO = [({"ztsnr": torch.zeros(0)}, {}), ({}, {"ss_zero_terminal_snr": "True"})]


def marked(path, tensors, marks=(), header=None):
    tensors = {key: value.contiguous() for key, value in {**tensors, **dict(marks)}.items()}
    save_file(tensors, path, header)
    return str(path)


@pytest.mark.parametrize(("name", "layout"), [("sd1", stable_diffusion), ("sdxl", stable_diffusion_xl), ("sd1", None)])
@pytest.mark.parametrize(("marks", "header"), SAYS_V)
def test_a_file_that_predicts_the_velocity_is_trained_so(name, layout, marks, header, folders, tmp_path):
    pipeline = build_family(name)
    tensors = layout(pipeline) if layout else pipeline.unet.state_dict()
    denoiser = load_denoiser(marked(tmp_path / "m.safetensors", tensors, marks, header), "cpu", str(folders / name))
    assert type(denoiser.objective) is VPrediction and denoiser.checkpoint_marks(denoiser.pipeline).keys() == {"v_pred"}
    (told,) = denoiser.warnings
    assert "what the scheduler in" in told and "prediction_type v_prediction. The file was followed." in told
    assert_same_networks(denoiser.pipeline, pipeline)


@pytest.mark.parametrize(("marks", "header"), ZERO)
@pytest.mark.parametrize("scheduler", [DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler])
def test_a_file_with_zero_terminal_snr_is_noised_so(marks, header, scheduler, folders, tmp_path):
    shutil.copytree(folders / "sdxl-configs", tmp_path / "configs")
    scheduler.from_config(build_family("sdxl").scheduler.config).save_pretrained(tmp_path / "configs" / "scheduler")
    tensors = {**stable_diffusion_xl(build_family("sdxl")), "v_pred": torch.zeros(0)}
    file = marked(tmp_path / "m.safetensors", tensors, marks, header)
    denoiser = load_denoiser(file, "cpu", str(tmp_path / "configs"))
    config = denoiser.pipeline.scheduler.config
    assert config.rescale_betas_zero_snr and config.timestep_spacing == "trailing"
    assert denoiser.objective.alphas_cumprod[-1] < 1e-6
    assert denoiser.sample(["a cat"], [0], Sampling(3, image_size=16), Silent(), "").isfinite().all()
    assert denoiser.checkpoint_marks(denoiser.pipeline).keys() == {"v_pred", "ztsnr"}


def test_a_mark_that_says_what_the_folder_says_is_no_news(folders, tmp_path):
    tensors = stable_diffusion(build_family("sd1"))
    for header in ({"modelspec.prediction_type": "epsilon"}, {"ss_v_parameterization": "False"}, None):
        file = marked(tmp_path / "m.safetensors", tensors, header=header)
        assert load_denoiser(file, "cpu", str(folders / "sd1-configs")).warnings == ()
    shutil.copytree(folders / "sd1-configs", tmp_path / "v")
    build_family("sd2-v").scheduler.save_pretrained(tmp_path / "v" / "scheduler")
    assert type(load_denoiser(file, "cpu", str(tmp_path / "v")).objective) is VPrediction, "it says nothing"
    file = marked(tmp_path / "m.safetensors", tensors, header={"modelspec.prediction_type": "epsilon"})
    denoiser = load_denoiser(file, "cpu", str(tmp_path / "v"))
    assert type(denoiser.objective) is Epsilon and "prediction_type epsilon" in denoiser.warnings[0]
    file = marked(tmp_path / "m.safetensors", tensors, {"ztsnr": torch.zeros(0)})
    denoiser = load_denoiser(file, "cpu", str(folders / "sd1-configs"))
    assert not denoiser.pipeline.scheduler.config.rescale_betas_zero_snr, (
        "it would divide by zero for a noise prediction"
    )


@pytest.mark.parametrize("name", ["sd2-v", "sdxl"])
def test_what_is_written_as_one_file_says_what_it_was(name, tmp_path):
    pipeline = build_family(name)
    pipeline.save_pretrained(tmp_path / "configs")
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changes)
    file = write(tmp_path / "whole.safetensors", checkpoint_tensors(wrap_pipeline(pipeline)))
    denoiser = load_denoiser(file, "cpu", str(tmp_path / "configs"))
    assert {key: denoiser.pipeline.scheduler.config[key] for key in changes} == changes
    assert_same_networks(denoiser.pipeline, pipeline)


@pytest.mark.parametrize("key", ["edm_mean", "edm_std", "edm_vpred.sigma_max", "model.diffusion_model.edm_mean"])
def test_edm_checkpoints_are_refused(key, folders, tmp_path):
    file = marked(tmp_path / "m.safetensors", stable_diffusion_xl(build_family("sdxl")), {key: torch.zeros(1)})
    with pytest.raises(UserError, match="trained as an EDM"):
        load_denoiser(file, "cpu", str(folders / "sdxl-configs"))


@pytest.mark.parametrize("word", ["sample", "edm", "rectified_flow"])
def test_other_predictions_are_refused(word, folders, tmp_path):
    header = {"modelspec.prediction_type": word}
    file = marked(tmp_path / "m.safetensors", stable_diffusion(build_family("sd1")), header=header)
    with pytest.raises(UserError, match=f"says that it predicts '{word}'"):
        load_denoiser(file, "cpu", str(folders / "sd1-configs"))


def test_averaged_weights_beside_the_raw_ones_are_told(folders, tmp_path):
    pipeline = build_family("sd1")
    tensors = stable_diffusion(pipeline)
    ema = {f"model_ema.{key[6:].replace('.', '')}": value + 1 for key, value in tensors.items() if key[:6] == "model."}
    file = marked(tmp_path / "m.safetensors", tensors, {**ema, "model_ema.decay": torch.tensor(0.9999)})
    denoiser = load_denoiser(file, "cpu", str(folders / "sd1-configs"))
    assert (
        "averaged weights too (model_ema.*): the raw ones (model.diffusion_model.*) were used" in denoiser.warnings[0]
    )
    assert_same_networks(denoiser.pipeline, pipeline)


QUANTISED = [
    "scaled_fp8", "model.diffusion_model.out.2.scale_weight", "model.diffusion_model.out.2.weight_scale",
    "model.diffusion_model.out.2.weight.absmax", "model.diffusion_model.out.2.weight.quant_state.bitsandbytes__nf4",
    "model.diffusion_model.out.2.SCB", "model.diffusion_model.out.2.comfy_quant",
]  # fmt: skip


@pytest.mark.parametrize("key", QUANTISED)
def test_quantised_weights_are_never_loaded_without_their_scale(key, folders, tmp_path):
    file = marked(tmp_path / "m.safetensors", stable_diffusion(build_family("sd1")), {key: torch.ones(1)})
    with pytest.raises(UserError, match=r"m\.safetensors are quantised \(it holds .*Give the same model in float32"):
        load_denoiser(file, "cpu", str(folders / "sd1-configs"))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_weights_in_whole_numbers_are_refused(dtype, folders, tmp_path):
    tensors = stable_diffusion(build_family("sd1"))
    key = next(key for key in tensors if key.endswith("to_q.weight"))
    file = marked(tmp_path / "m.safetensors", {**tensors, key: tensors[key].to(dtype)})
    with pytest.raises(UserError, match="are quantised"):
        load_denoiser(file, "cpu", str(folders / "sd1-configs"))


def test_plain_float8_is_only_rounded(folders, tmp_path):
    tensors = {key: value.to(torch.float8_e4m3fn) for key, value in stable_diffusion(build_family("sd1")).items()}
    denoiser = load_denoiser(marked(tmp_path / "m.safetensors", tensors), "cpu", str(folders / "sd1-configs"))
    assert {value.dtype for value in denoiser.module.parameters()} == {torch.float32}


def test_a_file_that_is_cut_or_a_pointer(folders, tmp_path):
    file = tmp_path / "m.safetensors"
    write(file, stable_diffusion(build_family("sd1")))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"can't read .*m\.safetensors .*cut short or damaged"):
        load_denoiser(str(file), "cpu", str(folders / "sd1-configs"))
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=r"m\.safetensors is a Git LFS pointer"):
        load_denoiser(str(file), "cpu", str(folders / "sd1-configs"))


@pytest.mark.parametrize("damage", ["{", "[]", ""])
def test_a_config_folder_that_is_damaged(damage, folders, tmp_path):
    shutil.copytree(folders / "sd1-configs", tmp_path / "configs")
    (tmp_path / "configs" / "model_index.json").write_text(damage)
    file = write(tmp_path / "m.safetensors", stable_diffusion(build_family("sd1")))
    with pytest.raises(UserError, match=r"model_index\.json"):
        load_denoiser(file, "cpu", str(tmp_path / "configs"))
    shutil.copy(folders / "sd1-configs" / "model_index.json", tmp_path / "configs")
    for part in ("unet/config.json", "vae/config.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"):
        kept = (tmp_path / "configs" / part).read_text()
        (tmp_path / "configs" / part).write_text(damage)
        with pytest.raises(UserError, match=r"can't load .*m\.safetensors") as caught:
            load_denoiser(file, "cpu", str(tmp_path / "configs"))
        assert "\n" not in str(caught.value)
        (tmp_path / "configs" / part).write_text(kept)

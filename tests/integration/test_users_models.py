"""Pipelines and folders in the states in which people have them: what they draw is kept, or refused in a line."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import turpentine
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor
from turpentine.pipeline.models import load_denoiser, wrap_pipeline
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.support.errors import UserError

from ..support.command import empty_figures
from ..support.original_layout import stable_diffusion
from ..support.tiny_models import IMAGE, build_family
from ..support.training import same, weights


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with empty_figures():
        yield


PROMPT = "a photo of a cat on a lawn"
SHORT = {
    "steps": 2,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "image_size": IMAGE,
    "num_inference_steps": 2,
    "prompts": {"n": 2, "n_test": 1},
    "audits": {"images": 1, "retain_train_images": 1, "alignment": False, "nudity": "off"},
}


def unlearn(pipeline, out: Path, concept: str = "cat", **changes):
    return turpentine.unlearn(pipeline, concept, out=out, **{**SHORT, **changes})


def finite(module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())


def draw(pipeline) -> np.ndarray:
    """The pipeline's own picture, in [0, 1]."""
    generator = torch.Generator().manual_seed(3)
    return pipeline(PROMPT, num_inference_steps=2, height=IMAGE, width=IMAGE, generator=generator,
                    output_type="np").images  # fmt: skip


# schedulers -------------------------------------------------------------------------------------

ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def scheduled(kind, **config):
    """A model that predicts what its scheduler says."""
    pipeline = build_family("sd1")
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **config)
    return pipeline


@pytest.mark.parametrize(
    ("kind", "config", "fields"),
    [
        (DDIMScheduler, {**ZERO_SNR, "timestep_spacing": "trailing"}, {}),
        (DDIMScheduler, {**ZERO_SNR, "timestep_spacing": "leading"}, {}),
        (DPMSolverMultistepScheduler, {**ZERO_SNR, "timestep_spacing": "trailing"}, {}),
        (DDIMScheduler, {**ZERO_SNR, "timestep_spacing": "trailing"}, {"scheduler": "dpm-solver++"}),
        (DDIMScheduler, {**ZERO_SNR, "timestep_spacing": "trailing"}, {"method": {"name": "esd", "start_steps": 2}}),
        (LCMScheduler, {}, {}),
        (UniPCMultistepScheduler, {}, {}),
    ],
    ids=["trailing", "leading", "own-dpm", "dpm", "esd", "lcm", "unipc"],
)
def test_schedulers_that_train(kind, config, fields, tmp_path):
    pipeline = scheduled(kind, **config)
    before = weights(pipeline.unet)
    results = unlearn(pipeline, tmp_path / "run", **fields).results
    assert finite(pipeline.unet) and not same(weights(pipeline.unet), before)
    assert all(loss is None or np.isfinite(loss) for loss in results.training.final_loss.model_dump().values())
    assert type(pipeline.scheduler) is kind and pipeline.scheduler.config.items() >= config.items()


@pytest.mark.parametrize(
    ("kind", "config", "named"),
    [
        (DDIMScheduler, {"prediction_type": "sample"}, "'sample'"),
        (DPMSolverMultistepScheduler, {"prediction_type": "sample"}, "'sample'"),
        (EDMEulerScheduler, {}, "EDMEulerScheduler"),
        (EDMDPMSolverMultistepScheduler, {}, "EDMDPMSolverMultistepScheduler"),
        (FlowMatchEulerDiscreteScheduler, {}, "FlowMatchEulerDiscreteScheduler"),
        (UniPCMultistepScheduler, {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "flow_prediction"),
        (DPMSolverMultistepScheduler, {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "flow_pred"),
        (DPMSolverMultistepScheduler, {"prediction_type": "epsilon", "use_flow_sigmas": True}, "use_flow_sigmas"),
    ],
)
def test_schedulers_that_are_refused_before_anything_is_written(kind, config, named, tmp_path):
    with pytest.raises(UserError) as caught:
        unlearn(scheduled(kind, **config), tmp_path / "run")
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# states of a pipeline -----------------------------------------------------------------------------


def add_lora(pipeline, name: str, seed: int) -> None:
    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipeline.unet.add_adapter(config, name)


def with_lora(pipeline, scale: float = 1.0) -> None:
    add_lora(pipeline, "style", 1)
    pipeline.set_adapters(["style"], [scale])


def with_two_loras(pipeline) -> None:
    add_lora(pipeline, "style", 1)
    add_lora(pipeline, "light", 2)
    pipeline.set_adapters(["style", "light"], [0.7, 0.3])


def with_fused_lora(pipeline, scale: float = 1.0, unload: bool = False) -> None:
    add_lora(pipeline, "style", 1)
    pipeline.fuse_lora(lora_scale=scale)
    if unload:
        pipeline.unload_lora_weights()


def with_safety_checker(pipeline) -> None:
    torch.manual_seed(4)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**small, "vocab_size": 10, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    checker = CLIPConfig(text_config=text, vision_config={**small, "image_size": 8, "patch_size": 4}, projection_dim=8)
    processor = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=8)
    pipeline.register_modules(safety_checker=StableDiffusionSafetyChecker(checker).eval(), feature_extractor=processor)


STATES: dict[str, Callable] = {
    "lora": with_lora,
    "lora at a half": lambda pipeline: with_lora(pipeline, 0.5),
    "two loras": with_two_loras,
    "fused lora": with_fused_lora,
    "fused at a half": lambda pipeline: with_fused_lora(pipeline, 0.5),
    "fused and unloaded": lambda pipeline: with_fused_lora(pipeline, unload=True),
    "frozen": lambda pipeline: pipeline.unet.requires_grad_(False),
    "training mode": lambda pipeline: pipeline.unet.train(),
    "FreeU": lambda pipeline: pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    "attention slicing": lambda pipeline: pipeline.enable_attention_slicing(1),
    "autoencoder slicing": lambda pipeline: pipeline.vae.enable_slicing(),
    "safety checker": with_safety_checker,
}
CHANGE_THE_PICTURE = (
    "lora",
    "lora at a half",
    "two loras",
    "fused lora",
    "fused at a half",
    "fused and unloaded",
    "FreeU",
)


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    """What the model draws in no particular state."""
    return draw(build_family("sd1"))


@pytest.mark.parametrize("state", STATES)
def test_a_pipeline_draws_the_same_once_it_is_wrapped(state, plain):
    pipeline = build_family("sd1")
    STATES[state](pipeline)
    expected = draw(pipeline)
    denoiser = wrap_pipeline(pipeline)
    assert np.abs(draw(denoiser.pipeline) - expected).max() < 1e-5
    if state in CHANGE_THE_PICTURE:
        assert np.abs(expected - plain).max() > 1e-3, "the state must be one that is seen"


@pytest.mark.parametrize("state", ["lora at a half", "two loras", "frozen", "FreeU", "attention slicing",
                                   "safety checker"])  # fmt: skip
def test_a_pipeline_in_any_state_is_unlearned(state, tmp_path):
    pipeline = build_family("sd1")
    STATES[state](pipeline)
    parts, before = set(pipeline.components), weights(wrap_pipeline(pipeline).module)
    encoder = weights(pipeline.text_encoder)
    run = unlearn(pipeline, tmp_path / "run").run
    after = weights(pipeline.unet)
    assert after.keys() == before.keys() and finite(pipeline.unet) and not same(after, before)
    assert same(weights(pipeline.text_encoder), encoder)
    assert set(pipeline.components) == parts
    written = load_denoiser(str(run / "weights" / "diffusers"), "cpu")
    assert same(weights(written.module), after)
    assert (written.pipeline.safety_checker is None) == (state != "safety checker")


def test_a_network_with_more_inputs_is_refused_before_anything_is_written(tmp_path):
    pipeline = build_family("sd1")
    config = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")}
    pipeline.unet = UNet2DConditionModel(**{**config, "in_channels": 9})
    with pytest.raises(UserError, match="9") as caught:
        unlearn(pipeline, tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


# textual inversion --------------------------------------------------------------------------------

TOKEN = "<cat-toy>"


@pytest.mark.parametrize("place", ["in memory", "from a folder"])
def test_a_learned_token_is_a_concept_and_is_kept(place, tmp_path):
    pipeline = build_family("sd1")
    torch.manual_seed(5)
    learned = torch.randn(pipeline.text_encoder.config.hidden_size)
    pipeline.load_textual_inversion({TOKEN: learned})
    if place == "from a folder":
        pipeline.save_pretrained(tmp_path / "model")
        pipeline = load_denoiser(str(tmp_path / "model"), "cpu").pipeline
    run = unlearn(pipeline, tmp_path / "run", TOKEN).run
    prompts = PromptSet.load(run / "prompts.json")
    assert all(TOKEN in prompt for prompt in prompts.forget_train)
    assert not any(TOKEN in prompt for prompt in prompts.retain_train)
    written = load_denoiser(str(run / "weights" / "diffusers"), "cpu").pipeline
    for kept in (pipeline, written):
        assert TOKEN in kept.tokenizer.tokenize(f"a photo of {TOKEN} here")
        index = kept.tokenizer.convert_tokens_to_ids(TOKEN)
        assert torch.equal(kept.text_encoder.get_input_embeddings().weight[index], learned)


# files --------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path) -> Path:
    """A folder whose weights lie in many small files."""
    build_family("sd1").save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    assert len(list((tmp_path / "sharded").rglob("*-of-*.safetensors"))) > 20
    return tmp_path / "sharded"


def test_shards_are_one_model(sharded):
    loaded, expected = load_denoiser(str(sharded), "cpu").pipeline, build_family("sd1")
    for part in ("unet", "vae", "text_encoder"):
        assert same(weights(getattr(expected, part)), weights(getattr(loaded, part))), part


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_shard_is_named(part, sharded):
    gone = sorted((sharded / part).glob("*-of-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(UserError) as caught:
        load_denoiser(str(sharded), "cpu")
    assert gone.name in str(caught.value) and part in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The model that a single file takes its configs from."""
    path = tmp_path_factory.mktemp("models") / "sd1"
    build_family("sd1").save_pretrained(path)
    return path


def in_eight_bits(tensors):
    return {key: value.to(torch.float8_e4m3fn).contiguous() for key, value in tensors.items()}


@pytest.mark.parametrize("content", ["denoiser", "checkpoint"])
def test_an_eight_bit_file_is_read_in_full_precision(content, folder, tmp_path):
    pipeline = build_family("sd1")
    expected = {key: value.float() for key, value in in_eight_bits(pipeline.unet.state_dict()).items()}
    if content == "denoiser":
        tensors = in_eight_bits(pipeline.unet.state_dict())
    else:
        unet = in_eight_bits(stable_diffusion(pipeline, "unet"))
        tensors = stable_diffusion(pipeline, "vae", "text_encoder") | unet
    save_file(tensors, tmp_path / "fp8.safetensors")
    loaded = load_denoiser(str(tmp_path / "fp8.safetensors"), "cpu", str(folder))
    assert {value.dtype for value in loaded.module.parameters()} == {torch.float32}
    assert same(expected, weights(loaded.module))


@pytest.mark.parametrize("rest", [(), ("vae", "text_encoder")], ids=["alone", "with the other networks"])
def test_a_file_with_averaged_weights_only_is_read_right_or_refused(rest, folder, tmp_path):
    """LDM keeps averaged weights under names without dots."""
    pipeline, file = build_family("sd1"), tmp_path / "ema.safetensors"
    averaged = {
        f"model_ema.{key.removeprefix('model.').replace('.', '')}": value
        for key, value in stable_diffusion(pipeline, "unet").items()
    }
    save_file({**averaged, **(stable_diffusion(pipeline, *rest) if rest else {})}, file)
    told = ""
    try:
        loaded = load_denoiser(str(file), "cpu", str(folder))
    except UserError as error:
        told = str(error)
    if told:
        assert file.name in told and "\n" not in told
    else:
        assert same(weights(pipeline.unet), weights(loaded.module))

"""What LoRA files say of themselves, and which are refused in what words."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import save_file
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.weights.read import read_changes

from ..support.tiny_models import build_tiny_pipeline

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OTHER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
CONV = "down_blocks.0.resnets.0.conv1"
KOHYA = "lora_unet_" + LINEAR.replace(".", "_")
R, ROOT = 4, 2.0
UP, DOWN = torch.randn(32, R, generator=torch.Generator().manual_seed(0)), torch.ones(R, 32)


@pytest.fixture(scope="module")
def unet():
    return build_tiny_pipeline().unet


def read(unet, folder, tensors, metadata=None, config=None, name="lora.safetensors"):
    """The changes of a file with these tensors, by the names of the weights."""
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, folder / name, metadata)
    if config is not None:
        (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return {change.name: change.value for change in read_changes(folder / name, unet)}


def kohya(**more):
    return {f"{KOHYA}.lora_up.weight": UP, f"{KOHYA}.lora_down.weight": DOWN} | {
        f"{KOHYA}.{name}": torch.as_tensor(value) for name, value in more.items()
    }


def peft(prefix="unet.", layer=LINEAR, up=UP, down=DOWN):
    return {f"{prefix}{layer}.lora_B.weight": up, f"{prefix}{layer}.lora_A.weight": down}


def packed(config, component="unet."):
    return {"lora_adapter_metadata": json.dumps({f"{component}{key}": value for key, value in config.items()})}


def scale_of(changes, layer=LINEAR):
    """The factor of up x down that a change has."""
    scales = changes[f"{layer}.weight"] / (UP @ DOWN)
    assert scales.max() - scales.min() < 1e-4
    return scales.mean().item()


CONFIGS = [
    ({"r": R, "lora_alpha": 8}, 2.0),
    ({"r": R, "lora_alpha": 8, "use_rslora": True}, 4.0),
    ({"r": R, "lora_alpha": 8, "use_rslora": None, "use_dora": False, "bias": "none"}, 2.0),
    ({"r": R}, 2.0),  # peft's own alpha is 8
    ({"lora_alpha": 0.5}, 0.125),
    ({"r": 16, "rank_pattern": {"to_q": R}, "lora_alpha": 8}, 2.0),
    ({"r": R, "lora_alpha": 8, "alpha_pattern": {LINEAR: 2}}, 0.5),
    ({"r": R, "lora_alpha": 8, "alpha_pattern": {f"^{LINEAR}": 2}}, 0.5),
    ({"r": R, "lora_alpha": 8, "alpha_pattern": {"to_q": 2}}, 0.5),
    ({"r": R, "lora_alpha": 8, "alpha_pattern": {r"attn\d\.to_[qk]": 2}}, 0.5),
    ({"r": R, "lora_alpha": 8, "alpha_pattern": {"q": 2, "o_q": 2, "attn1": 2}}, 2.0),  # of no whole name
    ({"r": R, "lora_alpha": 8, "alpha_pattern": {"to_q": 2}, "use_rslora": True}, 1.0),
    ({"r": R, "lora_alpha": 8, "alpha_pattern": {"to_v": 1, "attn1.to_q": 12, "to_q": 2}}, 3.0),  # the first counts
]


@pytest.mark.parametrize(("config", "scale"), CONFIGS)
def test_a_configuration_of_peft_is_followed(unet, tmp_path, config, scale):
    assert scale_of(read(unet, tmp_path, peft(), packed(config))) == pytest.approx(scale)
    assert scale_of(read(unet, tmp_path, peft(""), packed(config, ""))) == pytest.approx(scale)
    for prefix, name in (("base_model.model.", "renamed.safetensors"), ("unet.", "adapter_model.safetensors")):
        assert scale_of(read(unet, tmp_path, peft(prefix), config=config, name=name)) == pytest.approx(scale)


def test_each_component_has_its_own_configuration(unet, tmp_path):
    other = packed({"r": 2, "lora_alpha": 99, "use_rslora": True}, "text_encoder.")
    assert scale_of(read(unet, tmp_path, peft(), other)) == pytest.approx(1)


def test_an_alpha_in_the_file_comes_first(unet, tmp_path):
    tensors = {**peft(), f"unet.{LINEAR}.alpha": torch.tensor(2.0)}
    assert scale_of(read(unet, tmp_path, tensors, packed({"r": R, "lora_alpha": 8}))) == pytest.approx(0.5)
    assert scale_of(read(unet, tmp_path, tensors)) == pytest.approx(0.5)


ARGUMENTS = {"ss_network_module": "lycoris.kohya", "ss_network_alpha": "8.0", "ss_network_dim": "4"}


def stabilised(name="rs_lora", value="True", **more):
    return {**ARGUMENTS, "ss_network_args": json.dumps({name: value, **more})}


@pytest.mark.parametrize(
    ("more", "metadata", "scale"),
    [
        ({}, None, 1),
        ({"alpha": 2.0}, None, 0.5),
        ({"alpha": torch.tensor(2.0).half()}, None, 0.5),
        ({"alpha": torch.tensor([2.0])}, None, 0.5),
        ({"alpha": 2.0, "scalar": 3.0}, None, 1.5),
        ({"scalar": 3.0}, None, 3),
        ({}, ARGUMENTS, 2),
        ({"alpha": 2.0}, ARGUMENTS, 0.5),
        ({}, {"ss_network_alpha": "Dynamic", "ss_network_dim": "Dynamic"}, 1),
        ({}, {"ss_network_alpha": "None", "ss_network_args": "null"}, 1),
        ({}, {"ss_network_alpha": "0"}, 1),
        ({}, stabilised(), 4),
        ({}, stabilised(value="False"), 2),
        ({"alpha": 8.0}, stabilised(), 4),
        ({"alpha": 8 * ROOT}, stabilised(), 4),  # LyCORIS: the root is in alpha
        ({"alpha": 8 * ROOT}, stabilised(value="False"), 4),
        ({"alpha": 8.0}, stabilised("rank_stabilized"), 4),
        ({"alpha": 8.0}, stabilised("use_rslora", True), 4),
        ({}, {"ss_network_args": '{"rs_lora": "True"}'}, ROOT),
    ],
)
def test_kohya_s_metadata_is_followed(unet, tmp_path, more, metadata, scale):
    assert scale_of(read(unet, tmp_path, kohya(**more), metadata)) == pytest.approx(scale)


def test_a_convolution_has_an_alpha_of_its_own(unet, tmp_path):
    stem = "lora_unet_" + CONV.replace(".", "_")
    up, down = torch.ones(16, 2, 1, 1), torch.ones(2, 16, 3, 3)
    tensors = {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, **kohya()}
    metadata = {"ss_network_alpha": "8", "ss_network_args": '{"conv_dim": "2", "conv_alpha": "1"}'}
    changes = read(unet, tmp_path, tensors, metadata)
    assert torch.equal(changes[f"{CONV}.weight"], torch.ones(16, 16, 3, 3))  # 1/2 of the sum over rank 2
    assert scale_of(changes) == pytest.approx(2)


WORDS = {
    "hada_w1_a": "a LoHa", "lokr_w1": "a LoKr", "oft_blocks": "an OFT", "oft_R.weight": "an OFT",
    "boft_R": "an OFT", "on_input": "an IA3", "ia3_l": "an IA3", "dora_scale": "a DoRA", "a1.weight": "a GLoRA",
    "lora_magnitude_vector": "a DoRA", "lora_magnitude_vector.weight": "a DoRA", "lora_mid.weight": "a LoCon",
    "lora_up.bias": "a LoRA with biases", "lora_B.bias": "a LoRA with biases", "w_norm": "changes of norms",
    "lora_E": "an AdaLoRA", "vera_lambda_b": "a VeRA",
}  # fmt: skip


@pytest.mark.parametrize("key", WORDS)
@pytest.mark.parametrize("whole", [True, False], ids=["beside factors", "alone"])
def test_other_kinds_are_named(unet, tmp_path, key, whole):
    tensors = {**(kohya(alpha=4.0) if whole else {}), f"{KOHYA}.{key}": torch.ones(2, 2)}
    with pytest.raises(UserError, match=rf"can't apply .*lora\.safetensors: it is .*{WORDS[key]}") as told:
        read(unet, tmp_path, tensors)
    assert "\n" not in str(told.value) and f"{KOHYA}.{key}" in str(told.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "changes a text encoder"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "changes a text encoder"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "changes a text encoder"),
        (f"unet.{LINEAR.removesuffix('.to_q')}.processor.to_q_lora.up.weight", "old versions of diffusers"),
        ("model.diffusion_model.out.2.weight", "a whole checkpoint"),
        ("bundle_emb.thing.string_to_param.*", "an embedding of textual inversion"),
        ("lora_unet_input_blocks_4_1_proj_in.lora_up.weight", r"belong to no weight of that network"),
        (f"lora_unet_{LINEAR}.lora_up.weight", r"belong to no weight of that network"),
        ("something.else", r"belong to no weight of that network \(for example something.else\)"),
    ],
)
def test_keys_that_stand_elsewhere_are_named(unet, tmp_path, key, words):
    with pytest.raises(UserError, match=words):
        read(unet, tmp_path, {**kohya(), key: torch.ones(1)})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "a DoRA"),
        ({"lora_bias": True}, "a LoRA with biases"),
        ({"bias": "all"}, "a LoRA with biases"),
        ({"use_qalora": True}, "a QALoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "started by pissa_niter_4, which also changes the base's weights"),
        ({"init_lora_weights": "OLoRA"}, "started by olora"),
        ({"r": 8}, f"{LINEAR}: its factors have rank 4, and the metadata says 8"),
        ({"rank_pattern": {"to_q": 2}, "r": R}, "rank 4, and the metadata says 2"),
        ({"lora_alpha": "8"}, "lora_alpha must be a finite number, got '8'"),
        ({"alpha_pattern": {"to_q": None}}, f"alpha_pattern of {LINEAR} must be a finite number, got None"),
        ({"alpha_pattern": {"to_q(": 2}}, "which is no regular expression"),
        ({"alpha_pattern": [2]}, "expected a JSON object as alpha_pattern, got [2]"),
        ({"rank_pattern": "to_q"}, "expected a JSON object as rank_pattern, got 'to_q'"),
    ],
)
def test_a_configuration_that_can_not_be_followed(unet, tmp_path, config, words):
    with pytest.raises(UserError, match=rf"can't apply .*: .*{re.escape(words)}"):
        read(unet, tmp_path, peft(), packed(config))


@pytest.mark.parametrize(
    ("kind", "tensors", "config", "words"),
    [
        ("no configuration", peft("base_model.model."), None, "adapter_config.json, which says how it is scaled"),
        ("another type", peft("base_model.model."), {"peft_type": "VERA"}, "it is of peft's type VERA"),
        ("no JSON", peft("base_model.model."), "{", "expected a JSON object as adapter_config.json"),
        ("a list", peft("base_model.model."), "[1]", "expected a JSON object as adapter_config.json"),
    ],
)
def test_a_folder_of_peft(unet, tmp_path, kind, tensors, config, words):
    with pytest.raises(UserError, match=words):
        read(unet, tmp_path, tensors, config=config, name="adapter_model.safetensors")


def test_the_configuration_of_another_file_has_no_say(unet, tmp_path):
    for config in ({"lora_alpha": 99, "use_rslora": True}, "{"):
        assert scale_of(read(unet, tmp_path, peft(), config=config)) == pytest.approx(1)
        assert scale_of(read(unet, tmp_path, kohya(alpha=2.0), config=config)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({}, None, "it holds no tensors"),
        ({f"{KOHYA}.lora_up.weight": UP}, None, f"{KOHYA}: expected two factors, up and down, got only up"),
        ({f"unet.{LINEAR}.lora_A.weight": DOWN}, None, f"unet.{LINEAR}: expected two factors, up and down, got only d"),
        ({f"{KOHYA}.alpha": torch.tensor(1.0)}, None, "got only alpha"),
        (kohya(alpha=0.0), None, f"{KOHYA}: expected one finite number other than 0 as alpha, got 0.0"),
        (kohya(alpha=math.nan), None, "as alpha, got nan"),
        (kohya(alpha=torch.ones(2)), None, "expected one finite number"),
        (kohya(scalar=math.inf), None, "as scalar, got inf"),
        (peft(up=UP[:, :3]), None, "of the same rank, got up (32, 3) and down (4, 32)"),
        (
            peft(up=UP[:, 0], down=DOWN[0]),
            None,
            "expected the factors up (out, rank) and down (rank, in), got up (32,)",
        ),
        (peft(up=UP[:, :0], down=DOWN[:0]), None, "got up (32, 0) and down (0, 32)"),
        (peft(up=UP.char()), None, "floating-point numbers, got torch.int8"),
        (peft(up=UP * math.nan), None, f"{LINEAR}.weight: its values are NaN or infinite there"),
        (peft(down=DOWN * math.inf), None, f"{LINEAR}.weight: its values are NaN or infinite there"),
        (kohya(), {"ss_network_args": "rs_lora=True"}, "a JSON object as ss_network_args, got 'rs_lora=True'"),
        (peft(), {"lora_adapter_metadata": "[]"}, "a JSON object as lora_adapter_metadata, got '[]'"),
        (peft(), {"lora_adapter_metadata": "{"}, "a JSON object as lora_adapter_metadata, got '{'"),
        (kohya(alpha=5.0), stabilised(), "its alpha 5 is neither ss_network_alpha nor that times the root of its rank"),
        (kohya(alpha=8.0), {"ss_network_args": '{"rs_lora": "True"}'}, "so that its scale is not known"),
    ],
)
def test_what_is_not_whole_or_not_sure_is_one_line(unet, tmp_path, tensors, metadata, words):
    with pytest.raises(UserError, match=rf"can't apply .*{re.escape(words)}") as told:
        read(unet, tmp_path, tensors, metadata)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({"conv_in.weight": torch.full((16, 4, 3, 3), math.nan)}, "conv_in.weight"),
        ({"lora_unet_out_2.diff_b": torch.tensor([0.0, math.inf, 0, 0])}, "conv_out.bias"),
    ],
)
def test_values_that_are_not_finite_in_other_formats(unet, tmp_path, tensors, name):
    with pytest.raises(UserError, match=rf"{name}: its values are NaN or infinite there"):
        read(unet, tmp_path, tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_factors_of_every_dtype(unet, tmp_path, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in kohya(alpha=8.0).items()}
    got = read(unet, tmp_path, tensors)[f"{LINEAR}.weight"]
    torch.testing.assert_close(got, 2 * UP.to(dtype).float() @ DOWN, rtol=1e-5, atol=1e-5)


def test_files_that_are_none(unet, tmp_path):
    read(unet, tmp_path, kohya())
    whole = (tmp_path / "lora.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-40])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name, words in (
        ("cut.safetensors", "can't read .*cut.safetensors as safetensors"),
        ("empty.safetensors", "can't read .*empty.safetensors as safetensors"),
        ("none.safetensors", "there is no .*none.safetensors. Correct the path"),
        (".", "expected a .safetensors file, got the folder .*Name a file in it"),
    ):
        with pytest.raises(UserError, match=words) as told:
            list(read_changes(tmp_path / name, unet))
        assert "\n" not in str(told.value)


def test_whole_numbers_are_no_weights(unet, tmp_path):
    with pytest.raises(UserError, match=r"conv_in.weight: expected floating-point numbers, got torch.int8"):
        read(unet, tmp_path, {"conv_in.weight": torch.ones(16, 4, 3, 3).char()})

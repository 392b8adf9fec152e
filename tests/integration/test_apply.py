"""Weights put onto models: half copies, strengths, number formats, and LoRAs as peft and diffusers write them."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
import turpentine
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from turpentine.pipeline.api import recipe_for
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.models import load_denoiser, wrap_pipeline
from turpentine.pipeline.run.export import apply_to_folder
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.support.errors import Caution, UserError
from turpentine.pipeline.weights import Job, base_hashes, check_dtype, kinship, snapshot, write_weights

from ..support.tiny_models import build_tiny_pipeline

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def moved(pipe, folder, name="change"):
    """Files of the formats delta and denoiser from a pipeline whose UNet is moved, by their format."""
    base = snapshot(pipe.unet)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    metadata = {**base_hashes(base).fields(), "turpentine.base_model": "tiny", "modelspec.architecture": "sd"}
    formats = ["delta", "denoiser", "lora"]
    records = write_weights(Job(wrap_pipeline(pipe), folder / "weights", name, "fp32", metadata, base=base), formats)
    return {record.format: folder / record.path for record in records}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Models on disk, whole and in half precision, and files that were made from each."""
    folder = tmp_path_factory.mktemp("made")
    models = {"fp32": build_tiny_pipeline()} | {name: build_tiny_pipeline().to(dtype) for name, dtype in HALVES.items()}
    for name, pipe in models.items():
        pipe.save_pretrained(folder / name)
    files = {name: moved(load_denoiser(str(folder / name), "cpu").pipeline, folder / f"from-{name}") for name in models}
    return SimpleNamespace(folder=folder, files=files)


def load(made, name, how):
    """A stored model as the command line loads it, or in the format that it is stored in."""
    if how == "float32":
        return load_denoiser(str(made.folder / name), "cpu").pipeline
    return DiffusionPipeline.from_pretrained(made.folder / name, dtype=HALVES.get(name, torch.float32))


@pytest.mark.parametrize("how", ["float32", "as stored"])
@pytest.mark.parametrize("kind", ["delta", "denoiser", "lora"])
@pytest.mark.parametrize(
    ("source", "target"), [("fp32", "fp32"), ("fp32", "fp16"), ("fp32", "bf16"), ("fp16", "fp32"), ("bf16", "fp32")]
)
def test_a_base_and_its_half_copies_are_known_for_each_other(made, source, target, kind, how):
    pipe = load(made, target, how)
    before = snapshot(pipe.unet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        turpentine.apply(pipe, made.files[source][kind])
    wanted = load(made, source, "float32")
    turpentine.apply(wanted, made.files[source][kind])
    after = pipe.unet.state_dict()
    gaps = [(after[name].float() - value).abs().max().item() for name, value in wanted.unet.state_dict().items()]
    assert max(gaps) < 0.02 and not same(before, after)
    assert same(before, turpentine.remove(pipe).unet.state_dict())


@pytest.mark.parametrize("dtype", HALVES)
def test_a_checkpoint_in_half_precision_is_a_copy_too(made, tmp_path, dtype):
    folder = str(made.folder / "fp32")
    job = Job(load_denoiser(folder, "cpu"), tmp_path / "weights", "base", dtype, {"modelspec.architecture": "sd"})
    checkpoint = tmp_path / write_weights(job, ["single_file"])[0].path
    pipe = load_denoiser(str(checkpoint), "cpu", folder).pipeline
    before = snapshot(pipe.unet)
    turpentine.apply(pipe, made.files["fp32"]["delta"])
    assert not same(before, pipe.unet.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES.values()])
@pytest.mark.parametrize("source", ["fp32", *HALVES])
def test_other_weights_are_not_known(made, source, dtype):
    pipe = load(made, "fp32", "float32")
    with torch.no_grad():
        pipe.unet.get_parameter("conv_in.weight").view(-1)[0] += 0.01
    pipe.unet.to(dtype)
    with pytest.raises(UserError, match="was made from other weights"):
        turpentine.apply(pipe, made.files[source]["delta"])


@pytest.mark.parametrize("kind", ["delta", "denoiser", "lora"])
def test_weights_that_differ_in_their_last_bit_are_others(made, kind):
    pipe = load(made, "fp32", "float32")
    with torch.no_grad():
        weight = pipe.unet.get_parameter("conv_in.weight").view(-1)
        weight[0] = weight[0].nextafter(torch.tensor(1.0))
    with pytest.raises(UserError, match="was made from other weights"):
        turpentine.apply(pipe, made.files["fp32"][kind])


def test_kinship_by_hand():
    base = {"a": torch.tensor([0.1, 0.2]), "count": torch.tensor([3])}
    half = {**base, "a": base["a"].half()}
    hashes = base_hashes(base)
    assert kinship(hashes, base) == "same"
    assert kinship(hashes, half) == kinship(hashes, {**half, "a": half["a"].float()}) == "half copy"
    assert kinship(base_hashes(half), base) == "original"
    assert kinship(base_hashes({**half, "a": half["a"].float()}), base) == "original"
    assert kinship(base_hashes(half), {**half, "a": half["a"].float()}) == "same"
    assert kinship(hashes, {**base, "a": base["a"].nextafter(torch.tensor(1.0))}) is None
    assert kinship(base_hashes(half), {**base, "a": base["a"].bfloat16()}) is None
    assert kinship(hashes, {**base, "count": torch.tensor([4])}) is None


# strength and number formats --------------------------------------------------------------------


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf, "0.5", None, True, [1.0]])
def test_a_strength_is_a_finite_number(made, tmp_path, strength):
    pipe = load(made, "fp32", "float32")
    before = snapshot(pipe.unet)
    with pytest.raises(UserError, match="strength must be a finite number"):
        turpentine.apply(pipe, made.files["fp32"]["delta"], strength)
    assert same(before, pipe.unet.state_dict())
    with pytest.raises(UserError, match="strength must be a finite number"):
        apply_to_folder(made.files["fp32"]["delta"], "no model is looked for", "cpu", tmp_path / "out", strength)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("strength", ["nan", "inf", "-inf", "1e400", "1e39"])
def test_the_command_writes_no_such_model(made, tmp_path, capsys, strength):
    weights, model, out = str(made.files["fp32"]["delta"]), str(made.folder / "fp32"), tmp_path / "out"
    assert main(["apply", weights, "--model", model, f"--strength={strength}", "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert "strength" in told.out + told.err and not out.exists()


def test_a_result_that_a_format_can_not_hold_leaves_the_model_as_it_was(made):
    pipe = load(made, "fp16", "as stored")
    before = snapshot(pipe.unet)
    with pytest.raises(UserError, match=r"at strength 1e\+07 its values become NaN or too large for torch.float16"):
        turpentine.apply(pipe, made.files["fp32"]["delta"], 1e7)
    assert same(before, pipe.unet.state_dict())
    with pytest.raises(UserError, match="nothing to remove"):
        turpentine.remove(pipe)


def test_a_model_too_large_for_fp16_is_not_written_as_such(made, tmp_path):
    weights, model = made.files["fp32"]["delta"], str(made.folder / "fp32")
    with pytest.raises(
        UserError, match=r"hold values up to .*, too large for fp16, whose largest number is 6\.55e\+04"
    ):
        apply_to_folder(weights, model, "cpu", tmp_path / "out", 1e7, "fp16")
    assert not list(tmp_path.iterdir())
    folder = apply_to_folder(weights, model, "cpu", tmp_path / "out", 1e7, "bf16")
    assert all(tensor.isfinite().all() for file in folder.rglob("*.safetensors") for tensor in load_file(file).values())
    with pytest.raises(UserError, match=r"dtype must be one of \['fp32', 'fp16', 'bf16'\], got 'fp8'"):
        apply_to_folder(weights, model, "cpu", tmp_path / "other", 1, "fp8")


@pytest.mark.parametrize("kind", ["diffusers", "denoiser", "single_file", "lora", "lora_diffusers", "delta"])
def test_no_format_turns_finite_weights_into_infinite_ones(tmp_path, kind):
    pipe = build_tiny_pipeline()
    base = snapshot(pipe.unet)
    with torch.no_grad():
        pipe.unet.get_parameter(f"{LAYER}.weight").add_(1e30)
    job = Job(wrap_pipeline(pipe), tmp_path, "x", "fp16", {"modelspec.architecture": "sd"}, base=base)
    with pytest.raises(UserError, match="too large for fp16"):
        write_weights(job, [kind])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_every_network_is_looked_at_before_the_work(part):
    pipe = build_tiny_pipeline()
    with torch.no_grad():
        next(getattr(pipe, part).parameters()).view(-1)[0] = 1e6
    denoiser = wrap_pipeline(pipe)
    check_dtype(denoiser, "fp32")
    check_dtype(denoiser, "bf16")
    with pytest.raises(UserError, match=r"values up to 1e\+06, too large for fp16"):
        check_dtype(denoiser, "fp16")


def test_weights_that_were_damaged_are_refused(made, tmp_path):
    """A bit that falls over leaves a readable file: the hash in its header tells."""
    content = bytearray(made.files["fp32"]["delta"].read_bytes())
    content[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(content)
    pipe = load(made, "fp32", "float32")
    before = snapshot(pipe.unet)
    with pytest.raises(UserError, match=r"are not those that its header was written for\. Get the file again"):
        turpentine.apply(pipe, tmp_path / "damaged.safetensors")
    assert same(snapshot(pipe.unet), before)
    with pytest.warns(Caution, match="are not those that its header was written for; applied all the same"):
        turpentine.apply(pipe, tmp_path / "damaged.safetensors", any_base=True)


def test_any_base_is_told_on_the_terminal(made, tmp_path, capsys):
    save_file({"lora_unet_out_2.diff_b": torch.ones(4)}, tmp_path / "plain.safetensors")
    model, out = str(made.folder / "fp32"), str(tmp_path / "out")
    assert main(["apply", str(tmp_path / "plain.safetensors"), "--model", model, "--out", out]) == 2
    assert main(["apply", str(tmp_path / "plain.safetensors"), "--model", model, "--out", out, "--any-base"]) == 0
    assert "warning: " in (told := capsys.readouterr().out) and "applied all the same" in told


# states of a pipeline ---------------------------------------------------------------------------


def test_a_compiled_network_takes_weights(made):
    pipe, plain = (load(made, "fp32", "float32") for _ in range(2))
    before = snapshot(pipe.unet)
    pipe.unet = torch.compile(pipe.unet)
    turpentine.apply(pipe, made.files["fp32"]["delta"])
    turpentine.apply(plain, made.files["fp32"]["delta"])
    assert same(pipe.unet._orig_mod.state_dict(), plain.unet.state_dict())
    turpentine.remove(pipe)
    assert same(pipe.unet._orig_mod.state_dict(), before)


def test_weights_in_eight_bits_take_what_fits(made):
    pipe = load(made, "fp32", "float32")
    pipe.unet.to(torch.float8_e4m3fn)
    before = snapshot(pipe.unet)
    with pytest.warns(Caution, match="applied all the same"):
        turpentine.apply(pipe, made.files["fp32"]["delta"], any_base=True)
    assert any(not torch.equal(before[name].float(), value.float()) for name, value in pipe.unet.state_dict().items())
    with pytest.raises(UserError, match="become NaN or too large for torch"):
        turpentine.apply(pipe, made.files["fp32"]["delta"], 1e6, any_base=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda unet: unet.to("meta"), "are not in its memory. Apply first, and then offload it"),
        (lambda unet: setattr(unet.conv_in, "weight", torch.nn.Parameter(torch.ones(2).char(), False)), "is quantised"),
    ],
)
def test_weights_that_can_not_be_changed_are_refused(made, change, words):
    pipe = load(made, "fp32", "float32")
    change(pipe.unet)
    with pytest.raises(UserError, match=words):
        turpentine.apply(pipe, made.files["fp32"]["delta"], any_base=True)


def with_adapter(pipe):
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q"]))


STATES = {
    "adapters": (with_adapter, "carries LoRA adapters. Call pipe.unload_lora_weights"),
    "fused attention": (lambda pipe: pipe.fuse_qkv_projections(), "is fused .fuse_qkv_projections"),
    "wrapped": (lambda pipe: setattr(pipe, "unet", torch.nn.DataParallel(pipe.unet)), "got it in a DataParallel"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", ["apply", "remove"])
def test_networks_whose_weights_have_other_names_are_refused_by_what_they_carry(made, state, call):
    change, words = STATES[state]
    pipe = load(made, "fp32", "float32")
    if call == "remove":
        turpentine.apply(pipe, made.files["fp32"]["delta"])
    change(pipe)
    with pytest.raises(UserError, match=words):
        turpentine.remove(pipe) if call == "remove" else turpentine.apply(pipe, made.files["fp32"]["delta"])


def test_weights_that_were_applied_before_an_adapter_can_be_taken_out_after_it(made):
    pipe = load(made, "fp32", "float32")
    before = snapshot(pipe.unet)
    turpentine.apply(pipe, made.files["fp32"]["delta"])
    with_adapter(pipe)
    pipe.unload_lora_weights()
    turpentine.remove(pipe)
    assert same(pipe.unet.state_dict(), before)


# LoRAs that others wrote ------------------------------------------------------------------------

CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 8},
    "rank-stabilised": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "r": 4, "lora_alpha": 8, "rank_pattern": {"to_k": 2, "conv1": 3},
        "alpha_pattern": {"attn1.to_q": 5, r"attn\d\.to_k": 7, "to_out.0": 3},
    },
    "patterns, rank-stabilised": {
        "r": 4, "lora_alpha": 3, "use_rslora": True, "rank_pattern": {"to_v": 6}, "alpha_pattern": {"to_v": 2},
    },
}  # fmt: skip
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1"]


@pytest.fixture(scope="module", params=CONFIGS)
def adapted(request, tmp_path_factory):
    """A UNet with an adapter of peft: what it is when merged, and the files that peft and diffusers write of it."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapted")
    pipe = build_tiny_pipeline()
    config = peft.LoraConfig(target_modules=TARGETS, init_lora_weights=False, **CONFIGS[request.param])
    torch.manual_seed(3)
    pipe.unet.add_adapter(config)
    state = peft.get_peft_model_state_dict(pipe.unet)
    metadata = pipe.unet.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(
        folder / "pipeline", unet_lora_layers=state, unet_lora_adapter_metadata=metadata
    )
    pipe.unet.save_lora_adapter(folder / "network")
    wrapped = peft.get_peft_model(build_tiny_pipeline().unet, config)
    wrapped.save_pretrained(folder / "peft")
    return SimpleNamespace(folder=folder, merged=wrapped.merge_and_unload().state_dict())


@pytest.mark.parametrize(
    "file",
    ["pipeline/pytorch_lora_weights.safetensors", "network/pytorch_lora_weights.safetensors",
     "peft/adapter_model.safetensors"],
)  # fmt: skip
def test_files_of_peft_and_diffusers_give_what_peft_merges(adapted, file):
    if file.startswith("peft"):
        expected = adapted.merged
    else:
        fused = build_tiny_pipeline()
        fused.load_lora_weights(adapted.folder / "pipeline", adapter_name="one")
        fused.fuse_lora()
        fused.unload_lora_weights()
        expected = fused.unet.state_dict()
    pipe = build_tiny_pipeline()
    with pytest.warns(Caution, match="does not say which weights it was made from"):
        turpentine.apply(pipe, adapted.folder / file, any_base=True)
    got, plain = pipe.unet.state_dict(), build_tiny_pipeline().unet.state_dict()
    assert set(got) == set(expected) and max((expected[name] - plain[name]).abs().max() for name in got) > 0.01
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5)


# a run's further formats ------------------------------------------------------------------------

TINY = {
    "steps": 1, "image_size": 16, "num_inference_steps": 2, "batch_size": 2, "prompts": {"n": 2, "n_test": 1},
    "audits": {"images": 1, "retain_train_images": 1, "alignment": False, "nudity": "off"},
}  # fmt: skip


def test_a_half_copy_is_no_base_for_a_difference(made, tmp_path, capsys):
    for source, other in (("fp32", "fp16"), ("bf16", "fp32")):
        base = str(made.folder / source)
        run_recipe(recipe_for("cat", base, TINY), tmp_path / source)
        export = ["export", str(tmp_path / source), "--formats", "delta", "--base"]
        assert main([*export, str(made.folder / other)]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "is not the model that the run started from" in told and "half-precision copy" in told
        assert "would hold the rounding, too. Say where the right one is with --base" in told
        assert not list((tmp_path / source).rglob("*-delta.safetensors"))
        assert main([*export, base]) == 0
        assert list((tmp_path / source).rglob("*-delta.safetensors"))

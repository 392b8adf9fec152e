"""Every format of every family: written, loaded elsewhere, applied, removed, refused."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
import turpentine
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from turpentine.pipeline.models import BUNDLED, load_denoiser, wrap_pipeline
from turpentine.pipeline.run.weights import run_header
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.recipe import OutputSection
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.files import sha256
from turpentine.pipeline.weights import (
    DTYPES,
    FORMATS,
    BaseHashes,
    Job,
    base_hashes,
    check_formats,
    check_tensors,
    read_header,
    snapshot,
    write_weights,
)
from turpentine.pipeline.weights.apply import denoiser_of
from turpentine.pipeline.weights.formats.single_file import checkpoint_tensors

from ..support.tiny_models import BUILDERS, build_sdxl

FAMILIES = ("sd1", "sd2-v", "sdxl", "sd3", "flux-dev")
RECIPE = build_recipe({"concept": "cat", "model": "someone/tiny"})
FILES = {"denoiser": "", "lora": "-lora", "lora_diffusers": "-lora-diffusers", "delta": "-delta"}


def denoiser_for(pipe, **save):
    """The pipeline's adapter; what is given goes to `save_pretrained`."""
    denoiser = wrap_pipeline(pipe, "tiny")
    if save:
        denoiser.save = lambda folder, dtype: pipe.save_pretrained(folder, **save)
    return denoiser


def unlearned(build, low_rank=False):
    """A pipeline whose denoiser's weights have moved, and what they were."""
    pipe = build()
    module = denoiser_of(pipe)
    base = snapshot(module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not low_rank:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            elif parameter.ndim > 1:
                rows = torch.randn(parameter.shape[0], 1, generator=generator)
                columns = torch.randn(1, parameter[0].numel(), generator=generator)
                parameter.add_(0.05 * (rows @ columns).reshape(parameter.shape))
    return pipe, base


def write(pipe, base, folder, formats, dtype="fp32", **options):
    denoiser = denoiser_for(pipe)
    metadata = run_header(denoiser, resolve(RECIPE), base_hashes(base), None)
    return write_weights(Job(denoiser, folder / "weights", "tiny", dtype, metadata, base=base, **options), formats)


@pytest.fixture(scope="module", params=FAMILIES)
def written(request, tmp_path_factory):
    """A family's weights in every format but diffusers; the change has rank 1 in every layer."""
    folder = tmp_path_factory.mktemp(request.param)
    build = BUILDERS[request.param]
    pipe, base = unlearned(build, low_rank=True)
    records = write(pipe, base, folder, ["single_file", *FILES], rank=2)
    state = snapshot(denoiser_of(pipe))
    return SimpleNamespace(
        family=request.param, build=build, pipe=pipe, pipe_state=state, folder=folder, records=records
    )


def weights(written, kind):
    return written.folder / "weights" / f"tiny{FILES[kind]}.safetensors"


def largest_gap(a, b):
    assert set(a) == set(b)
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_single_file_is_read_back_bit_for_bit(written, tmp_path):
    if written.family == "flux-dev":
        pytest.skip("the loader of diffusers takes Flux's own width only: see tests/unit/test_layouts.py")
    pipe = written.pipe
    pipe.save_pretrained(tmp_path)
    file = written.folder / "weights" / "tiny-checkpoint.safetensors"
    loaded = type(pipe).from_single_file(file, config=str(tmp_path), local_files_only=True)
    for name, component in pipe.components.items():
        if isinstance(component, torch.nn.Module):
            ours, theirs = component.state_dict(), getattr(loaded, name).state_dict()
            if written.family == "sd3" and name == "text_encoder":
                ours.pop("text_projection.weight"), theirs.pop("text_projection.weight")  # made an identity on loading
            assert set(ours) == set(theirs)
            assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_prefixes_of_the_checkpoint(written):
    with safe_open(written.folder / "weights" / "tiny-checkpoint.safetensors", "pt") as file:
        found = {".".join(name.split(".")[:3]) for name in file.keys()}
    expected = {
        "sd1": {"cond_stage_model.transformer.text_model", "first_stage_model.decoder.conv_in"},
        "sd2-v": {"cond_stage_model.model.positional_embedding", "cond_stage_model.model.transformer"},
        "sdxl": {"conditioner.embedders.0", "conditioner.embedders.1", "model.diffusion_model.label_emb"},
        "sd3": {"text_encoders.clip_l.transformer", "text_encoders.t5xxl.transformer"},
        "flux-dev": {"double_blocks.0.img_attn", "single_blocks.1.linear1"},
    }
    assert expected[written.family] <= found


@pytest.mark.parametrize("kind", FILES)
def test_apply_gives_the_unlearned_weights_and_remove_the_base(written, kind):
    pipe = written.build()
    module = denoiser_of(pipe)
    before = snapshot(module)
    assert turpentine.apply(pipe, weights(written, kind)) is pipe
    gap = largest_gap(module.state_dict(), written.pipe_state)
    assert gap == 0 if kind == "denoiser" else gap < 1e-5
    assert turpentine.remove(pipe) is pipe
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("kind", ["lora", "lora_diffusers"])
def test_diffusers_loads_the_lora(written, kind):
    if kind == "lora" and written.family in ("sd3", "flux-dev"):
        pytest.skip("of kohya's names diffusers knows none for SD3, and Flux's at its own width only")
    pipe = written.build()
    pipe.load_lora_weights(weights(written, kind))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert largest_gap(denoiser_of(pipe).state_dict(), written.pipe_state) < 1e-5


def test_records_and_headers(written):
    records = {record.format: record for record in written.records}
    assert list(records) == ["single_file", *FILES]
    for kind, record in records.items():
        path = written.folder / record.path
        metadata = read_header(path)
        assert metadata["turpentine.format"] == kind and metadata["turpentine.concept"] == "cat"
        assert record.sha256 == sha256(path) and record.bytes == path.stat().st_size
        assert check_tensors(path)
    for kind in ("lora", "lora_diffusers"):
        fit = records[kind].lora
        assert fit.rank == 2 and fit.residual < 1e-5 and fit.left_out_share == 0
        assert json.loads(read_header(written.folder / records[kind].path)["turpentine.lora"]) == fit.model_dump()
    assert records["delta"].lora is None


# one family is enough for the rest ----------------------------------------------------------------


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Stable Diffusion 1 with every weight, norms and biases too, moved."""
    folder = tmp_path_factory.mktemp("full")
    pipe, base = unlearned(BUILDERS["sd1"])
    write(pipe, base, folder, list(FILES), rank=3)
    return SimpleNamespace(pipe=pipe, base=base, folder=folder, build=BUILDERS["sd1"])


def draw(pipe):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", num_inference_steps=2, generator=generator, output_type="np").images


def test_a_delta_at_full_strength_draws_the_same_picture(full):
    pipe = turpentine.apply(full.build(), weights(full, "delta"))
    assert abs(draw(pipe) - draw(full.pipe)).max() < 1e-5
    untouched = full.build()
    assert abs(draw(untouched) - draw(full.pipe)).max() > 1e-3


@pytest.mark.parametrize("kind", ["denoiser", "delta"])
@pytest.mark.parametrize("strength", [0.0, 0.5, -1.0])
def test_strength_scales_the_change(full, kind, strength):
    pipe = turpentine.apply(full.build(), weights(full, kind), strength)
    after = full.pipe.unet.state_dict()
    for name, tensor in pipe.unet.state_dict().items():
        expected = full.base[name] + strength * (after[name] - full.base[name])
        assert torch.allclose(tensor, expected, atol=1e-6)


def test_two_files_add_up_and_come_off_together(full):
    pipe = full.build()
    for _ in range(2):
        turpentine.apply(pipe, weights(full, "delta"), 0.25)
    once = turpentine.apply(full.build(), weights(full, "delta"), 0.5)
    assert largest_gap(pipe.unet.state_dict(), once.unet.state_dict()) < 1e-6
    turpentine.remove(pipe)
    assert largest_gap(pipe.unet.state_dict(), full.base) == 0
    with pytest.raises(UserError, match="nothing to remove: no weights were applied"):
        turpentine.remove(pipe)


def test_the_residual_that_is_told_is_the_one_there_is(full):
    pipe = turpentine.apply(full.build(), weights(full, "lora"))
    after, missed, size = full.pipe.unet.state_dict(), 0.0, 0.0
    for name, tensor in pipe.unet.state_dict().items():
        if tensor.ndim > 1:
            missed += (after[name] - tensor).double().square().sum().item()
            size += (after[name] - full.base[name]).double().square().sum().item()
    fit = json.loads(read_header(weights(full, "lora"))["turpentine.lora"])
    assert fit["residual"] == pytest.approx((missed / size) ** 0.5, rel=1e-4)
    assert fit["left_out"] == {"biases": 59, "norms and others": 66}


def test_the_base_is_checked(full, tmp_path):
    other = full.build()
    with torch.no_grad():
        other.unet.conv_in.bias.add_(1)
    with pytest.raises(UserError, match=r"made from other weights \('someone/tiny'\).*any_base=True"):
        turpentine.apply(other, weights(full, "delta"))
    before = snapshot(other.unet)
    with pytest.warns(UserWarning, match="applied all the same"):
        turpentine.apply(other, weights(full, "delta"), any_base=True)
    turpentine.remove(other)
    assert largest_gap(other.unet.state_dict(), before) == 0
    save_file(load_file(weights(full, "lora")), tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="does not say which weights it was made from"):
        turpentine.apply(full.build(), tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_the_base_is_known_in_half_precision(full, dtype):
    pipe = full.build().to(DTYPES[dtype])
    before = snapshot(pipe.unet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        turpentine.apply(pipe, weights(full, "delta"))
    gap = largest_gap(pipe.unet.state_dict(), {k: v.to(DTYPES[dtype]) for k, v in full.pipe.unet.state_dict().items()})
    assert gap < 0.02
    turpentine.remove(pipe)
    assert all(torch.equal(before[name], tensor) for name, tensor in pipe.unet.state_dict().items())


def test_files_of_another_network_leave_everything_as_it_was(full, tmp_path):
    pipe = build_sdxl()
    before = snapshot(pipe.unet)
    for kind in FILES:
        with pytest.raises(UserError, match=r"belong to no weight of that network|another size"):
            turpentine.apply(pipe, weights(full, kind), any_base=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in pipe.unet.state_dict().items())
    tensors = load_file(weights(full, "delta"))
    tensors["lora_unet_out_2.diff"] = torch.zeros(1, 2)
    save_file(tensors, tmp_path / "wrong.safetensors")
    pipe = full.build()
    with pytest.raises(UserError, match=r"network of another size: expected the shape \(4, 16, 3, 3\), got \(1, 2\)"):
        turpentine.apply(pipe, tmp_path / "wrong.safetensors", any_base=True)
    assert largest_gap(pipe.unet.state_dict(), full.base) == 0
    with pytest.raises(UserError, match="expected a diffusers pipeline with a unet or a transformer, got dict"):
        turpentine.apply({}, weights(full, "delta"))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["single_file", "lora", "lora_diffusers", "delta"])
def test_half_precision_on_disk(full, tmp_path, kind, dtype):
    record = write(full.pipe, full.base, tmp_path, [kind], dtype, rank=2)[0]
    tensors = load_file(tmp_path / record.path)
    assert {tensor.dtype for tensor in tensors.values()} == {DTYPES[dtype]}
    if kind == "single_file":
        name = "model.diffusion_model.out.2.weight"
        assert torch.equal(tensors[name], full.pipe.unet.conv_out.weight.to(DTYPES[dtype]))


def test_energy_in_place_of_a_rank(full, tmp_path):
    fit = write(full.pipe, full.base, tmp_path, ["lora"], energy=0.9)[0].lora
    assert fit.residual**2 <= 0.1 and fit.rank > 3


def test_every_shard_is_tagged_and_hashed(full, tmp_path):
    denoiser = denoiser_for(full.pipe, max_shard_size="300KB")
    metadata = run_header(denoiser, resolve(RECIPE), BaseHashes("0" * 64), None)
    record = write_weights(Job(denoiser, tmp_path / "weights", "tiny", "fp32", metadata), ["diffusers"])[0]
    shards = sorted((tmp_path / record.path / "unet").glob("*.safetensors"))
    assert len(shards) > 2
    for shard in shards:
        assert read_header(shard)["turpentine.concept"] == "cat" and check_tensors(shard)
    assert record.bytes == sum(shard.stat().st_size for shard in shards)
    assert record.sha256 == sha256(*shards) != sha256(shards[0])
    loaded = DiffusionPipeline.from_pretrained(tmp_path / record.path)
    assert largest_gap(loaded.unet.state_dict(), full.pipe.unet.state_dict()) == 0


def test_v_prediction_is_told():

    assert "v_pred" in checkpoint_tensors(wrap_pipeline(build_sdxl("v_prediction")))
    assert "v_pred" not in checkpoint_tensors(wrap_pipeline(build_sdxl()))
    pipe = BUILDERS["sd2-v"]()
    header = run_header(denoiser_for(pipe), resolve(RECIPE), BaseHashes(""), None)
    assert header["modelspec.prediction_type"] == "v" and "ss_zero_terminal_snr" not in header


def test_what_is_said_of_a_denoiser_alone_is_heeded_when_it_is_loaded(tmp_path):
    pipe = BUILDERS["sd2-v"]()
    pipe.save_pretrained(tmp_path / "configs")
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    header = run_header(denoiser_for(pipe), resolve(RECIPE), BaseHashes(""), None)
    save_file(pipe.unet.state_dict(), tmp_path / "unet.safetensors", header)
    loaded = load_denoiser(str(tmp_path / "unet.safetensors"), "cpu", str(tmp_path / "configs"))
    assert loaded.pipeline.scheduler.config.rescale_betas_zero_snr


# refusals -----------------------------------------------------------------------------------------


def test_tiny_canvas_has_no_checkpoint_layout():
    denoiser = load_denoiser(str(BUNDLED["tiny-canvas"]), "cpu")
    with pytest.raises(UserError, match=r"has an AutoencoderTiny.*Choose the formats diffusers, denoiser, lora"):
        check_formats(denoiser, ["diffusers", "single_file"])
    check_formats(denoiser, [kind for kind in FORMATS if kind != "single_file"])


def test_formats_of_a_difference_need_the_base(full, tmp_path):
    with pytest.raises(UserError, match="need the weights before unlearning; got none"):
        write_weights(Job(denoiser_for(full.pipe), tmp_path / "weights", "tiny", "fp32", {}), ["delta"])


@pytest.mark.parametrize(("kind", "text"), [("delta", "the weights are the base's"), ("lora", "none differs")])
def test_nothing_changed(full, tmp_path, kind, text):
    pipe = full.build()
    with pytest.raises(UserError, match=text):
        write(pipe, snapshot(pipe.unet), tmp_path, [kind])
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_damaged_file_is_noticed(full, tmp_path):
    tensors, metadata = load_file(weights(full, "delta")), read_header(weights(full, "delta"))
    tensors["lora_unet_out_2.diff"] += 1
    save_file(tensors, tmp_path / "damaged.safetensors", metadata)
    assert check_tensors(tmp_path / "damaged.safetensors") is False


def test_the_recipe_offers_every_format():
    assert OutputSection(formats=tuple(FORMATS)).formats == tuple(FORMATS)
    with pytest.raises(UserError, match=r"output\.formats"):
        build_recipe({"concept": "cat", "output": {"formats": ["ckpt"]}})

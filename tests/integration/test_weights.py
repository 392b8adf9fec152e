"""Weights that are written load elsewhere, and say where they came from."""

import errno
import json
import os

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from turpentine.pipeline.models import borrowed, wrap_pipeline
from turpentine.pipeline.models.lineage import lineage_of
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.recipe import Recipe
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.files import sha256
from turpentine.pipeline.weights import (
    DTYPES,
    BaseHashes,
    Job,
    header,
    read_header,
    tensors_sha256,
    versions,
    write_weights,
)

from ..support.tiny_models import build_tiny_pipeline

RECIPE = build_recipe({"concept": "pop art", "kind": "style", "model": "someone/tiny", "seed": 3})
BOTH = ("diffusers", "denoiser")


@pytest.fixture
def denoiser():
    return wrap_pipeline(build_tiny_pipeline(), "someone/tiny")


def state(pipeline):
    return {
        f"{part}.{name}": (value.dtype, value.clone())
        for part in ("unet", "vae", "text_encoder")
        for name, value in getattr(pipeline, part).state_dict().items()
    }


def same(a, b):
    return set(a) == set(b) and all(a[k][0] == b[k][0] and torch.equal(a[k][1], b[k][1]) for k in a)


def write(denoiser, folder, formats=BOTH, dtype="fp32", metadata=None):
    metadata = metadata or made(denoiser)
    return write_weights(Job(denoiser, folder, "tiny-without-pop-art", dtype, metadata), formats)


def made(denoiser):
    """A header with figures."""
    return header(
        denoiser, BaseHashes("0" * 64), BaseHashes("1" * 64), model=RECIPE.model,
        lineage=lineage_of(RECIPE.model), concepts=RECIPE.concepts, method="rgd", seed=RECIPE.seed,
        recipe=RECIPE.to_yaml(), figures={"alignment": {"forget": 0.25}},
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_formats_load_elsewhere_with_the_same_weights(denoiser, tmp_path, dtype):
    before = state(denoiser.pipeline)
    expected = {name: value.to(DTYPES[dtype]) for name, value in denoiser.module.state_dict().items()}
    folder_record, file_record = write(denoiser, tmp_path / "weights", dtype=dtype)
    assert same(state(denoiser.pipeline), before), "the pipeline is left bit for bit as it was"

    loaded = DiffusionPipeline.from_pretrained(tmp_path / "weights" / "diffusers", dtype=DTYPES[dtype])
    assert type(loaded) is StableDiffusionPipeline
    assert set(loaded.unet.state_dict()) == set(expected)
    for name, value in loaded.unet.state_dict().items():
        assert value.dtype == DTYPES[dtype] and torch.equal(value, expected[name])
    for part in ("vae", "text_encoder"):
        for name, value in getattr(loaded, part).state_dict().items():
            original = getattr(denoiser.pipeline, part).state_dict()[name]
            assert torch.equal(value, original.to(value.dtype))

    file = tmp_path / file_record.path
    assert file.name == "tiny-without-pop-art.safetensors"
    unet = UNet2DConditionModel.from_config(denoiser.module.config).to(DTYPES[dtype])
    unet.load_state_dict(load_file(file))
    assert all(torch.equal(value, expected[name]) for name, value in unet.state_dict().items())

    assert (folder_record.format, folder_record.path) == ("diffusers", "weights/diffusers")
    assert (file_record.format, file_record.path) == ("denoiser", "weights/tiny-without-pop-art.safetensors")
    assert file_record.sha256 == sha256(file) and file_record.bytes == file.stat().st_size
    inner = next((tmp_path / "weights" / "diffusers" / "unet").glob("*.safetensors"))
    assert folder_record.sha256 == sha256(inner) and folder_record.bytes == inner.stat().st_size
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["diffusers", file.name]


def test_loaded_folder_draws_the_same_image(denoiser, tmp_path):
    write(denoiser, tmp_path / "weights", ["diffusers"])
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "weights" / "diffusers")

    def draw(pipeline):
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return pipeline("a cat", num_inference_steps=2, generator=generator, output_type="latent").images

    assert torch.equal(draw(loaded), draw(denoiser.pipeline))


def test_writing_leaves_gradients_and_modes(denoiser, tmp_path):
    parameters = list(denoiser.module.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    denoiser.module.train()
    write(denoiser, tmp_path / "weights", dtype="fp16")
    assert all(a is b for a, b in zip(parameters, denoiser.module.parameters(), strict=True))
    assert not parameters[0].requires_grad and parameters[2].requires_grad
    assert denoiser.module.training
    assert parameters[1].grad.dtype == torch.float32 and torch.equal(parameters[1].grad, torch.ones_like(parameters[1]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_half_precision_pipeline_comes_back_in_half_precision(tmp_path, dtype):
    pipeline = build_tiny_pipeline().to(torch.float16)
    before = state(pipeline)
    with borrowed(pipeline) as denoiser:
        write(denoiser, tmp_path / "weights", dtype=dtype)
    assert same(state(pipeline), before)


def test_writing_again_replaces(denoiser, tmp_path):
    write(denoiser, tmp_path / "weights")
    with torch.no_grad():
        denoiser.module.conv_in.weight.add_(1)
    write(denoiser, tmp_path / "weights")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "weights" / "diffusers")
    assert torch.equal(loaded.unet.conv_in.weight, denoiser.module.conv_in.weight)
    assert len(list((tmp_path / "weights").iterdir())) == 2


@pytest.mark.parametrize("umask", [0o022, 0o027], ids=oct)
def test_every_written_file_has_the_permissions_that_the_umask_gives(denoiser, tmp_path, umask):
    before = os.umask(umask)
    try:
        write(denoiser, tmp_path / "weights")
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 5 and {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~umask}


# provenance -------------------------------------------------------------------------------------


def test_header_tells_where_the_weights_came_from(denoiser, tmp_path):
    written = write(denoiser, tmp_path / "weights")
    inner = next((tmp_path / "weights" / "diffusers" / "unet").glob("*.safetensors"))
    for path in (inner, tmp_path / written[1].path):
        metadata = read_header(path)
        expected = made(denoiser)
        assert {key: metadata[key] for key in expected} == expected
        assert metadata["modelspec.title"] == "tiny without pop art"
        assert metadata["turpentine.base_model"] == "someone/tiny"
        assert metadata["turpentine.base_sha256"] == "0" * 64
        assert metadata["turpentine.concept"] == "pop art"
        assert metadata["turpentine.method"] == "rgd" and metadata["turpentine.seed"] == "3"
        assert json.loads(metadata["turpentine.audits"]) == {"alignment": {"forget": 0.25}}
        assert json.loads(metadata["turpentine.versions"]) == versions()
        assert Recipe.model_validate(yaml.safe_load(metadata["turpentine.recipe"])) == RECIPE


def test_versions():
    found = versions()
    assert found["torch"] == torch.__version__ or torch.__version__.startswith(found["torch"])
    assert {"turpentine", "diffusers", "transformers", "safetensors"} <= set(found)


def test_header_of_a_file_without_one(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert read_header(tmp_path / "a.safetensors") == {}


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin", ".pkl", ".CKPT"])
def test_pickles_are_not_opened(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"is a pickle, which can run any code .*expected a \.safetensors file"):
        read_header(path)


def test_files_that_are_no_safetensors(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"can't read .*a\.safetensors as safetensors"):
        read_header(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"can't read .*none\.safetensors as safetensors"):
        read_header(tmp_path / "none.safetensors")


def test_hash_of_tensors():
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.bfloat16)}
    plain = tensors_sha256(tensors)
    assert tensors_sha256(dict(reversed(tensors.items()))) == plain, "the order of names does not matter"
    assert tensors_sha256({**tensors, "a": tensors["a"].T.contiguous().T}) == plain, "nor does the memory layout"
    assert tensors_sha256({**tensors, "a": tensors["a"].reshape(3, 2)}) != plain
    assert tensors_sha256({**tensors, "a": tensors["a"].double()}) != plain
    assert tensors_sha256({"c": tensors["a"], "b": tensors["b"]}) != plain
    assert tensors_sha256({**tensors, "a": tensors["a"] + 1e-6}) != plain
    assert tensors_sha256({"scalar": torch.tensor(1.0)}) != tensors_sha256({"scalar": torch.tensor(2.0)})


# failures ---------------------------------------------------------------------------------------


def test_unknown_format(denoiser, tmp_path):
    with pytest.raises(UserError, match=r"weights format must be one of .*'delta'.*, got 'ckpt'"):
        write(denoiser, tmp_path / "weights", ["ckpt"])


def files_under(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("kind", BOTH)
def test_full_disk_leaves_nothing_half_written(denoiser, tmp_path, monkeypatch, kind, earlier):
    if earlier:
        write(denoiser, tmp_path / "weights", [kind])
    before, weights = files_under(tmp_path), state(denoiser.pipeline)
    monkeypatch.setattr("turpentine.pipeline.weights.provenance.save_file", full_disk)
    with pytest.raises(UserError, match=r"can't write .*No space left on device\. Free some space or choose another"):
        write(denoiser, tmp_path / "weights", [kind], dtype="fp16")
    assert files_under(tmp_path) == before
    assert same(state(denoiser.pipeline), weights)


@pytest.mark.parametrize("kind", BOTH)
def test_full_disk_under_safetensors(denoiser, tmp_path, kind):
    """The system refuses large files; what was there stays and the pipeline is untouched."""
    resource = pytest.importorskip("resource")
    write(denoiser, tmp_path / "weights", [kind], dtype="fp16")
    before, weights = files_under(tmp_path), state(denoiser.pipeline)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match=r"can't write .*File too large"):
            write(denoiser, tmp_path / "weights", [kind], dtype="bf16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_under(tmp_path) == before
    assert same(state(denoiser.pipeline), weights)


@pytest.mark.parametrize("kind", BOTH)
def test_interruption_leaves_nothing_half_written(denoiser, tmp_path, monkeypatch, kind):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    weights = state(denoiser.pipeline)
    monkeypatch.setattr("turpentine.pipeline.weights.provenance.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(denoiser, tmp_path / "weights", [kind], dtype="fp16")
    assert files_under(tmp_path) == {}
    assert same(state(denoiser.pipeline), weights)

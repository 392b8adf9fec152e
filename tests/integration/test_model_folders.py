"""Folders as people have them: whole, in variants, incomplete, damaged, or of something else."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from turpentine.pipeline.models import BUNDLED, choose_device, load_denoiser
from turpentine.pipeline.models.architectures import find_architecture
from turpentine.pipeline.models.lineage import header_of, lineage_of, pipeline_class_of, place_of_model
from turpentine.pipeline.models.load import check_model
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError

from ..support.tiny_models import BUILDERS, build_family

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 492265168\n"
INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TOKENS, TOKENS_CONFIG = "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "sd1"
    build_family("sd1").save_pretrained(path)
    return path


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "model"))


def states(pipeline):
    return {
        f"{name}.{key}": value
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
    }


def assert_same(pipeline, expected):
    got, want = states(pipeline), states(expected)
    assert got.keys() == want.keys() and all(torch.equal(got[key], want[key]) for key in want)


# whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("shards", [None, "4KB"])
def test_a_whole_folder_of_every_family_loads_bit_for_bit(name, shards, tmp_path):
    expected = build_family(name)
    expected.save_pretrained(tmp_path / "m", **({"max_shard_size": shards} if shards else {}))
    denoiser = load_denoiser(str(tmp_path / "m"), "cpu")
    assert_same(denoiser.pipeline, expected)
    assert denoiser.warnings == () and not any(part.training for part in (denoiser.module, denoiser.pipeline.vae))
    denoiser.release()
    denoiser.restore()
    assert_same(denoiser.pipeline, expected)


@pytest.mark.parametrize("model", BUNDLED)
def test_bundled_models_load_as_diffusers_loads_them(model):
    denoiser = load_denoiser(model, "cpu")
    kind = type(denoiser.pipeline)
    lacks = {name: None for name, part in denoiser.pipeline.components.items() if part is None}
    assert_same(denoiser.pipeline, kind.from_pretrained(BUNDLED[model], **lacks, use_safetensors=True))
    assert denoiser.warnings == ()


@pytest.mark.parametrize(
    ("name", "parts"), [("sd1", None), ("sd1", ["vae"]), ("sdxl", None), ("sd3", ["text_encoder_3"])]
)
@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_the_only_variant_is_loaded_and_told(name, parts, variant, tmp_path):
    expected = build_family(name).to(torch.float16)
    expected.save_pretrained(tmp_path / "m", variant=variant)
    if parts is not None:
        expected.save_pretrained(tmp_path / "full")
        for part in (part for part in expected.components if part not in parts and (tmp_path / "m" / part).exists()):
            shutil.rmtree(tmp_path / "m" / part)
            shutil.copytree(tmp_path / "full" / part, tmp_path / "m" / part)
    denoiser = load_denoiser(str(tmp_path / "m"), "cpu")
    assert_same(denoiser.pipeline, expected.to(torch.float32))
    (told,) = denoiser.warnings
    assert f"in the variant '{variant}' alone" in told and (parts is None or f"holds {parts[0]} in" in told)
    denoiser.release()
    denoiser.restore()
    assert_same(denoiser.pipeline, expected)


def test_sharded_variants_load(tmp_path):
    expected = build_family("sd1").to(torch.float16)
    expected.save_pretrained(tmp_path / "m", variant="fp16", max_shard_size="20KB")
    assert len(list((tmp_path / "m" / "unet").glob("*.safetensors"))) > 2
    assert_same(load_denoiser(str(tmp_path / "m"), "cpu").pipeline, expected.to(torch.float32))


def test_the_full_weights_win_over_a_variant(folder):
    half = build_family("sd1").to(torch.float16)
    half.unet.conv_in.weight.data.zero_()
    half.save_pretrained(folder, variant="fp16")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_text(POINTER)
    denoiser = load_denoiser(str(folder), "cpu")
    assert_same(denoiser.pipeline, build_family("sd1"))
    assert denoiser.warnings == ()


def test_a_tokenizer_in_the_older_files_loads(folder):
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["model"]["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    load_denoiser(str(folder), "cpu").encode_prompts(["a cat"])


def test_a_hub_id_in_the_cache_loads_like_its_folder(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--somebody--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    denoiser = load_denoiser("somebody/model", "cpu")
    assert denoiser.name == "somebody/model"
    assert_same(denoiser.pipeline, build_family("sd1"))
    denoiser.release()
    denoiser.restore()
    (snapshot / UNET).write_bytes((snapshot / UNET).read_bytes()[:-50])
    with pytest.raises(UserError, match=r"can't read .*unet.*cut short or damaged"):
        load_denoiser("somebody/model", "cpu")


# incomplete and damaged ---------------------------------------------------------------------------


def cut(path, keep=-100):
    path.write_bytes(path.read_bytes()[:keep])


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_key(path, ending):
    tensors = load_file(path)
    del tensors[next(key for key in tensors if key.endswith(ending))]
    save_file(tensors, path, {"format": "pt"})


def rename_keys(path):
    save_file({f"x.{key}": value for key, value in load_file(path).items()}, path, {"format": "pt"})


def other_values(path, ending, values):
    tensors = load_file(path)
    tensors[next(key for key in tensors if key.endswith(ending))] = values
    save_file(tensors, path, {"format": "pt"})


def add_tensor(path, key):
    save_file({**load_file(path), key: torch.zeros(1)}, path, {"format": "pt"})


def pickled(folder, part="unet"):
    file = next((folder / part).glob("*.safetensors"))
    file.rename(file.with_name("diffusion_pytorch_model.bin"))


def sharded(folder, change):
    shutil.rmtree(folder / "unet")
    build_family("sd1").unet.save_pretrained(folder / "unet", max_shard_size="20KB")
    change(folder / "unet")


DAMAGED = {
    "index is cut": (lambda f: cut(f / INDEX, 30), r"model_index\.json is not JSON"),
    "index is a list": (lambda f: (f / INDEX).write_text("[]"), r"JSON object in .*model_index\.json, fo"),
    "index is empty": (lambda f: (f / INDEX).write_text(""), r"model_index\.json is empty"),
    "index is a pointer": (lambda f: (f / INDEX).write_text(POINTER), r"index\.json is a Git LFS pointer"),
    "index is binary": (lambda f: (f / INDEX).write_bytes(b"\xff\xfe\x00"), r"model_index\.json is not JSON"),
    "no index": (lambda f: (f / INDEX).unlink(), r"found none in .*model\. Give the folder of a whole"),
    "other class": (lambda f: edit(f / INDEX, _class_name="AudioLDM"), r"of one of .* got AudioLDM in"),
    "custom class": (lambda f: edit(f / INDEX, _class_name=["p", "Mine"]), r"got \['p', 'Mine'\] in"),
    "no class": (lambda f: edit(f / INDEX, _class_name=None), "got None in"),
    "class of another version": (
        lambda f: edit(f / INDEX, unet=["diffusers", "UNet9DModel"], _diffusers_version="9.9"),
        r"UNet9DModel of diffusers as its unet, .*made with diffusers 9\.9, installed is",
    ),
    "custom component": (
        lambda f: edit(f / INDEX, unet=["my_unet", "MyUNet"]), "MyUNet of my_unet .* Custom code is not"
    ),
    "names no vae": (lambda f: edit(f / INDEX, vae=[None, None]), r"model_index\.json names no vae"),
    "no text encoder": (
        lambda f: edit(f / INDEX, text_encoder=[None, None], tokenizer=[None, None]),
        "names no text_encoder and no tokenizer",
    ),
    "refiner": (lambda f: edit(f / INDEX, requires_aesthetics_score=True), "is an SDXL refiner"),
    "unet folder": (lambda f: shutil.rmtree(f / "unet"), r"names a unet, and the folder .*unet is missing"),
    "scheduler folder": (lambda f: shutil.rmtree(f / "scheduler"), "names a scheduler, and the folder"),
    "tokenizer folder": (lambda f: shutil.rmtree(f / "tokenizer"), "names a tokenizer, and the folder"),
    "a file in a folder's place": (
        lambda f: (shutil.rmtree(f / "vae"), (f / "vae").write_text("x")), "names a vae, and the folder"
    ),
    "unet config": (lambda f: (f / "unet/config.json").unlink(), r"unet/config\.json is missing"),
    "vae config is cut": (lambda f: cut(f / "vae/config.json", 50), r"vae/config\.json is not JSON"),
    "text config is a list": (lambda f: (f / "text_encoder/config.json").write_text("[1]"), "found a list"),
    "betas that give nan": (lambda f: edit(f / SCHEDULER, beta_end=math.nan), "noise levels outside"),
    "flow sigmas": (lambda f: edit(f / SCHEDULER, use_flow_sigmas=True), "can't train .*use_flow_sigmas must be off"),
    "config of nonsense": (lambda f: edit(f / "unet/config.json", block_out_channels="many"), "can't load the unet in"),
    "config of another": (lambda f: edit(f / "unet/config.json", norm_num_groups=7), "can't load the unet in"),
    "text config of nonsense": (lambda f: edit(f / "text_encoder/config.json", hidden_size="x"), "load the text_enc"),
    "scheduler config": (lambda f: cut(f / SCHEDULER, 9), "scheduler_config.json is not JSON"),
    "no scheduler config": (lambda f: (f / SCHEDULER).unlink(), "scheduler_config.json is missing"),
    "empty scheduler config": (lambda f: (f / SCHEDULER).write_text("{}"), r"scheduler_config\.json holds no settings"),
    "scheduler of nonsense": (
        lambda f: edit(f / SCHEDULER, beta_schedule="x"), "can't load the model"
    ),
    "no weights": (lambda f: (f / UNET).unlink(), "expected the weights of the unet in .*unet.*, found none"),
    "only pickles": (pickled, r"found none, only pickles such as diffusion_pytorch_model\.bin"),
    "only a pickled text encoder": (lambda f: pickled(f, "text_encoder"), "of the text_encoder in .*found none, on"),
    "unet pointer": (lambda f: (f / UNET).write_text(POINTER), "unet/diffusion_pytorch_model.safetensors is a Git LFS"),
    "text pointer": (lambda f: (f / TEXT).write_text(POINTER), "text_encoder/model.safetensors is a Git LFS pointer"),
    "tokenizer pointer": (lambda f: (f / TOKENS).write_text(POINTER), "tokenizer.json is a Git LFS"),
    "tokenizer config pointer": (
        lambda f: (f / "tokenizer/tokenizer_config.json").write_text(POINTER), "tokenizer_config.json is a Git LFS"
    ),
    "unet is cut": (lambda f: cut(f / UNET), r"can't read .*unet.*cut short or damaged"),
    "text is cut": (lambda f: cut(f / TEXT), r"can't read .*text_encoder.*cut short or damaged"),
    "vae is cut to its header": (lambda f: cut(f / VAE, 9), "cut short or damaged"),
    "unet is empty": (lambda f: (f / UNET).write_bytes(b""), "safetensors is empty"),
    "unet is html": (lambda f: (f / UNET).write_text("<!doctype html><html>404</html>"), "cut short or damaged"),
    "no tokenizer files": (lambda f: (f / TOKENS).unlink(), "neither tokenizer.json nor vocab.json"),
    "tokenizer is cut": (lambda f: cut(f / TOKENS), r"tokenizer\.json is not JSON"),
    "tokenizer of nonsense": (lambda f: (f / TOKENS).write_text("{}"), r"tokenizer\.json describes no tokenizer"),
    "tokenizer config is cut": (lambda f: cut(f / TOKENS_CONFIG, 40), r"tokenizer_config\.json is not JSON"),
    "tokenizer config is a list": (lambda f: (f / TOKENS_CONFIG).write_text("[1]"), r"tokenizer_config\.json, fou"),
    "tokenizer without a length": (
        lambda f: (f / "tokenizer/tokenizer_config.json").unlink(), "its tokenizer says no length: model_max_length in"
    ),
    "a missing tensor of the text encoder": (
        lambda f: drop_key(f / TEXT, "final_layer_norm.bias"), "text_encoder/model.safetensors lacks 1 tensors .*bias"
    ),
    "a missing tensor of the unet": (lambda f: drop_key(f / UNET, "conv_in.bias"), "unet/.* lacks 1 tensors of the un"),
    "a missing tensor of the vae": (
        lambda f: drop_key(f / VAE, "decoder.conv_in.weight"), "lacks 1 tensors of"
    ),
    "other names in the text encoder": (lambda f: rename_keys(f / TEXT), r"text_encoder/.* lacks \d+ tensors"),
    "other names in the unet": (lambda f: rename_keys(f / UNET), r"unet/.* lacks \d+ tensors of the unet"),
    "another shape in the text encoder": (
        lambda f: other_values(f / TEXT, "final_layer_norm.bias", torch.zeros(7)), "text_encoder/.* lacks 1 .*norm.bias"
    ),
    "another shape in the unet": (lambda f: other_values(f / UNET, "conv_in.bias", torch.zeros(7)), "lacks 1 .*conv_"),
    "quantised unet": (lambda f: add_tensor(f / UNET, "conv_in.scale_weight"), r"are quantised \(it holds conv_in\.sc"),
    "quantised text encoder": (lambda f: add_tensor(f / TEXT, "a.weight.quant_state.x"), "are quantised"),
    "quantisation config": (
        lambda f: edit(f / "unet/config.json", quantization_config={"quant_method": "x"}), "has a quantization_config"
    ),
    "a missing shard": (
        lambda f: sharded(f, lambda unet: max(unet.glob("*-of-*.safetensors")).unlink()), r"-of-\d+\.safetensors is mis"
    ),
    "a shard is cut": (
        lambda f: sharded(f, lambda unet: cut(max(unet.glob("*-of-*.safetensors")))), r"-of-\d+\.safetensors .*cut"
    ),
    "a broken shard index": (
        lambda f: sharded(f, lambda unet: cut(next(unet.glob("*.index.json")), 40)), r"index\.json is not JSON"
    ),
    "an empty shard index": (
        lambda f: sharded(f, lambda unet: next(unet.glob("*.index.json")).write_text("{}")), "expected a weight_map in"
    ),
    "shards without an index": (
        lambda f: sharded(f, lambda unet: next(unet.glob("*.index.json")).unlink()), "only shards without"
    ),
    "nan": (
        lambda f: other_values(f / UNET, "conv_in.bias", torch.full((16,), torch.nan)),
        r"weights of the unet hold values that are not a number \(NaN\)",
    ),
}  # fmt: skip


NOT_NEEDED = {
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
}


@pytest.mark.parametrize("names", [[name] for name in NOT_NEEDED] + [[*NOT_NEEDED]])
@pytest.mark.parametrize("alone", [False, True])
def test_what_no_run_needs_may_be_missing(names, alone, folder, tmp_path):
    edit(folder / INDEX, **{name: NOT_NEEDED[name] for name in names})
    if alone:  # the folder has what goes with a denoiser's file
        denoiser = load_denoiser(str(folder / UNET), "cpu", str(folder))
    else:
        denoiser = load_denoiser(str(folder), "cpu")
        (told,) = denoiser.warnings
        assert all(name in told for name in names) and "which no run needs" in told
    assert all(getattr(denoiser.pipeline, name) is None for name in names)
    assert_same(denoiser.pipeline, build_family("sd1"))
    denoiser.save(tmp_path / "again", None)
    assert load_denoiser(str(tmp_path / "again"), "cpu").warnings == ()


def test_a_component_that_is_there_must_be_whole(folder):
    edit(folder / INDEX, feature_extractor=NOT_NEEDED["feature_extractor"])
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor/preprocessor_config.json").write_text(POINTER)
    with pytest.raises(UserError, match=r"preprocessor_config\.json is a Git LFS pointer"):
        load_denoiser(str(folder), "cpu")


@pytest.mark.parametrize("place", ["/dev/null", "fifo"])
def test_what_is_neither_a_folder_nor_a_file(place, tmp_path):
    if place == "fifo":
        os.mkfifo(tmp_path / "fifo")
        place = str(tmp_path / place)
    with pytest.raises(UserError, match=rf"folder or a \.safetensors file, and {place} is neither"):
        load_denoiser(place, "cpu")


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_folder_names_its_file(how, folder):
    change, message = DAMAGED[how]
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_denoiser(str(folder), "cpu")
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", ")"))


def test_files_that_nobody_needs_are_not_looked_at(folder):
    (folder / "README.md").write_text(POINTER)
    (folder / "unet" / "preview.png").write_text(POINTER)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_text(POINTER)
    (folder / "old-weights.safetensors").write_text(POINTER)
    load_denoiser(str(folder), "cpu")


# another folder -----------------------------------------------------------------------------------


def test_a_folder_one_level_off_says_where_the_model_is(folder, tmp_path):
    for place in (tmp_path, folder / "unet"):
        with pytest.raises(UserError, match=rf"found none in {place}\. There is one in {folder.resolve()}: give that"):
            load_denoiser(str(place), "cpu")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    for place in (snapshot.parents[1], snapshot.parent):
        with pytest.raises(UserError, match=f"There is one in {snapshot}"):
            load_denoiser(str(place), "cpu")
    (snapshot / "model_index.json").unlink()
    with pytest.raises(UserError, match="It holds one network alone"):
        load_denoiser(str(snapshot / "vae"), "cpu")


def run_of(tmp_path, folder=None, *marks):
    """A run's folder with a model of its own, and another model in it."""
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    for name in marks:
        (run / name).write_text("{}")
    shutil.copytree(BUNDLED["tiny-canvas"], run / "other")
    if folder:
        folder.rename(run / "weights" / "diffusers")
    return run


def test_a_run_is_the_model_that_it_ended_with(folder, tmp_path):
    told = {"turpentine.base_model": "a/b", "turpentine.concept": "cat"}
    save_file(load_file(folder / UNET), folder / UNET, told)
    run = run_of(tmp_path, folder, "recipe.yaml")
    inner = run / "weights" / "diffusers"
    denoiser = load_denoiser(str(run), "cpu")
    own = load_denoiser(str(inner), "cpu")
    assert denoiser.name == str(run) and states(denoiser.pipeline).keys() == states(own.pipeline).keys()
    assert place_of_model(str(run)) == check_model(str(run)) == inner and place_of_model(str(inner)) == inner
    assert header_of(str(run)) == header_of(str(inner)) and lineage_of(str(run)).forgotten == ("cat",)
    assert pipeline_class_of(str(run)) == pipeline_class_of(str(inner)) == "StableDiffusionPipeline"
    assert find_architecture(str(run)) == find_architecture(str(inner))
    assert (
        build_recipe({"concept": "cat", "model": str(run)}).method
        == build_recipe({"concept": "cat", "model": str(inner)}).method
    )
    assert resolve(build_recipe({"concept": "dog", "model": str(run)})).forgotten_before == ("cat",)


def test_a_run_without_a_model_of_its_own_says_how_to_write_it(tmp_path):
    run = run_of(tmp_path, None, "run.json")
    for name, remedy in (("run.json", f"unlearn --resume {run}"), ("results.json", f"export {run} --formats diff")):
        (run / name).write_text("{}")
        with pytest.raises(UserError, match=remedy) as caught:
            load_denoiser(str(run), "cpu")
        assert "other" not in str(caught.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="It is empty"):
        load_denoiser(str(tmp_path), "cpu")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(folder):
    (folder / UNET).chmod(0)
    with pytest.raises(UserError, match="unet"):
        load_denoiser(str(folder), "cpu")


# devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "device", ["meta", "cuda:9", "cuda:-1", "nonsense", "", "cpu:x", "hpu", "xla", "vulkan", "mkldnn"]
)
def test_devices_that_can_t_be_used(device):
    with pytest.raises(UserError, match=f"device '{device}' can't be used here: .") as caught:
        choose_device(device)
    assert "\n" not in str(caught.value)

"""What `undo`, `export`, `info` and `report` say of a run, of files and of models, and that it is true."""

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import turpentine
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.models.lineage import header_of
from turpentine.pipeline.run.undo import undo_to_folder
from turpentine.pipeline.schema.results import Results
from turpentine.pipeline.support.errors import Caution, UserError
from turpentine.pipeline.support.files import sha256
from turpentine.pipeline.weights import read_header, tensors_sha256
from turpentine.pipeline.weights.rest import REST

from ..support.removals import removed, run, same, weights_in
from ..support.tiny_models import build_family, build_tiny_pipeline

CLOSED = {"method": "uce", "steps": 100, "learning_rate": 1e-5, "batch_size": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model and two removals from it, one after the other; and runs of an edit in closed form."""
    folder = tmp_path_factory.mktemp("place")
    build_tiny_pipeline().save_pretrained(folder / "base")
    cat = removed(folder / "base", "cat", folder / "cat")
    horse = removed(cat.model, "horse", folder / "horse", seed=1)
    edited = run(folder / "base", "cat", folder / "edited", **CLOSED, output={"formats": ("delta", "denoiser")})
    return SimpleNamespace(folder=folder, base=folder / "base", cat=cat, horse=horse, edited=edited)


@pytest.fixture
def edited(place, tmp_path):
    """A run of an edit in closed form, which keeps no checkpoint; it wrote its delta alone."""
    return only(Path(shutil.copytree(place.edited, tmp_path / "edited")), "delta")


def only(folder, *formats):
    """Make a run one that wrote nothing else."""
    results = Results.load(folder / "results.json")
    for file in results.weights:
        if file.format not in formats:
            (folder / file.path).unlink()
    kept = [file for file in results.weights if file.format in formats]
    results.model_copy(update={"weights": kept}).save(folder / "results.json")
    return folder


def told_by(capsys):
    captured = capsys.readouterr()
    return " ".join(captured.out.split()), " ".join(captured.err.split())


def refused(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2, capsys.readouterr()
    return told_by(capsys)[1]


def said(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0, capsys.readouterr()
    return told_by(capsys)[0]


# what was written ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_bit_for_bit_is_said_of_what_was_written(place, tmp_path, dtype):
    undone = undo_to_folder(place.cat.delta, tmp_path / "out", str(place.cat.model), "cpu", dtype=dtype)
    assert undone.taken.inexact == f"not bit for bit: {dtype} rounds the weights before its removal"
    (file,) = (undone.folder / "unet").glob("*.safetensors")
    assert not same({name: tensor.float() for name, tensor in load_file(file).items()}, place.cat.base)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_weights_that_half_precision_holds_come_back_in_it(tmp_path, dtype):
    pipe = build_tiny_pipeline().to(torch.float16)
    pipe.save_pretrained(tmp_path / "base")
    step = removed(tmp_path / "base", "cat", tmp_path / "run")
    undone = undo_to_folder(step.delta, tmp_path / "out", str(step.model), "cpu", dtype=dtype)
    assert undone.taken.inexact == "" and same(weights_in(undone.folder), weights_in(tmp_path / "base"))


def test_a_run_taken_back_in_half_precision_still_names_its_base(place, tmp_path, capsys):
    told = said(capsys, "undo", place.edited, "--dtype", "fp16", "--out", tmp_path / "out")
    assert "not bit for bit: fp16 rounds the weights before its removal" in told
    assert f"The model before the removal is also still there: {place.base}" in told


# a run that wrote a delta alone -------------------------------------------------------------------


def test_a_delta_at_full_strength_gives_the_weights_of_the_run(place):
    pipe = turpentine.apply(DiffusionPipeline.from_pretrained(place.base), place.cat.delta)
    assert same(pipe.unet.state_dict(), place.cat.after)
    turpentine.undo(pipe, place.cat.delta)  # which knows them again
    assert same(pipe.unet.state_dict(), place.cat.base)


def test_a_run_with_nothing_but_a_delta_is_exported_and_taken_back(place, edited, tmp_path, capsys):
    (wanted,) = (place.edited / "weights").glob("*cat.safetensors")
    told = said(capsys, "undo", edited, "--out", tmp_path / "out")
    assert "bit for bit: the weights are those before its removal. Still removed: nothing." in told
    assert same(weights_in(tmp_path / "out"), weights_in(place.base))
    said(capsys, "export", edited, "--formats", "denoiser,diffusers,lora")
    (made,) = (edited / "weights").glob("*cat.safetensors")
    assert same(load_file(made), load_file(wanted))
    assert read_header(made)["turpentine.result_sha256"] == read_header(wanted)["turpentine.result_sha256"]


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_delta_that_does_not_give_them_back_is_told(place, tmp_path, capsys, dtype):
    """Of an earlier version, and rounded."""
    if dtype == "fp32":
        folder = only(Path(shutil.copytree(place.edited, tmp_path / "run")), "delta")
        results = Results.load(folder / "results.json")
        (file,) = (folder / "weights").glob("*-delta.safetensors")
        kept = {name: tensor for name, tensor in load_file(file).items() if name not in REST}
        save_file(kept, file, {key: value for key, value in read_header(file).items() if "tensors_sha256" not in key})
        record = results.weights[0].model_copy(update={"sha256": sha256(file)})
        results.model_copy(update={"weights": [record]}).save(folder / "results.json")
    else:
        output = {"formats": ("delta",), "dtype": "fp16"}
        folder = run(place.base, "cat", tmp_path / "run", **CLOSED, output=output)
    for words in (["export", folder, "--formats", "lora"], ["undo", folder, "--out", tmp_path / "out"]):
        told = refused(capsys, *words)
        assert "in no form that gives all of them back: expected its last checkpoint, or diffusers, denoiser" in told
        assert "got delta (unchanged). Run the recipe again" in told
    assert not (tmp_path / "out").exists()


def test_a_damaged_delta_is_told_and_the_base_taken(place, tmp_path, capsys):
    folder = Path(shutil.copytree(place.edited, tmp_path / "run"))
    (delta,) = (folder / "weights").glob("*-delta.safetensors")
    content = bytearray(delta.read_bytes())
    content[-100] ^= 1
    delta.write_bytes(content)
    told = said(capsys, "undo", folder, "--out", tmp_path / "out")
    assert f"{delta} is not as the run wrote it: the model before the run was used instead." in told
    assert "bit for bit: the weights are those" in told


def test_a_base_that_is_not_there(place, edited, tmp_path, capsys):
    out = ["--out", tmp_path / "out"]
    told = refused(capsys, "undo", edited, "--base", "nowhere", *out)
    assert f"expected the model that the run started from ('{place.base}') for --base: can't load the model" in told
    assert "started from 'nowhere'" not in told and "local_files_only" not in told
    assert told.endswith("and the hub is off (HF_HUB_OFFLINE).")
    told = refused(capsys, "export", edited, "--formats", "lora", "--base", tmp_path / "gone")
    assert told.endswith("there is no such folder or file.")
    shutil.copytree(place.base, tmp_path / "base")
    moved = run(tmp_path / "base", "cat", tmp_path / "moved", **CLOSED, output={"formats": ("delta",)})
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    told = refused(capsys, "undo", moved, *out)
    assert f"can't load the model '{tmp_path / 'base'}'" in told
    assert told.endswith("The run started from it; say where that model is with --base.")
    assert said(capsys, "undo", moved, *out, "--base", tmp_path / "elsewhere")


# several taken back, and none ---------------------------------------------------------------------


def test_every_concept_that_was_taken_back_is_kept(place, tmp_path, capsys):
    """The first is of the end, the second of the beginning; a header of an earlier version holds its last one."""
    dog = removed(place.horse.model, "dog", tmp_path / "dog", seed=2)
    first = undo_to_folder(place.horse.delta, tmp_path / "1", str(dog.model), "cpu")
    second = undo_to_folder(place.cat.delta, tmp_path / "2", str(first.folder), "cpu")
    assert json.loads(header_of(str(second.folder))["turpentine.taken_back"]) == ["horse", "cat"]
    third = undo_to_folder(dog.delta, tmp_path / "3", str(second.folder), "cpu")
    assert third.taken.inexact == "not bit for bit: horse and cat were taken back before"
    told = said(capsys, "info", third.folder)
    assert "Removed so far: nothing Taken back: horse, cat and dog" in told
    assert "The tensors are those that the header was written for" in told
    (file,) = (second.folder / "unet").glob("*.safetensors")
    save_file(load_file(file), file, read_header(file) | {"turpentine.taken_back": "cat"})
    old = undo_to_folder(dog.delta, tmp_path / "4", str(second.folder), "cpu")
    assert old.taken.inexact == "not bit for bit: cat was taken back before"


def test_a_refusal_names_what_the_model_lacks(place, tmp_path):
    other = removed(place.base, "fox", tmp_path / "fox", seed=5)
    with pytest.raises(UserError) as refusal:
        undo_to_folder(other.delta, tmp_path / "out", str(place.horse.model), "cpu")
    assert "than those of this model, from which cat and horse were removed: nothing shows" in str(refusal.value)
    with pytest.raises(UserError, match=r"than those of this model: nothing shows that the model holds"):
        undo_to_folder(other.delta, tmp_path / "out", str(place.base), "cpu")


@pytest.mark.parametrize("any_base", [False, True])
@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_another_architecture_is_no_other_weights(place, tmp_path, family, any_base):
    build_family(family).save_pretrained(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Caution)
        for removal in (place.cat.delta, place.edited):
            with pytest.raises(UserError, match=r"network|no weight of that") as refusal:
                undo_to_folder(removal, tmp_path / "out", str(tmp_path / "model"), "cpu", any_base=any_base)
            assert "any_base" not in str(refusal.value) and "other weights" not in str(refusal.value)
        pipe = DiffusionPipeline.from_pretrained(tmp_path / "model")
        with pytest.raises(UserError) as refusal:
            turpentine.apply(pipe, place.cat.delta, any_base=any_base)
        assert "any_base" not in str(refusal.value)


def test_a_run_taken_from_another_architecture(place, tmp_path):
    """Without a delta, the change is that of two models at hand."""
    folder = only(Path(shutil.copytree(place.edited, tmp_path / "run")), "denoiser")
    build_family("sd3").save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="belongs to another network than this SD3Transformer2DModel"):
        undo_to_folder(folder, tmp_path / "out", str(tmp_path / "model"), "cpu", any_base=True)


@pytest.mark.parametrize("strengths", [(0.5,), (1.0, 0.3)])
def test_what_was_applied_is_removed_not_undone(place, strengths):
    pipe = DiffusionPipeline.from_pretrained(place.base)
    for strength in strengths:
        turpentine.apply(pipe, place.cat.delta, strength)
    with pytest.raises(UserError, match=r"turpentine\.remove\(pipe\) takes out what was applied") as refusal:
        turpentine.undo(pipe, place.cat.delta)
    assert "any_base" not in str(refusal.value)
    turpentine.remove(pipe)
    assert same(pipe.unet.state_dict(), place.cat.base)


@pytest.mark.parametrize("inside", ["weights/diffusers", "weights/new", "new"])
def test_nothing_is_written_into_a_run(place, edited, capsys, inside):
    told = refused(capsys, "undo", edited, "--out", edited / inside)
    assert f"lies in {edited}, whose files would no longer be its own. Choose another --out." in told
    told = refused(capsys, "apply", place.cat.delta, "--model", place.base, "--out", edited / inside)
    assert f"lies in {edited}" in told
    assert not (edited / inside).exists()


def test_nothing_is_written_into_the_model(place, capsys):
    out = place.cat.model / "unet" / "new"
    told = refused(capsys, "undo", place.cat.delta, "--model", place.cat.model, "--out", out)
    assert f"lies in {place.cat.model}" in told and not out.exists()


# info and report ----------------------------------------------------------------------------------


def test_info_of_a_file_begins_with_what_was_removed(place, capsys):
    told = said(capsys, "info", place.horse.delta)
    first = "Removed: horse, with rgd, seed 1 Removed so far: cat and horse Made from: "
    assert f"diffusers without horse: delta, fp32 {first}" in told and told.index(first) < told.index("modelspec.")
    assert told.index("turpentine.versions") < told.index("turpentine.audits") < told.index("turpentine.recipe")
    assert "concept: horse" in told, "the recipe is YAML"


def test_info_of_a_folder_is_that_of_its_denoiser(place, tmp_path, capsys):
    assert "Removed: cat, with rgd, seed 0" in said(capsys, "info", place.cat.model)
    said(capsys, "apply", place.cat.delta, "--model", place.base, "--strength", "0.5", "--out", tmp_path / "weaker")
    assert f"Put onto its base: {place.cat.delta.name}, at strength 0.5" in said(capsys, "info", tmp_path / "weaker")
    assert "was not written by Turpentine" in refused(capsys, "info", place.base)
    (tmp_path / "empty").mkdir()
    told = refused(capsys, "info", tmp_path / "empty")
    assert "expected a .safetensors file, a diffusers folder or a run folder, and" in told


def test_changed_weights_are_an_error_of_the_file_the_folder_and_the_run(place, tmp_path, capsys):
    folder = Path(shutil.copytree(place.edited, tmp_path / "run"))
    assert said(capsys, "info", folder).endswith("unchanged")
    (file,) = (folder / "weights").glob("*cat.safetensors")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    assert f"not as the run wrote it: {file} (changed)" in refused(capsys, "info", folder)
    assert "are not those that the header was written for" in refused(capsys, "info", file)
    model = Path(shutil.copytree(place.cat.model, tmp_path / "model"))
    (part,) = (model / "unet").glob("*.safetensors")
    content = bytearray(part.read_bytes())
    content[-100] ^= 1
    part.write_bytes(content)
    assert f"the tensors of {part} are not those" in refused(capsys, "info", model)


@pytest.mark.parametrize("command", [["info"], ["report"], ["export", "--formats", "lora"], ["undo"]])
def test_an_unfinished_run_is_to_be_gone_on_with(edited, tmp_path, capsys, command):
    (edited / "results.json").unlink()
    out = ["--out", tmp_path / "out"] if command == ["undo"] else []
    told = refused(capsys, command[0], edited, *command[1:], *out)
    assert f"expected a finished run in {edited}. Finish it with: turpentine unlearn --resume {edited}" in told


@pytest.mark.parametrize(
    "words",
    [
        ["info", "PATH"], ["report", "PATH"], ["export", "PATH", "--formats", "lora"], ["unlearn", "--resume", "PATH"],
        ["undo", "PATH", "--out", "OUT"], ["apply", "PATH", "--model", "BASE", "--out", "OUT"],
        ["undo", "PATH.safetensors", "--out", "OUT"], ["info", "PATH.safetensors"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_path_where_nothing_is(place, tmp_path, capsys, words):
    told = {"PATH": tmp_path / "gone", "OUT": tmp_path / "out", "BASE": place.base}
    told["PATH.safetensors"] = tmp_path / "gone.safetensors"
    wanted = next(word for word in words if word.startswith("PATH"))
    error = refused(capsys, *(told.get(word, word) for word in words))
    assert f"and there is no {told[wanted]}. Correct the path." in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["./gone", "/no/where", "~/gone", "gone"])
@pytest.mark.parametrize("command", [["generate", "a cat", "--out", "OUT"], ["audit", "--concept", "cat"]])
def test_a_model_where_nothing_is(tmp_path, monkeypatch, capsys, command, model):
    monkeypatch.chdir(tmp_path)
    error = refused(capsys, *command, "--model", model)
    assert "there is no such folder or file" in error and not (tmp_path / "OUT").exists()
    assert "Repo id" not in error and "local_files_only" not in error


def test_the_hashes_of_a_taken_back_model_are_those_of_its_files(place, tmp_path):
    undone = undo_to_folder(place.cat.delta, tmp_path / "out", str(place.cat.model), "cpu")
    assert header_of(str(undone.folder))["turpentine.result_sha256"] == tensors_sha256(place.cat.base)

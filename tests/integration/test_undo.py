"""Removals taken back: bit for bit the last one, alone one in the middle, and never one that a model doesn't hold."""

import json
import shutil
import warnings
import zipfile
from types import SimpleNamespace

import pytest
import torch
import turpentine
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.models.lineage import Removal, header_of, lineage_of
from turpentine.pipeline.run.undo import undo_to_folder
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import Caution, UserError
from turpentine.pipeline.weights import read_header, snapshot, tensors_sha256
from turpentine.pipeline.weights.apply import denoiser_of
from turpentine.pipeline.weights.rest import BACK, REST
from turpentine.ui.access import Access
from turpentine.ui.controls import Controls
from turpentine.ui.page import Page
from turpentine.ui.runner import Runner
from turpentine.ui.steps.take_back import removals, taken_back
from turpentine.ui.studio import Studio

from ..support.removals import removed, run, same, weights_in
from ..support.tiny_models import BUILDERS, build_family, build_tiny_pipeline


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Three removals in a row, on a Stable Diffusion of tiny size."""
    folder = tmp_path_factory.mktemp("chain")
    build_tiny_pipeline().save_pretrained(folder / "base")
    steps, model = [], folder / "base"
    for place, concept in enumerate(("cat", "pop art", "dog")):
        steps.append(removed(model, concept, folder / concept, seed=place))
        model = steps[-1].model
    return SimpleNamespace(folder=folder, base=folder / "base", steps=steps)


# the last one -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BUILDERS)
def test_the_last_removal_is_taken_back_bit_for_bit(family, tmp_path):
    build_family(family).save_pretrained(tmp_path / "base")
    step = removed(tmp_path / "base", "cat", tmp_path / "run")
    tensors = load_file(step.delta)
    assert tensors[BACK.gaps].numel() > 0  # the change is as large as the weights: float32 alone would not do
    pipe = load_denoiser(str(step.model), "cpu").pipeline
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert turpentine.undo(pipe, step.delta) is pipe
    assert same(denoiser_of(pipe).state_dict(), step.base)
    turpentine.remove(pipe)
    assert same(denoiser_of(pipe).state_dict(), step.after)


def test_the_chain_is_taken_back_from_its_end(chain, tmp_path):
    model = chain.steps[2].model
    for place in (2, 1, 0):
        step = chain.steps[place]
        undone = undo_to_folder(step.delta, tmp_path / str(place), str(model), "cpu")
        assert undone.taken.inexact == "" and undone.taken.concepts == (("cat",), ("pop art",), ("dog",))[place]
        assert same(weights_in(undone.folder), step.base)
        expected = ("cat", "pop art", "dog")[:place]
        assert undone.taken.lineage.forgotten == lineage_of(str(undone.folder)).forgotten == expected
        assert lineage_of(str(undone.folder)).origin == str(chain.base)
        model = undone.folder


@pytest.mark.parametrize("kind", ["denoiser", "single_file"])
def test_files_of_one_model_are_models_too(chain, tmp_path, kind):
    step = removed(chain.base, "cat", tmp_path / "run", formats=(kind, "delta"))
    undone = undo_to_folder(
        step.delta, tmp_path / "out", str(step.files[kind]), "cpu", model_config_folder=str(chain.base)
    )
    assert same(weights_in(undone.folder), step.base)


# one in the middle --------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "later"), [(0, "pop art, dog"), (1, "dog")])
def test_one_in_the_middle_goes_alone(chain, tmp_path, place, later):
    step, last = chain.steps[place], chain.steps[2]
    undone = undo_to_folder(step.delta, tmp_path / "out", str(last.model), "cpu")
    assert undone.taken.inexact == f"not bit for bit: later removals ({later}) were made on top of it, and stay"
    got = weights_in(undone.folder)
    for name, value in got.items():
        wanted = last.after[name] - (step.after[name] - step.base[name])
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-6)
    left = [name for name in ("cat", "pop art", "dog") if name != ("cat", "pop art")[place]]
    found = lineage_of(str(undone.folder))
    assert list(found.forgotten) == left == [name for each in found.removals for name in each.concepts]
    recipe = build_recipe({"concept": "horse", "model": str(undone.folder)})
    assert list(resolve(recipe).forgotten_before) == left
    with pytest.raises(UserError, match="nothing shows that the model holds that removal"):
        undo_to_folder(step.delta, tmp_path / "twice", str(undone.folder), "cpu")


def test_all_of_a_chain_in_any_order_give_nearly_the_base(chain, tmp_path):
    model = chain.steps[2].model
    for place in (1, 2, 0):
        undone = undo_to_folder(chain.steps[place].delta, tmp_path / str(place), str(model), "cpu")
        assert undone.taken.inexact
        model = undone.folder
    assert undone.taken.inexact == "not bit for bit: pop art and dog were taken back before"
    assert json.loads(header_of(str(model))["turpentine.taken_back"]) == ["pop art", "dog", "cat"]
    assert undone.taken.lineage.forgotten == () and undone.taken.lineage.removals == ()
    for name, value in weights_in(model).items():
        torch.testing.assert_close(value, chain.steps[0].base[name], rtol=0, atol=1e-6)


def test_a_pipeline_knows_its_history_by_its_folder(chain):
    pipe = DiffusionPipeline.from_pretrained(chain.steps[2].model)
    with pytest.warns(Caution, match=r"cat is back, but not bit for bit: later removals \(pop art, dog\)"):
        turpentine.undo(pipe, chain.steps[0].delta)


def test_the_same_concept_removed_twice_stays_removed(chain, tmp_path):
    again = removed(chain.steps[0].model, "cat", tmp_path / "again", seed=7)
    assert lineage_of(str(again.model)).forgotten == ("cat",)
    undone = undo_to_folder(again.delta, tmp_path / "out", str(again.model), "cpu")
    assert same(weights_in(undone.folder), chain.steps[0].after) and undone.taken.lineage.forgotten == ("cat",)


# what is refused ----------------------------------------------------------------------------------


def test_a_model_that_does_not_hold_the_removal_is_refused_before_anything_is_written(chain, tmp_path):
    other = removed(chain.base, "cat", tmp_path / "other", seed=9)  # the same base and concept, another run
    cases = [(other.delta, chain.steps[2].model), (chain.steps[2].delta, chain.steps[1].model),
             (chain.steps[0].delta, chain.base)]  # fmt: skip
    for delta, model in cases:
        with pytest.raises(UserError, match=r"nothing shows that the model holds that removal\. Use the model"):
            undo_to_folder(delta, tmp_path / "out", str(model), "cpu")
    assert not (tmp_path / "out").exists()
    pipe = DiffusionPipeline.from_pretrained(chain.base)
    before = snapshot(pipe.unet)
    with pytest.raises(UserError, match="nothing shows"):
        turpentine.undo(pipe, chain.steps[0].delta)
    assert same(pipe.unet.state_dict(), before)
    with pytest.warns(Caution) as told:
        turpentine.undo(pipe, chain.steps[0].delta, any_base=True)
    assert any("taken back all the same" in str(each.message) for each in told)


def test_a_header_over_other_weights_is_not_believed(chain, tmp_path):
    shutil.copytree(chain.steps[1].model, tmp_path / "model")
    (file,) = (tmp_path / "model" / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors["conv_in.bias"][0] += 1e-3
    save_file(tensors, file, read_header(file))
    with pytest.raises(UserError, match="nothing shows"):
        undo_to_folder(chain.steps[0].delta, tmp_path / "out", str(tmp_path / "model"), "cpu")


def test_files_that_hold_no_removal(chain, tmp_path):
    (denoiser_file,) = (chain.steps[0].model / "unet").glob("*.safetensors")
    with pytest.raises(UserError, match="expected a delta, or a LoRA, that Turpentine wrote"):
        undo_to_folder(denoiser_file, tmp_path / "out", str(chain.base), "cpu")
    with pytest.raises(UserError, match="expected the model to take"):
        undo_to_folder(chain.steps[0].delta, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(UserError, match="expected a new or empty folder"):
        undo_to_folder(chain.steps[0].delta, tmp_path / "full", str(chain.steps[0].model), "cpu")
    content = bytearray(chain.steps[0].delta.read_bytes())
    content[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="are not those that its header was written for"):
        undo_to_folder(tmp_path / "damaged.safetensors", tmp_path / "out", str(chain.steps[0].model), "cpu")


# not bit for bit ----------------------------------------------------------------------------------


def without(file, to, *, keys=(), fields=()):
    """A copy of a file without some of its tensors and some fields of its header."""
    kept = {name: value for name, value in load_file(file).items() if name not in keys}
    header = {key: value for key, value in read_header(file).items()
              if not key.startswith(("turpentine.tensors_sha256", *fields))}  # fmt: skip
    save_file(kept, to, header)
    return to


def test_a_delta_without_the_rest_is_told(chain, tmp_path):
    step = chain.steps[0]
    bare = without(step.delta, tmp_path / "bare.safetensors", keys=REST)
    undone = undo_to_folder(bare, tmp_path / "out", str(step.model), "cpu")
    assert undone.taken.inexact.startswith("not bit for bit: the delta is of an earlier version")
    for name, value in weights_in(undone.folder).items():
        torch.testing.assert_close(value, step.base[name], rtol=0, atol=1e-6)


def test_files_of_an_earlier_version(chain, tmp_path):
    """Neither says what the weights are that it is about: concept, base and recipe must agree."""
    step, news = chain.steps[0], ("turpentine.removals", "turpentine.result")
    old = without(step.delta, tmp_path / "old.safetensors", keys=REST, fields=news)
    shutil.copytree(step.model, tmp_path / "model")
    (file,) = (tmp_path / "model" / "unet").glob("*.safetensors")
    without(file, file, fields=news)
    undone = undo_to_folder(old, tmp_path / "out", str(tmp_path / "model"), "cpu")
    assert "of an earlier version" in undone.taken.inexact and undone.taken.lineage.forgotten == ()
    other = removed(chain.base, "cat", tmp_path / "run", seed=5)
    other = without(other.delta, tmp_path / "other.safetensors", fields=news)
    with pytest.raises(UserError, match="nothing shows"):
        undo_to_folder(other, tmp_path / "no", str(tmp_path / "model"), "cpu")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_told(chain, tmp_path, dtype):
    """A half copy of the model, and a delta in half precision, each beside the other in float32."""
    step = removed(chain.base, "cat", tmp_path / "run", dtype=dtype)
    whole = removed(chain.base, "cat", tmp_path / "whole")
    assert not REST & set(load_file(step.delta))
    for delta, model, words in (
        (whole.delta, step.model, "the model is in another number format"),
        (step.delta, whole.model, f"the delta is in {dtype}"),
        (step.delta, step.model, "the model is in another number format"),
    ):
        undone = undo_to_folder(delta, tmp_path / f"out-{len(words)}-{delta.parts[-3]}", str(model), "cpu")
        assert words in undone.taken.inexact and undone.taken.lineage.forgotten == ()
        for name, value in weights_in(undone.folder).items():
            torch.testing.assert_close(value, step.base[name], rtol=0, atol=0.02)


def test_weights_that_were_applied(chain, tmp_path):
    from turpentine.pipeline.run.export import apply_to_folder

    step = chain.steps[0]
    for strength in (1.0, 0.5):
        apply_to_folder(step.delta, str(chain.base), "cpu", tmp_path / str(strength), strength)
    undone = undo_to_folder(step.delta, tmp_path / "out", str(tmp_path / "1.0"), "cpu")
    for name, value in weights_in(undone.folder).items():
        torch.testing.assert_close(value, step.base[name], rtol=0, atol=1e-6)
    with pytest.raises(UserError, match=r"was put onto this model at strength 0\.5"):
        undo_to_folder(step.delta, tmp_path / "half", str(tmp_path / "0.5"), "cpu")


# runs ---------------------------------------------------------------------------------------------


def told_by(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_a_run_is_taken_back_without_a_delta(chain, tmp_path, capsys):
    """The base is still there, and is what comes out; where it has moved, one line says what to do."""
    shutil.copytree(chain.base, tmp_path / "base")
    first = run(tmp_path / "base", "cat", tmp_path / "first")
    second = run(first / "weights" / "diffusers", "dog", tmp_path / "second")
    assert main(["undo", str(second), "--out", str(tmp_path / "out")]) == 0
    told = told_by(capsys)
    assert "Taken back: dog; bit for bit: the weights are those before its removal. Still removed: cat." in told
    assert f"is also still there: {first / 'weights' / 'diffusers'}" in told
    assert same(weights_in(tmp_path / "out"), weights_in(first / "weights" / "diffusers"))
    assert main(["undo", str(first), "--model", str(second), "--out", str(tmp_path / "middle")]) == 0
    assert "later removals (dog) were made on top of it" in told_by(capsys)
    assert lineage_of(str(tmp_path / "middle")).forgotten == ("dog",)
    assert header_of(str(tmp_path / "middle"))["turpentine.taken_back"] == '["cat"]'
    (tmp_path / "base").rename(tmp_path / "moved")
    assert main(["undo", str(first), "--out", str(tmp_path / "no")]) == 2
    assert "say where that model is with --base" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "no").exists()
    moved = ["undo", str(first), "--out", str(tmp_path / "yes"), "--base", str(tmp_path / "moved")]
    assert main(moved) == 0 and "bit for bit" in told_by(capsys)
    assert main(["info", str(next((tmp_path / "yes" / "unet").glob("*.safetensors")))]) == 0
    assert "Removed so far: nothing Taken back: cat" in told_by(capsys)


@pytest.mark.parametrize("formats", [("diffusers", "delta"), ("delta",), ("lora",)])
def test_a_run_that_trained_a_lora(chain, tmp_path, formats):
    folder = run(chain.base, "cat", tmp_path / "run", parameters="lora", output={"formats": formats})
    undone = undo_to_folder(folder, tmp_path / "out", device="cpu")
    assert undone.taken.inexact == "" and same(weights_in(undone.folder), weights_in(chain.base))
    assert undone.base == ("" if "diffusers" in formats else str(chain.base))


def test_a_lora_file_is_taken_back_but_not_bit_for_bit(chain, tmp_path):
    folder = run(chain.base, "cat", tmp_path / "run", parameters="lora", output={"formats": ("diffusers", "lora")})
    (file,) = (folder / "weights").glob("*-lora.safetensors")
    undone = undo_to_folder(file, tmp_path / "out", str(folder), "cpu")
    assert "the file is a LoRA" in undone.taken.inexact
    for name, value in weights_in(undone.folder).items():
        torch.testing.assert_close(value, weights_in(chain.base)[name], rtol=0, atol=1e-6)


def test_the_history_is_written_by_runs(chain, tmp_path):
    first = run(chain.base, "cat + pop art", tmp_path / "first")
    second = run(first / "weights" / "diffusers", "dog", tmp_path / "second")
    found = lineage_of(str(second))
    hashes = [tensors_sha256(weights_in(each)) for each in (chain.base, first / "weights/diffusers",
                                                            second / "weights/diffusers")]  # fmt: skip
    assert found.removals == (
        Removal(("cat", "pop art"), hashes[0], hashes[1]), Removal(("dog",), hashes[1], hashes[2]),
    )  # fmt: skip


def test_the_app_lists_what_was_removed_and_takes_one_back(chain, tmp_path):
    runs = tmp_path / "runs"
    first = run(chain.base, "cat", runs / "cat-1")
    run(first / "weights" / "diffusers", "dog", runs / "dog-2")
    access = Access(runs=runs)
    page = Page(access, Runner(access), Studio(), Controls())
    assert removals(page, "cat-1") == {"cat": "cat-1"}
    assert list(removals(page, "dog-2").items()) == [("dog", "dog-2"), ("cat", "cat-1")]
    for concept, words in (("dog", "bit for bit: the weights are those"), ("cat", "later removals (dog)")):
        (tmp_path / concept).mkdir()
        file, text = taken_back(page, "dog-2", concept, tmp_path / concept)
        assert words in text and file.name == f"dog-2-with-{concept}-diffusers.zip"
        with zipfile.ZipFile(file) as archive:
            archive.extractall(tmp_path / concept / "out")
        assert lineage_of(str(tmp_path / concept / "out")).forgotten == (("cat",) if concept == "dog" else ("dog",))
    with pytest.raises(UserError, match="expected one of"):
        taken_back(page, "cat-1", "dog", tmp_path)
    shutil.rmtree(first)
    assert removals(page, "dog-2") == {"dog": "dog-2"}  # nobody has the other run's change any more

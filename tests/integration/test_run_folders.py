"""Run folders in the hands of people: edited, damaged, exchanged, in use, and full of other things."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.run.folder import NAMES, RunFolder
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.results import Results
from turpentine.pipeline.support.errors import Cancelled, UserError

from ..support.stopping import StopWhen
from ..support.tiny_models import build_family

STEPS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base model, a finished run, and the same run stopped after step 3 with checkpoints of steps 2 and 3."""
    place = tmp_path_factory.mktemp("runs")
    build_family("sd1").save_pretrained(place / "base")
    run_recipe(recipe_for(place), place / "whole")
    stop = StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 3)
    with pytest.raises(Cancelled):
        run_recipe(recipe_for(place), place / "cut", progress=stop)
    return place


def recipe_for(place, **changes):
    chosen = {
        "concept": "cat", "model": str(place / "base"), "device": "cpu",
        "prompts": {"n": 4, "n_test": 2},
        "training": {"steps": STEPS, "batch_size": 2, "learning_rate": 1e-3, "checkpoint_every": 2},
        "samples": {"num_inference_steps": 2, "image_size": 16},
        "audits": {"images": 1, "retain_train_images": 1, "alignment": False, "nudity": "off"},
        "output": {"formats": ["denoiser"]},
    }  # fmt: skip
    return build_recipe(chosen | changes)


@pytest.fixture
def cut(place, tmp_path):
    return Path(shutil.copytree(place / "cut", tmp_path / "run"))


@pytest.fixture
def whole(place, tmp_path):
    return Path(shutil.copytree(place / "whole", tmp_path / "whole"))


def call(capsys, *words):
    """Exit code of the command, and what it says on one line."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    told = capsys.readouterr()
    return code, " ".join((told.out + told.err).split())


def refused(capsys, *words):
    code, text = call(capsys, *words)
    assert code == 2 and text.count("error:") == 1, text
    return text


def edit(run, old, new, file="recipe.yaml"):
    text = (run / file).read_text()
    assert old in text
    (run / file).write_text(text.replace(old, new, 1))


def weights_of(run):
    (file,) = (run / "weights").glob("*.safetensors")
    return load_file(file)


def same_weights(one, other):
    a, b = weights_of(one), weights_of(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


# identity -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("concept: cat", "concept: dog", "concept 'cat', and the recipe now says 'dog'"),
        ("seed: 0", "seed: 1", "seed 0, and the recipe now says 1"),
        ("steps: 4", "steps: 2", "training.steps 4, and the recipe now says 2"),
        ("n: 4", "n: 8", "prompts.n 4, and the recipe now says 8"),
        ("parameters: full", "parameters: xattn", "training.parameters 'full', and the recipe now says 'xattn'"),
        ("name: rgd", "name: rg", "method.name 'rgd', and the recipe now says 'rg'"),
        ("retain_weight: ", "retain_weight: 3", "method.retain_weight"),
        ("nudity: 'off'", "nudity: 'on'", "audits.nudity"),
        ("image_size: 16", "image_size: 32", "samples.image_size 16, and the recipe now says 32"),
        ("  learning_rate: 0.001\n", "", "training.learning_rate 0.001, and the recipe now says"),
    ],
)
def test_an_edit_that_decides_is_refused(cut, capsys, old, new, says):
    edit(cut, old, new)
    before = contents(cut)
    text = refused(capsys, "unlearn", "--resume", cut)
    assert says in text and "Put it back in recipe.yaml, or start anew: turpentine unlearn --recipe" in text
    assert contents(cut) == before
    run = RunFolder.open(cut)
    with pytest.raises(UserError, match="was begun with"):
        run.recipe()


def test_what_may_change_is_taken(cut, place, capsys):
    edit(cut, "- denoiser", "- denoiser\n  - delta")
    edit(cut, "checkpoint_every: 2", "checkpoint_every: 1")
    edit(cut, "preview_every: 0", "preview_every: 4")
    edit(cut, "gradient_checkpointing: false", "gradient_checkpointing: true")
    assert call(capsys, "unlearn", "--resume", cut)[0] == 0
    (delta,) = (cut / "weights").glob("*-delta.safetensors")
    delta.unlink()
    assert same_weights(cut, place / "whole")
    assert Results.load(cut / "results.json").recipe["training"]["preview_every"] == 4
    assert (cut / "images" / "step-000004").is_dir()


@pytest.mark.parametrize("command", [("export", "--formats", "diffusers"), ("report",)], ids=lambda words: words[0])
def test_an_edit_after_the_end_is_told(whole, capsys, command):
    edit(whole, "seed: 0", "seed: 1")
    code, text = call(capsys, command[0], whole, *command[1:])
    assert "seed 0, and the recipe now says 1" in text and code == (0 if command[0] == "report" else 2)
    assert not (whole / "weights" / "diffusers").exists()
    assert "seed: 1" not in (whole / "report.html").read_text()


def replace_base(place, tmp_path, run, change):
    """Another model in the place where the recipe now looks for it."""
    pipe = build_family("sd1")
    change(pipe)
    pipe.save_pretrained(tmp_path / "other")
    edit(run, f"model: {place / 'base'}", f"model: {tmp_path / 'other'}")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae", "scheduler", "nothing"])
def test_another_model_is_refused_and_the_same_elsewhere_is_taken(cut, place, tmp_path, capsys, part):
    def change(pipe):
        if part == "scheduler":
            pipe.scheduler.register_to_config(beta_end=0.02)
        elif part != "nothing":
            with torch.no_grad():
                next(getattr(pipe, part).parameters()).mul_(1.01)

    replace_base(place, tmp_path, cut, change)
    if part == "nothing":
        assert call(capsys, "unlearn", "--resume", cut)[0] == 0
    else:
        assert f"its {part} is another" in refused(capsys, "unlearn", "--resume", cut)
        assert not (cut / "weights").exists()


def set_in(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def other_tokens(base):
    file = base / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["a</w>"], words["c"] = words["c"], words["a</w>"]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit_model", "part"),
    [
        (lambda base: set_in(base / "unet/config.json", attention_head_dim=2), "unet"),
        (lambda base: set_in(base / "unet/config.json", act_fn="gelu"), "unet"),
        (lambda base: set_in(base / "text_encoder/config.json", hidden_act="gelu"), "text_encoder"),
        (lambda base: set_in(base / "vae/config.json", scaling_factor=0.5), "vae"),
        (lambda base: set_in(base / "scheduler/scheduler_config.json", beta_end=0.02), "scheduler"),
        (other_tokens, "tokenizer"),
    ],
)
def test_other_settings_are_another_model(cut, place, tmp_path, capsys, edit_model, part):
    base = Path(shutil.copytree(place / "base", tmp_path / "edited"))
    edit_model(base)
    edit(cut, f"model: {place / 'base'}", f"model: {base}")
    before = contents(cut)
    assert f"its {part} is another" in refused(capsys, "unlearn", "--resume", cut)
    assert contents(cut) == before, "a refused run is as it was"


def test_edited_prompts_are_refused(cut, capsys):
    edit(cut, "cat", "lion", "prompts.json")
    assert "prompts.json was edited" in refused(capsys, "unlearn", "--resume", cut)


def test_an_exchanged_mask_is_refused(place, tmp_path, capsys):
    whole = tmp_path / "masked"
    run_recipe(recipe_for(place, method={"name": "salun"}, training={"steps": 1, "batch_size": 2}), whole)
    mask = Path(shutil.copy(whole / "mask.safetensors", tmp_path / "mine.safetensors"))
    chosen = {"method": {"name": "salun", "mask": str(mask)}, "training": {"steps": 3, "batch_size": 2}}
    stop = StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 1)
    with pytest.raises(Cancelled):
        run_recipe(recipe_for(place, **chosen), tmp_path / "run", progress=stop)
    save_file({name: ~part for name, part in load_file(mask).items()}, mask)
    assert "(method.mask) has changed or gone since" in refused(capsys, "unlearn", "--resume", tmp_path / "run")


@pytest.mark.parametrize("content", ["", "other", "none"])
def test_a_mask_that_the_run_made_is_made_again(place, tmp_path, capsys, content):
    chosen = {"method": {"name": "salun"}, "training": {"steps": 3, "batch_size": 2}}
    stop = StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 1)
    with pytest.raises(Cancelled):
        run_recipe(recipe_for(place, **chosen), tmp_path / "run", progress=stop)
    file = tmp_path / "run" / "mask.safetensors"
    made = {name: part.clone() for name, part in load_file(file).items()}  # the file itself will be cut
    if content == "other":
        save_file({name: ~part for name, part in made.items()}, file)
    elif content == "none":
        file.unlink()
    else:
        file.write_bytes(b"")
    code, text = call(capsys, "unlearn", "--resume", tmp_path / "run")
    assert code == 0 and "mask.safetensors is not what the run made before it was stopped" in text
    assert all(torch.equal(part, made[name]) for name, part in load_file(file).items())


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 2}', b"\xff\xfe"])
def test_a_damaged_record(cut, capsys, damage):
    (cut / "run.json").write_bytes(damage)
    text = refused(capsys, "unlearn", "--resume", cut)
    assert "run.json can't be read" in text and "start anew: turpentine unlearn --recipe" in text


def test_an_edited_record_is_refused(cut, capsys):
    edit(cut, '"seed": 0', '"seed": 1', "run.json")
    edit(cut, "seed: 0", "seed: 1")
    assert "run.json was edited" in refused(capsys, "unlearn", "--resume", cut)


def test_a_run_of_the_version_before(cut, place, tmp_path, capsys):
    (cut / "run.json").unlink()
    text = refused(capsys, "unlearn", "--resume", cut)
    assert "has no run.json, so nothing says what the run began with: start anew" in text
    old = Path(shutil.copytree(place / "whole", tmp_path / "old"))
    (old / "run.json").unlink()
    assert call(capsys, "export", old, "--formats", "delta")[0] == 0
    assert call(capsys, "report", old)[0] == 0
    assert "is finished" in call(capsys, "unlearn", "--resume", old)[1]
    edit(old, "concept: cat", "concept: dog")
    assert "concept 'cat'" in refused(capsys, "export", old, "--formats", "lora")


def test_a_finished_run_ends_at_once(whole, capsys):
    before = contents(whole)
    code, text = call(capsys, "unlearn", "--resume", whole)
    assert code == 0 and "is finished: its weights are in" in text and "drawing" not in text
    assert contents(whole) == before
    (whole / "report.html").unlink()
    assert "drawing" not in call(capsys, "unlearn", "--resume", whole)[1]
    assert (whole / "report.html").exists()


def test_weights_that_are_gone_are_made_again(whole, place, capsys):
    shutil.rmtree(whole / "weights")
    assert call(capsys, "unlearn", "--resume", whole)[0] == 0
    assert same_weights(whole, place / "whole")


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"mine"), lambda file: cut_short(file)])
def test_weights_that_changed_are_told(whole, place, capsys, spoil):
    file = next((whole / "weights").glob("*.safetensors"))
    spoil(file)
    before = contents(whole)
    assert f"{file}: not as the run wrote it" in refused(capsys, "unlearn", "--resume", whole)
    assert contents(whole) == before
    file.unlink()
    assert call(capsys, "unlearn", "--resume", whole)[0] == 0
    assert same_weights(whole, place / "whole")


def test_export_says_what_has_no_effect(whole, capsys):
    code, text = call(capsys, "export", whole, "--formats", "delta", "--lora-rank", "3", "--lora-energy", "0.5")
    assert code == 0 and "(--lora-rank) has no effect" in text and "(--lora-energy) has no effect" in text
    assert "has no effect" not in call(capsys, "export", whole, "--formats", "lora", "--lora-rank", "3")[1]


@pytest.mark.parametrize("there", [True, False])
def test_a_report_of_nothing_leaves_nothing(tmp_path, capsys, there):
    if there:
        (tmp_path / "run").mkdir()
    refused(capsys, "report", tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == ([tmp_path / "run"] if there else [])


# damage -------------------------------------------------------------------------------------------


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file):
    file.write_bytes(b"")


def ends_otherwise(file):
    """One byte near the end, which no header tells."""
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)


def holed(file):
    """As a disk leaves a file whose end it wrote before its middle."""
    content = file.read_bytes()
    middle = len(content) * 2 // 3
    file.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])


def noise(file):
    file.write_bytes(b"\xff\x00{[" * 100)


def of_something_else(file):
    if file.suffix == ".safetensors":
        save_file({"weights.x": torch.zeros(2)}, file, metadata={"step": "3"})
    else:
        file.write_text('{"some": ["thing"]}')


@pytest.mark.parametrize("damage", [cut_short, emptied, holed, of_something_else])
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["checkpoints/step-000003.safetensors"], "step-000003.safetensors was damaged"),
        (["checkpoints/step-000003.safetensors", "checkpoints/step-000002.safetensors"], "000002.safetensors was dam"),
        (["checkpoints/samples.safetensors"], "samples.safetensors was damaged"),
        (["checkpoints/samples.sha256"], "samples.safetensors was damaged"),
        (["checkpoints/audit-before.json"], "audit-before.json was damaged"),
        (["events.jsonl"], "lines of"),
        (["prompts.json"], "The prompts were made again"),
    ],
    ids=lambda value: value[-1].split("/")[-1] if isinstance(value, list) else "",
)
def test_what_is_damaged_is_made_again_with_a_word(cut, place, capsys, damage, names, says):
    for name in names:
        damage(cut / name)
    code, text = call(capsys, "unlearn", "--resume", cut)
    assert code == 0 and ((damage is emptied and names == ["events.jsonl"]) or says in text), text
    assert same_weights(cut, place / "whole")
    results, expected = Results.load(cut / "results.json"), Results.load(place / "whole" / "results.json")
    assert results.training.steps == STEPS and results.audits == expected.audits
    assert any(says in warning for warning in results.warnings) or damage is emptied
    assert RunFolder.open(cut).prompts() == RunFolder.open(place / "whole").prompts()


def test_a_torn_line_leaves_the_other_steps(cut, place, capsys):
    lines = (cut / "events.jsonl").read_bytes().splitlines()
    (cut / "events.jsonl").write_bytes(b"\n".join([lines[0], lines[1][:30] + b"\xff", *lines[2:], lines[2][:9]]))
    code, text = call(capsys, "unlearn", "--resume", cut)
    assert code == 0 and "2 of 4 lines of" in text
    assert [json.loads(line)["step"] for line in (cut / "events.jsonl").read_text().splitlines()] == [0, 2, 3]
    assert Results.load(cut / "results.json").training.steps == STEPS and same_weights(cut, place / "whole")


@pytest.mark.parametrize("damage", [emptied, noise, Path.unlink])
def test_a_lost_recipe_is_in_the_record(cut, place, capsys, damage):
    damage(cut / "recipe.yaml")
    code, text = call(capsys, "unlearn", "--resume", cut)
    assert code == 0 and "The run goes by run.json" in text
    assert same_weights(cut, place / "whole")


def test_a_recipe_with_a_mistake_is_told(cut, capsys):
    edit(cut, "seed: 0", "seed: -5")
    assert "seed" in refused(capsys, "unlearn", "--resume", cut)


@pytest.mark.parametrize("damage", [cut_short, emptied, noise, of_something_else])
@pytest.mark.parametrize("command", [("report",), ("export", "--formats", "delta"), ("info",)], ids=lambda w: w[0])
def test_damaged_results_are_one_line(whole, capsys, damage, command):
    damage(whole / "results.json")
    assert "results.json" in refused(capsys, command[0], whole, *command[1:])


def test_a_run_with_damaged_results_can_be_finished_again(whole, place, capsys):
    emptied(whole / "results.json")
    assert call(capsys, "unlearn", "--resume", whole)[0] == 0
    assert Results.load(whole / "results.json").training.steps == STEPS and same_weights(whole, place / "whole")


@pytest.mark.parametrize("damage", [cut_short, emptied, noise, ends_otherwise])
def test_export_takes_what_is_whole(whole, place, tmp_path, capsys, damage):
    expected = Path(shutil.copytree(whole, tmp_path / "expected"))
    assert call(capsys, "export", expected, "--formats", "delta")[0] == 0
    damage(whole / "checkpoints" / "step-000004.safetensors")
    assert call(capsys, "export", whole, "--formats", "delta")[0] == 0
    one, other = (load_file(next((run / "weights").glob("*-delta*"))) for run in (whole, expected))
    assert all(torch.equal(one[name], other[name]) for name in other)
    damage(next((whole / "weights").glob("*cat.safetensors")))
    assert call(capsys, "export", whole, "--formats", "lora")[0] == 0, "its base and its delta are whole"
    damage(next((whole / "weights").glob("*-delta.safetensors")))
    told = refused(capsys, "export", whole, "--formats", "lora")
    assert "in no form that gives all of them back" in told and "delta (changed), lora (unchanged)" in told


# other people's files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_new_run_adopts_nothing(place, tmp_path, capsys, name):
    out = tmp_path / "out"
    path = out / name
    if path.suffix:
        out.mkdir()
        path.write_text("mine")
    else:
        path.mkdir(parents=True)
        (path / "mine.txt").write_text("mine")
    before = contents(out)
    with pytest.raises(UserError, match=rf"holds {re.escape(name)}, which this run did not write"):
        run_recipe(recipe_for(place), out)
    assert contents(out) == before


def test_other_files_are_left_alone(place, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.md").write_text("mine")
    (out / "data").mkdir()
    run_recipe(recipe_for(place), out)
    assert (out / "notes.md").read_text() == "mine" and (out / "data").is_dir()
    ours = {path.name for path in out.iterdir()} - {"notes.md", "data", ".lock"}
    assert ours <= set(NAMES)


def test_every_name_of_a_run_is_in_the_list(place, tmp_path):
    for method in ({"name": "salun"}, {"name": "rgd", "forget_limit": "auto"}):
        out = tmp_path / method["name"]
        run_recipe(recipe_for(place, method=method, training={"steps": 1, "batch_size": 2}), out)
        assert {path.name for path in out.iterdir()} - {".lock"} <= set(NAMES)


def test_files_beside_the_weights_survive(cut, capsys):
    edit(cut, "- denoiser", "- diffusers")
    assert call(capsys, "unlearn", "--resume", cut)[0] == 0
    folder = cut / "weights" / "diffusers"
    (folder / "README.md").write_text("mine")
    (folder / "unet" / "notes.txt").write_text("mine")
    (folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors").write_bytes(b"of an older writing")
    (cut / "checkpoints" / "step-000001-copy.safetensors").write_text("mine")
    assert call(capsys, "export", cut, "--formats", "diffusers", "--dtype", "fp16")[0] == 0
    assert (folder / "README.md").read_text() == (folder / "unet" / "notes.txt").read_text() == "mine"
    assert [file.name for file in (folder / "unet").glob("*.safetensors")] == ["diffusion_pytorch_model.safetensors"]
    shutil.rmtree(folder / "vae")
    (cut / "results.json").unlink()
    assert call(capsys, "unlearn", "--resume", cut)[0] == 0
    assert (folder / "README.md").exists() and (folder / "vae").is_dir()
    assert (cut / "checkpoints" / "step-000001-copy.safetensors").exists()


@pytest.mark.parametrize("where", ["base", "base/sub", "link", "file", "file/sub", "dangling"])
def test_places_that_are_refused(place, tmp_path, where):
    base = Path(shutil.copytree(place / "base", tmp_path / "base"))
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(UserError):
        run_recipe(recipe_for(place, model=str(base)), tmp_path / where)
    assert contents(tmp_path) == before


def test_a_refused_run_leaves_nothing(place, tmp_path, capsys):
    words = ["unlearn", "--model", place / "base", "--concept", "cat", "--n", "4", "--n-test", "2"]
    out = tmp_path / "deep" / "down"
    for wrong in (["--device", "cuda:7"], ["--model", tmp_path / "no-model"], ["--prompts", tmp_path / "none.csv"]):
        refused(capsys, *words, *wrong, "--out", out)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "deep").mkdir()
    refused(capsys, *words, "--device", "cuda:7", "--out", out)
    assert list((tmp_path / "deep").iterdir()) == [], "a folder of the user's own stays, and is as it was"


def test_a_full_disk_at_the_beginning_leaves_nothing(place, tmp_path, monkeypatch):
    def full(self, path):
        raise UserError("can't write: No space left on device.")

    from turpentine.pipeline.prompts import PromptSet

    monkeypatch.setattr(PromptSet, "save", full)
    with pytest.raises(UserError, match="No space"):
        run_recipe(recipe_for(place), tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_later_leaves_a_run(place, tmp_path, monkeypatch, capsys):
    from turpentine.pipeline.training.trainer import Trainer

    def too_much(self, step):
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", too_much)
        with pytest.raises(torch.OutOfMemoryError):
            run_recipe(recipe_for(place), tmp_path / "run")
    with pytest.raises(UserError, match=r"already holds a run\. Continue it with --resume .*, or choose another --out"):
        run_recipe(recipe_for(place), tmp_path / "run")
    assert call(capsys, "unlearn", "--resume", tmp_path / "run")[0] == 0
    assert same_weights(tmp_path / "run", place / "whole")


def test_pictures_are_not_drawn_over(place, tmp_path, capsys):
    quick = ["--num-inference-steps", "1", "--image-size", "16"]
    words = ["generate", "a cat", "a dog", "--model", place / "base", *quick]
    (tmp_path / "00001.png").write_text("mine")
    assert "00001.png is there already" in refused(capsys, *words, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00001.png"]
    assert call(capsys, *words[:2], *words[3:], "--out", tmp_path)[0] == 0


# the lock -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["resume", "export", "report", "new"])
def test_a_folder_in_use_is_refused(whole, cut, place, capsys, command):
    words = {
        "resume": ["unlearn", "--resume", cut],
        "export": ["export", whole, "--formats", "delta"],
        "report": ["report", whole],
        "new": ["unlearn", "--recipe", cut / "recipe.yaml", "--out", cut.parent / "new"],
    }[command]
    folder = {"resume": cut, "new": cut.parent / "new"}.get(command, whole)
    folder.mkdir(exist_ok=True)
    with RunFolder(folder).locked():
        before = contents(folder)
        assert re.search(r"is at work in process \d+ since 20", refused(capsys, *words))
        assert contents(folder) == before


def test_a_killed_process_leaves_no_lock(cut):
    code = (
        "import sys, os, pathlib; from turpentine.pipeline.run.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked(): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(cut)], check=False)
    with RunFolder(cut).locked():
        assert (cut / ".lock").exists()


def test_seconds_of_earlier_sittings_count(cut, capsys):
    kept = json.loads((cut / "checkpoints" / "seconds.json").read_text())
    (cut / "checkpoints" / "seconds.json").write_text(json.dumps(kept | {"samples": 1000.0, "total": 2000.0}))
    assert call(capsys, "unlearn", "--resume", cut)[0] == 0
    timings = Results.load(cut / "results.json").timings
    assert 1000 < timings.samples < 1100 and 2000 < timings.total < 2200 and timings.prompts > 0


def test_a_resumed_run_draws_the_same_instead(place, tmp_path):
    """SalUn, stopped while it trains: its anchors are those that the run began with."""
    chosen = {"method": {"name": "salun", "data": "diverse"}}

    def recipe(text):
        return recipe_for(place, **chosen, prompts={"n": 4, "n_test": 2, "replace_with": text})

    run_recipe(recipe("a dog"), tmp_path / "whole")
    with pytest.raises(Cancelled):
        run_recipe(
            recipe("a dog"),
            tmp_path / "cut",
            progress=StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 3),
        )
    run_recipe(recipe("a dog"), tmp_path / "cut", resume=True)
    run_recipe(recipe(None), tmp_path / "plain")
    whole, cut, plain = (weights_of(tmp_path / name) for name in ("whole", "cut", "plain"))
    assert all(torch.equal(part, whole[name]) for name, part in cut.items())
    assert not all(torch.equal(part, whole[name]) for name, part in plain.items())
    with pytest.raises(UserError, match=r"prompts\.replace_with 'a dog', and the recipe now says 'a fox'"):
        run_recipe(recipe("a fox"), tmp_path / "cut", resume=True)

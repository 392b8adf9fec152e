"""The run folder: what is kept comes back, and no run is overwritten."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMScheduler
from PIL import Image
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.run import folder as runs
from turpentine.pipeline.run.folder import KEPT_IMAGES, RunFolder, new_run_path
from turpentine.pipeline.run.record import MAY_CHANGE, RunRecord, check_recipe, model_sha256
from turpentine.pipeline.run.weights import weights_name
from turpentine.pipeline.schema.defaults import build_recipe, merge
from turpentine.pipeline.schema.fields import fields_of
from turpentine.pipeline.schema.recipe import Recipe
from turpentine.pipeline.schema.results import (
    AlignmentResult,
    AuditResult,
    Audits,
    Interval,
    ModelInfo,
    NudityResult,
    Pair,
    Results,
    Timings,
    TrainingResult,
)
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.files import NAME_BYTES, write_text

from ..support.tiny_models import build_family

RECIPE = build_recipe({"concept": "pop art", "kind": "style", "training": {"steps": 3}})
INTERVAL = Interval(mean=0.25, low=0.2, high=0.3, images=4)
AUDIT = AuditResult(
    nudity=NudityResult(images=4, images_with_any=1, threshold=0.6, detections={"FACE_FEMALE": 1}),
    alignment=AlignmentResult(
        forget=0.1, retain_train=0.2, retain_test=0.3, model="m",
        intervals=dict.fromkeys(("forget", "retain_train", "retain_test"), INTERVAL),
    ),
)  # fmt: skip


def make_results():
    pair = Pair(forget=0.5, retain=0.25)
    return Results(
        concept="pop art", kind="style", method="rgd", recipe=RECIPE.model_dump(mode="json"),
        model=ModelInfo(name="m", family="stable-diffusion", sha256="0" * 64),
        training=TrainingResult(
            steps=3, seconds=1, seconds_per_step=0.3, peak_memory_bytes=1, conflict_rate=1, violation_rate=pair,
            truncation_rate=0, final_loss=pair,
        ),
        audits=Audits(before=AUDIT, after=AUDIT),
        timings=Timings(prompts=0, samples=0, training=0, weights=0, audits=0, total=0),
        weights=[], versions={"turpentine": "0"},
    )  # fmt: skip


def test_created_and_opened(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path / "run")
    assert RunFolder.open(tmp_path / "run") == run
    assert run.recipe() == RECIPE
    assert RunFolder.open(str(tmp_path / "run")).path == tmp_path / "run"


def test_a_run_is_never_overwritten(tmp_path):
    RunFolder.create(RECIPE, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"already holds a run\. Continue it with --resume .*run, or choose another --out"
    ):
        RunFolder.create(RECIPE, tmp_path / "run")


def test_an_empty_folder_may_be_used(tmp_path):
    assert RunFolder.create(RECIPE, tmp_path).recipe() == RECIPE


def test_out_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="expected a folder for --out, got the file"):
        RunFolder.create(RECIPE, tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", r"expected a run folder with a recipe\.yaml, found none in"),
        ("none", "expected a run folder, and there is no"),
    ],
)
def test_no_run_there(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        RunFolder.open(tmp_path / name)


def test_what_was_not_made_is_none(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path)
    assert run.prompts() is None and run.results() is None and run.audit("before") is None
    assert run.samples() is None and run.seconds() == {} and run.missing() is None


def test_prompts_results_and_audits_come_back(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path)
    prompts = PromptSet.build("cat", n=4, n_test=2)
    prompts.save(tmp_path / "prompts.json")
    make_results().save(tmp_path / "results.json")
    run.save_audit("before", AUDIT)
    assert run.prompts() is None, "the run waits for its turn"
    (tmp_path / "run.json").unlink()
    assert run.prompts() == prompts and run.results() == make_results()
    assert run.audit("before") == AUDIT and run.audit("after") is None


def test_results_of_another_version(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path)
    content = make_results().model_dump(mode="json") | {"schema_version": 2}
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not a results file of schema version 1"):
        run.results()


def test_images_for_people(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (KEPT_IMAGES + 3, 8, 8, 3), dtype=np.uint8)
    texts = [f"prompt {index}" for index in range(len(images))]
    run.save_images("before", {"forget": images, "retain": images[:2]}, {"forget": texts, "retain": texts[:2]})
    folder = tmp_path / "images"
    assert len(list((folder / "before").glob("forget-*.png"))) == KEPT_IMAGES
    assert [path.name for path in sorted((folder / "before").glob("retain-*"))] == ["retain-000.png", "retain-001.png"]
    assert np.array_equal(np.asarray(Image.open(folder / "before" / "forget-003.png")), images[3])
    assert json.loads((folder / "prompts.json").read_text()) == {"forget": texts[:KEPT_IMAGES], "retain": texts[:2]}
    assert not [path for path in folder.rglob("*") if "partial" in path.name]


def test_new_paths_are_named_after_concept_and_method_and_free(tmp_path, monkeypatch):
    class Noon(runs.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2030, 1, 2, 12, 0, 0)

    monkeypatch.setattr(runs, "datetime", Noon)
    monkeypatch.chdir(tmp_path)
    assert new_run_path(RECIPE) == Path("runs/pop-art-rgd-20300102-120000")
    for expected in ("", "-2", "-3"):
        assert RunFolder.create(RECIPE).path == Path(f"runs/pop-art-rgd-20300102-120000{expected}")


@pytest.mark.parametrize("concept", ["../../etc", "a/b", "..", "a\\b", "what?: *"])
def test_odd_concepts_stay_under_runs(concept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = new_run_path(build_recipe({"concept": concept, "kind": "class", "model": "a/b"}))
    assert path.resolve().parent == (tmp_path / "runs").resolve()
    assert not set('\\/:*?"<>|') & set(path.name), "a name that every file system takes"


def test_every_field_decides_unless_it_is_listed():
    """A field that comes later decides: nobody has to think of it."""
    keys = {field.key for field in fields_of()}
    assert set(MAY_CHANGE) <= keys, "a field that is no longer there"
    begun = RunRecord.of(RECIPE)
    for key in sorted(keys):
        *sections, name = key.split(".")
        nested = json.loads(json.dumps(begun.recipe))
        place = nested
        for section in sections:
            place = place[section]
        if name not in place:
            continue  # of another method
        place[name] = ["another"]
        changed = RunRecord(recipe=nested).signed().sha256 != begun.sha256
        assert changed == (key not in MAY_CHANGE), key


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 3}, "seed 0, and the recipe now says 3"),
        ({"training": {"batch_size": 4}}, "training.batch_size 16, and the recipe now says 4"),
        ({"method": {"name": "esd"}}, "method.name 'rgd', and the recipe now says 'esd'. Put"),
        ({"prompts": {"synonyms": ["warhol"]}}, r"prompts.synonyms \[\], and the recipe now says \['warhol'\]"),
        ({"audits": {"nudity_threshold": 0.7}}, "audits.nudity_threshold 0.6, and the recipe now says 0.7"),
        ({"device": "cpu"}, None),
        ({"model": "elsewhere/tiny-canvas"}, None),
        ({"output": {"formats": ["lora"], "dtype": "fp16", "lora_rank": 4}}, None),
    ],
)
def test_another_recipe(tmp_path, changes, says):
    before = RECIPE.model_dump(mode="json")
    now = Recipe.model_validate(merge(before, changes))
    if says is None:
        check_recipe(before, now, tmp_path)
    else:
        with pytest.raises(UserError, match=f"was begun with .*{says}"):
            check_recipe(before, now, tmp_path)


def test_a_recipe_of_an_older_version_lacks_fields(tmp_path):
    before = RECIPE.model_dump(mode="json")
    del before["training"]["preview_every"], before["prompts"]["keep_forgotten"], before["data"]
    check_recipe(before, RECIPE, tmp_path)


def test_one_owner_in_threads_too(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path / "run")
    with run.locked(), ThreadPoolExecutor(1) as pool:
        with pytest.raises(UserError, match=r"is at work in process \d+ since"):
            pool.submit(run.delete).result()
        with pytest.raises(UserError, match="is at work"), run.locked():
            pass
    run.delete()
    assert not run.path.exists()


def test_of_two_that_begin_in_one_folder_one_wins(tmp_path):
    with RunFolder.begin(RECIPE, tmp_path / "run"):
        with pytest.raises(UserError, match="is at work"), RunFolder.begin(RECIPE, tmp_path / "run"):
            pass
        assert (tmp_path / "run").is_dir(), "the one that lost took nothing away"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt, OSError])
def test_what_never_began_leaves_nothing(tmp_path, error):
    (tmp_path / "own").mkdir()
    for out in ("own", "own/a", "b/c/d"):
        with pytest.raises(error), RunFolder.begin(RECIPE, tmp_path / out):
            raise error
    assert list(tmp_path.rglob("*")) == [tmp_path / "own"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'{"a": null}',
        b"\xff",
        b'{"samples": "x"}',
        b'{"samples": NaN}',
        b'{"samples": %s}' % (b"9" * 400),
    ],
)
def test_damaged_seconds_are_none(tmp_path, content):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "seconds.json").write_bytes(content)
    assert RunFolder(tmp_path).seconds() == {}


def test_what_a_run_is_resumed_from_is_removed_and_nothing_else(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path)
    run.save_audit("before", AUDIT)
    run.save_seconds({"samples": 1.0})
    for name in ("step-000004.safetensors", "samples.safetensors", "step-best.safetensors", "notes.txt"):
        (tmp_path / "checkpoints" / name).write_text("x")
    run.forget_checkpoints()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-best.safetensors", "notes.txt"}


LONG = ["梵" * 100, "a" * 300, " + ".join(["Pablo Picasso", "Claude Monet"] * 20), "é" * 90 + "x"]


@pytest.mark.parametrize("concept", LONG)
def test_long_names_are_cut_and_stay_apart(tmp_path, concept):
    model = "m" * 200
    stems = {
        weights_name(RECIPE.model_copy(update={"concepts": (f"{concept}{ending}",), "model": model}))
        for ending in ("", " two")
    }
    assert len(stems) == 2 and all(len(stem.encode()) <= NAME_BYTES for stem in stems)
    run = new_run_path(RECIPE.model_copy(update={"concepts": (concept,)})).name
    for name in (*stems, run):
        write_text(tmp_path / f"{name}-checkpoint.safetensors", "x")


def test_a_folder_that_is_read_from_is_no_run_folder(tmp_path):
    images = tmp_path / "images-of-mine"
    (images / "3").mkdir(parents=True)
    recipe = build_recipe({"concept": "3", "kind": "class", "model": "digits", "data": {"dataset": str(images)}})
    with pytest.raises(UserError, match="which the run reads from"):
        RunFolder.create(recipe, images / "run")
    assert [path.name for path in images.iterdir()] == ["3"]


def test_settings_are_the_same_in_every_form():
    """Schedulers of other programs hold their betas in an array; one that was saved and loaded has a list."""
    denoiser = wrap_pipeline(build_family("sd1"))
    found = []
    for betas in (np.linspace(0.001, 0.01, 1000), np.linspace(0.001, 0.01, 1000).tolist(), [0.002] * 1000):
        denoiser.pipeline.scheduler = DDIMScheduler(trained_betas=betas)
        found.append(model_sha256(denoiser)["scheduler"])
    assert found[0] == found[1] != found[2]

"""The run folder: what is kept comes back, and no run is overwritten."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.run import folder as runs
from turpentine.pipeline.run.folder import KEPT_IMAGES, RunFolder, new_run_path
from turpentine.pipeline.schema.defaults import build_recipe
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


@pytest.mark.parametrize("name", ["", "none"])
def test_no_run_there(tmp_path, name):
    with pytest.raises(UserError, match=r"expected a run folder with a recipe\.yaml, found none in"):
        RunFolder.open(tmp_path / name)


def test_what_was_not_made_is_none(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path)
    assert run.prompts() is None and run.results() is None and run.audit("before") is None
    assert not run.samples.exists()


def test_prompts_results_and_audits_come_back(tmp_path):
    run = RunFolder.create(RECIPE, tmp_path)
    prompts = PromptSet.build("cat", n=4, n_test=2)
    prompts.save(tmp_path / "prompts.json")
    make_results().save(tmp_path / "results.json")
    run.save_audit("before", AUDIT)
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

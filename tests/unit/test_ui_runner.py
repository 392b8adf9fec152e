"""The app's queue: what can be known is told at once, not when the job's turn comes."""

import pytest
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.support.errors import UserError
from turpentine.ui.access import Access
from turpentine.ui.runner import Runner

from ..support.tiny_models import build_family

SMALL = {
    "concept": "cat",
    "model": "tiny-canvas",
    "device": "cpu",
    "prompts": {"n": 4, "n_test": 2},
    "audits": {"images": 2, "retain_train_images": 2, "alignment": False},
}


@pytest.fixture
def runner(tmp_path):
    return Runner(Access(runs=tmp_path, llm_url="http://127.0.0.1:9/v1", llm_model="m"))


def submit(runner, task="unlearn", pairs=None, **chosen):
    return runner.submit(runner.access.recipe(SMALL | chosen), task, pairs)


@pytest.mark.parametrize("task", ["unlearn", "audit"])
@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"concept": "unicorn"}, "tiny-canvas can't draw 'unicorn'"),
        ({"device": "meta"}, "device 'meta' can't be used here"),
        ({"audits": {"nudity": "on", "nudity_labels": "BREAST"}}, "got 'BREAST'"),
    ],
)
def test_refused_at_once(runner, tmp_path, task, chosen, message):
    with pytest.raises(UserError, match=message):
        submit(runner, task, **chosen)
    assert list(tmp_path.iterdir()) == [] and runner.names() == []


def test_what_only_training_needs(runner, monkeypatch):
    monkeypatch.setattr("turpentine.pipeline.training.optimizers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package 'bitsandbytes'"):
        submit(runner, training={"optimizer": "adam8bit"})
    assert submit(runner, "audit", training={"optimizer": "adam8bit"}) in runner.names()


def test_warnings_are_kept_with_the_job(runner):
    name = submit(runner, audits=SMALL["audits"] | {"nudity_threshold": 0.7})
    (warning,) = runner.job(name).warnings
    assert warning.startswith("audits.nudity_threshold (--nudity-threshold) has no effect where nudity is not counted")
    assert runner.job(submit(runner)).warnings == ()


def test_edited_rows_are_as_many_as_they_are(runner):
    pairs = PromptSet.build("cat", n=3, n_test=1, world="tiny-canvas")
    recipe = runner.access.run(submit(runner, pairs=pairs)).recipe()
    assert (recipe.prompts.n, recipe.prompts.n_test) == (3, 1)


def test_a_language_model_is_asked_at_the_jobs_turn(tmp_path):
    folder = tmp_path / "models" / "sd"
    build_family("sd1").save_pretrained(folder)
    access = Access(tmp_path, (tmp_path / "models",), llm_url="http://127.0.0.1:9/v1", llm_model="m")
    runner = Runner(access)
    asks = {"model": str(folder), "prompts": {"n": 4, "n_test": 2, "source": "llm"}}
    name = submit(runner, **asks)
    assert access.run(name).recipe().prompts.source == "llm" and runner.job(name).warnings == ()

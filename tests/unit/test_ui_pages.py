"""The page's HTML: visitors' text stays text wherever it is shown, and a run says where it stands."""

import json
from html.parser import HTMLParser

import pytest

pytest.importorskip("gradio")

import gradio as gr
from jinja2 import UndefinedError
from PIL import Image
from turpentine.pipeline.prompts import PromptPair, PromptSet
from turpentine.pipeline.run.cost import Estimate
from turpentine.pipeline.run.folder import RunFolder
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.support.errors import UserError
from turpentine.ui.access import Access
from turpentine.ui.app import queue_html
from turpentine.ui.controls import Controls
from turpentine.ui.page import Page, told
from turpentine.ui.pictures import diversity, pairs
from turpentine.ui.render import note, render
from turpentine.ui.runner import Job, Runner
from turpentine.ui.steps.audit import figures_html
from turpentine.ui.steps.prompts import problem, verdict
from turpentine.ui.steps.runs import comparison
from turpentine.ui.steps.unlearn import status_html
from turpentine.ui.studio import Studio

from ..support.results import made_up

EVIL = """<script>alert(1)</script>"><img src='x' onerror='alert(2)'>{{ 7 * 7 }}&amp;"""
RECIPE = build_recipe({"concept": "cat"})


class Reader(HTMLParser):
    """Collects what a browser would see: the tags, their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def harmless(html: str) -> Reader:
    """What a browser sees, after a check that the evil text gave it no element and no attribute."""
    seen = Reader(html)
    assert "script" not in seen.tags and not any(name.startswith("on") for name, _ in seen.attributes)
    assert all(value != "x" for name, value in seen.attributes if name == "src")
    return seen


@pytest.fixture
def page(tmp_path):
    access = Access(runs=tmp_path)
    return Page(access, Runner(access), Studio(), Controls())


def make_run(page, name, prompt=EVIL, **job):
    """A run with a picture of each kind, and `job.json` if anything is said of its job."""
    folder = page.access.runs / name
    RunFolder.create(RECIPE, folder)
    sets = ("forget_test", "retain_test")
    for when in ("before", "after", "step-000020"):
        (folder / "images" / when).mkdir(parents=True)
        for each in sets:
            Image.new("RGB", (4, 4)).save(folder / "images" / when / f"{each}-000.png")
    (folder / "images" / "prompts.json").write_text(json.dumps({name: [prompt] for name in sets}))
    if job:
        (folder / "job.json").write_text(json.dumps({"task": "unlearn", "device": "cpu", "queued": 1.0} | job))
    return folder


def results_of(folder, **changes):
    (folder / "results.json").write_text(json.dumps(made_up(**changes)))


def test_prompts_of_pictures_are_text(page):
    folder = make_run(page, "cat-1")
    seen = harmless(pairs(folder, RECIPE))
    assert seen.text.count(EVIL) == 2 and "To forget before | after" in seen.text and "To keep" in seen.text
    assert [value for name, value in seen.attributes if name == "alt"] == [f"before: {EVIL}", f"after: {EVIL}"] * 2
    assert seen.tags == {"h4", "small", "div", "figure", "img", "figcaption"}


def test_pictures_of_a_step_name_it_and_need_no_picture_before(page):
    folder = make_run(page, "cat-1", "a cat")
    for file in (folder / "images" / "before").iterdir():
        file.unlink()
    seen = harmless(pairs(folder, RECIPE, "step-000020"))
    assert "before | after step 20" in seen.text
    assert [value for name, value in seen.attributes if name == "alt"] == ["after step 20: a cat"] * 2
    assert pairs(folder, RECIPE, "step-000040") == ""


def prompt_set(forget, *warnings):
    pair = PromptPair(forget=forget, retain="a dog")
    return PromptSet(concept="cat", synonyms=["cat"], train=[pair, pair], test=[pair], warnings=warnings)


def test_words_of_prompts_are_text(page):
    word = EVIL.lower().split()[0]
    other = PromptPair(forget="a cat", retain="a dog")
    made = prompt_set(f"a cat {EVIL}")
    seen = harmless(diversity(made.model_copy(update={"train": (*made.train, other)})))
    assert word in seen.text and "2 different forget prompts in 3 training rows" in seen.text
    assert ("style", "width:100%") in seen.attributes


def test_words_that_are_used_as_often_stand_in_alphabetical_order():
    prompts = ("a cat by the wall", "one cat at noon", "one cat in space")
    made = prompt_set("a cat").model_copy(
        update={"train": tuple(PromptPair(forget=prompt, retain="a dog") for prompt in prompts)}
    )
    words = Reader(diversity(made)).text.partition("concept.")[2].split()
    assert words == ["one2", *(f"{word}1" for word in "a at by in noon space the wall".split())]


def test_checks_of_prompts_are_text():
    seen = harmless(verdict(prompt_set("a cat", EVIL, "few rows")))
    assert EVIL in seen.text and "2 training and 1 test pairs" in seen.text and "li" in seen.tags
    assert "ul" not in harmless(verdict(prompt_set("a cat"))).tags
    assert harmless(problem(EVIL)).text == EVIL


def test_the_state_of_a_run_is_text(page):
    make_run(page, "cat-1", state="failed", message=EVIL)
    seen = harmless(status_html(page, "cat-1", page.runner.job("cat-1")))
    assert EVIL in seen.text and ("data-state", "failed") in seen.attributes and "progress" not in seen.tags
    folder = make_run(page, "cat-2", state="running")
    (folder / "progress.json").write_text(json.dumps({"stage": EVIL, "done": 1, "total": 4, "seconds_left": 75.0}))
    seen = harmless(status_html(page, "cat-2", page.runner.job("cat-2")))
    assert f"{EVIL}: 1 of 4, 1 min 15 s left in this stage" in seen.text
    assert ("value", "0.250") in seen.attributes and ("data-run", "cat-2") in seen.attributes


def test_the_name_of_a_run_is_text_even_in_an_attribute(page):
    seen = harmless(render("status", name=EVIL, state="done", text="done", share=None, warnings=[EVIL]))
    assert ("data-run", EVIL) in seen.attributes and EVIL in seen.text
    assert EVIL in harmless(render("queue", entries=[(EVIL, "running")])).text


def test_the_queue_names_every_run_that_is_not_done(page):
    assert queue_html(page) == ""
    make_run(page, "cat-1", state="queued")
    make_run(page, "cat-2", state="running")
    make_run(page, "cat-3", state="done")
    assert " ".join(Reader(queue_html(page)).text.split()) == "cat-2 running cat-1 waiting for its turn"


def test_figures_of_a_run_are_text(page):
    folder = make_run(page, "cat-1")
    assert "no figures yet" in harmless(figures_html(folder)).text
    results_of(folder, warnings=[EVIL], concept=EVIL)
    seen = harmless(figures_html(folder))
    assert EVIL in seen.text and "0.312" in seen.text
    assert {"table", "svg"} <= seen.tags, "parts of the report are markup"
    assert "Scene kept" in seen.text and "Alignment, forget to anchor" in seen.text
    (folder / "results.json").unlink()
    found = made_up()["audits"]["before"]
    found["nudity"]["detections"] = {EVIL: 3}
    (folder / "audit.json").write_text(json.dumps(found))
    seen = harmless(figures_html(folder))
    assert "accuracy: UA0.040" in seen.text and "accuracy: scene0.980" in seen.text
    assert "accuracy: scene by dimension, time0.600" in seen.text and "alignment: forget to anchor0.250" in seen.text
    assert "detections, <script>alert(1)</script>" in seen.text
    assert "after" not in seen.text, "there is one model only"


def test_wreckage_is_told_beside_the_figures(page):
    folder, data = make_run(page, "cat-1"), made_up()
    data["audits"]["after"]["accuracy"]["scene"] = 0.02
    results_of(folder, audits=data["audits"])
    assert "the pictures of its prompts are wreckage (scene kept 0.02)" in harmless(figures_html(folder)).text


def test_compared_runs_are_text(page):
    for name in ("cat-1", "cat-2"):
        results_of(make_run(page, name))
    before, after = "0.312", "0.204"
    seen = harmless(comparison(page, "cat-1", "cat-2"))
    assert seen.text.count(EVIL) == 4 and seen.text.count(f"{before} → {after}") == 2
    assert "cat-1" in seen.text and "cat-2" in seen.text and "table" in seen.tags
    (page.access.runs / "cat-2" / "results.json").unlink()
    assert "–" in harmless(comparison(page, "cat-1", "cat-2")).text


def test_mistakes_are_text_on_the_page_and_unchanged_for_programs():
    def mistake():
        raise UserError(f"got {EVIL!r}.")

    with pytest.raises(gr.Error) as caught:
        told(mistake)()
    assert harmless(caught.value.message).text == f"got {EVIL!r}." and not Reader(caught.value.message).tags
    with pytest.raises(gr.Error) as caught:
        told(mistake, html=False)()
    assert caught.value.message == f"got {EVIL!r}."


def test_what_was_recognised_is_text():
    assert EVIL in harmless(render("facts", facts={"Family": EVIL})).text
    assert harmless(note(EVIL)).text == EVIL


@pytest.mark.parametrize(("memory", "warned"), [(1e9, False), (3e9, True)])
def test_the_estimate_says_when_memory_is_short(memory, warned):
    found = Estimate(drawing=1.0, training=75.0, auditing=2.0, memory=memory, available=2e9)
    text = Reader(render("estimate", found=found)).text
    assert "training 1 min 15 s" in text and "of 2.0 GB free" in text
    assert ("not enough memory" in text) is warned


def test_a_template_without_a_value_is_an_error():
    with pytest.raises(UndefinedError, match="text"):
        render("note")


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", "{}", b"\xff", '{"task": "unlearn"}',
        '{"task": "unlearn", "state": "magic", "device": "cpu", "queued": 1}',
        '{"task": "paint", "state": "done", "device": "cpu", "queued": 1}',
        '{"task": "unlearn", "state": "running", "device": "cpu", "queued": "soon"}',
        '{"task": "unlearn", "state": "queued", "device": ["cpu"], "queued": 1}',
    ],
)  # fmt: skip
def test_a_broken_job_is_told_from_the_files_of_the_run(page, content):
    folder = make_run(page, "cat-1")
    (folder / "job.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert page.runner.job("cat-1") == Job("unlearn", "paused", "", 0.0)
    assert page.runner.queue() == []
    results_of(folder)
    assert page.runner.job("cat-1").state == "done"


def test_a_job_of_a_newer_version_is_read(page):
    make_run(page, "cat-1", state="queued", priority=3)
    assert page.runner.job("cat-1") == Job("unlearn", "queued", "cpu", 1.0)

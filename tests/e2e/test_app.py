"""The app in a real browser and over its API: one walkthrough, visitors who wait, mistakes, attacks."""

import json
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("gradio")

import httpx
from gradio_client import Client
from playwright.sync_api import sync_playwright
from turpentine.pipeline.report import rows
from turpentine.pipeline.schema.results import Results
from turpentine.ui.steps.unlearn import SECTIONS

from ..support import pages
from .app import CHROMIUM, SHORT, fill, open_part, served, short_recipe, wait_for_state

ENDPOINTS = {
    "models", "defaults", "recipe", "prompts", "unlearn", "audit", "runs", "status", "results", "pause", "resume",
    "cancel", "delete", "generate",
}  # fmt: skip
browser_needed = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium on the PATH")
PATIENCE = 240


CUT_SHORT = ("AbortError", "TimeoutError", "Unexpected error Connection errored out")
"""What the page's own client writes when a reload cuts its streams."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def url(runs, exports):
    with served(runs, "--export-to", f"ComfyUI={exports}") as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False, httpx_kwargs={"timeout": 60})


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    """A fresh visitor; nothing may be asked of other servers, and nothing may fail in the console."""
    page = visitor(browser, 1200)
    asked, problems, loads = [], [], []
    page.on("load", lambda loaded: loads.append(loaded))
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(url)
    page.wait_for_selector("#recognised .facts", state="attached")
    yield page
    page.close()
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    allowed = CUT_SHORT if len(loads) > 1 else ()
    assert [problem for problem in problems if not problem.startswith(allowed)] == []


def visitor(browser, width):
    """A page of a browser window of that width."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE * 1000)
    return page


def until(client, name, *states, seconds=PATIENCE):
    """Wait until a run has one of these states."""
    deadline = time.monotonic() + seconds
    while (status := client.predict(name, api_name="/status"))["state"] not in states:
        assert time.monotonic() < deadline, status
        time.sleep(0.3)
    return status


def until_steps(client, name, steps, seconds=PATIENCE):
    """Wait until a run has made so many steps."""
    deadline = time.monotonic() + seconds
    while (status := client.predict(name, api_name="/status"))["steps"] < steps:
        assert time.monotonic() < deadline and status["state"] == "running", status
        time.sleep(0.3)


@browser_needed
def test_walkthrough_ends_with_the_figures_of_results_json(page, url, runs, exports, tmp_path):
    assert "stable-diffusion" in page.locator("#recognised").inner_text()
    page.locator("#next-2").click()
    page.wait_for_selector("#checks .good")
    open_part(page, "text=Prompt settings")
    for box in ("prompts-n", "prompts-n_test"):
        fill(page, box, SHORT[box])
    page.wait_for_function("document.querySelector('#checks').innerText.includes('8 training and 6 test')")
    page.locator("#next-3").click()
    open_part(page, "#advanced > button")
    for section in ("samples", "training", "audits"):
        open_part(page, f"#section-{section} > button")
    for box, value in SHORT.items():
        if not box.startswith("prompts"):
            fill(page, box, value)
    page.locator("#start").click()
    wait_for_state(page, "queued", "running", "done")
    name = page.locator("#status .status").get_attribute("data-run")

    page.reload()  # the run goes on, and the page finds it again
    page.locator(f"#status .status[data-run='{name}']").wait_for(state="attached")
    page.get_by_role("tab", name="3 Unlearn").click()
    wait_for_state(page, "done")
    page.wait_for_selector("#previews img")
    assert page.locator("#previews img").first.evaluate("image => image.naturalWidth") == 64

    results = Results.load(runs / name / "results.json")
    recipe = results.recipe
    for box, value in SHORT.items():
        section, field = box.split("-")
        assert recipe[section][field] == value
    page.locator("#next-4").click()
    page.wait_for_selector("#figures .verdict")
    text = page.locator("#figures").inner_text()
    for row in rows(results):
        assert (
            row.name in text and row.before_text.partition(" ")[0] in text and row.after_text.partition(" ")[0] in text
        )
    page.wait_for_selector("#slider img")
    assert page.locator("#gallery img").count() == 24
    assert sorted(path.name for path in (runs / name / "images").iterdir() if path.is_dir()) == [
        "after", "before", "step-000002", "step-000004", "training",
    ]  # fmt: skip

    page.locator("#free-draw").click()
    page.wait_for_selector("#free-images img")

    page.locator("#next-5").click()
    page.locator("#weights").get_by_label("denoiser").check()
    page.locator("#copy").click()
    page.wait_for_selector("#copied >> text=Copied")
    written = next(file for file in results.weights if file.format == "denoiser")
    assert next(exports.iterdir()).read_bytes() == (runs / name / written.path).read_bytes()
    page.locator("#prepare").click()
    with page.expect_download() as downloading:
        page.locator("#download").click()
    downloading.value.save_as(tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").read_bytes() == (runs / name / written.path).read_bytes()
    assert f"turpentine unlearn --recipe {runs / name / 'recipe.yaml'}" in page.locator("#command").inner_text()

    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("gridcell", name=name).first.wait_for()
    page.locator("#clone").click()
    page.locator("#step-3:visible").wait_for()
    open_part(page, "#advanced > button")
    open_part(page, "#section-training > button")
    page.wait_for_function("document.querySelector('#training-steps input')?.value == '4'")


@browser_needed
def test_mistakes_in_every_box_are_told_in_one_line(page, runs, tmp_path):
    before = sorted(path.name for path in runs.glob("*/recipe.yaml"))
    page.get_by_role("tab", name="1 Model").click()
    for box, value, message in (("try-prompt", " ", "expected a prompt"), ("try-seed", "-1", "expected a seed")):
        good = page.locator(f"#{box} input, #{box} textarea").first.input_value()
        fill(page, box, value)
        page.locator("#try-draw").click()
        expect_toast(page, message)
        fill(page, box, good)

    page.locator("#next-2").click()
    page.wait_for_selector("#checks .good")
    for concept, message in (
        ("zebra", "zebra"),
        ("  ", "concept"),
        ("<img src=x onerror=alert(1)>", "with brackets"),
        ("pop art", "Use kind 'style'"),
    ):
        fill(page, "concept", concept)
        page.locator("#checks .bad", has_text=message).wait_for()
    assert page.locator("#checks img").count() == 0
    fill(page, "concept", "<b>x</b><img src=x>")
    page.locator("#checks .bad", has_text="<img src=x>").wait_for()
    page.locator("#next-3").click()
    page.locator("#start").click()
    page.locator(".toast-body.error").wait_for()
    assert page.locator(".toast-body b, .toast-body img").count() == 0
    expect_toast(page, "<b>x</b><img src=x>")
    page.get_by_role("tab", name="2 Prompts").click()
    fill(page, "concept", "cat")
    page.wait_for_selector("#checks .good")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("prompt\nx\n")
    with page.expect_file_chooser() as choosing:
        page.locator("#import").click()
    choosing.value.set_files(wrong)
    expect_toast(page, "forget, retain")
    page.locator("#pairs [data-testid='cell-0-0']").dblclick()
    page.wait_for_function("['INPUT', 'TEXTAREA'].includes(document.activeElement.tagName)")
    page.keyboard.press("Control+a")
    page.keyboard.type("learn")
    page.keyboard.press("Enter")
    page.locator("#checks .bad", has_text="row 1: split must be train or test, got 'learn'").wait_for()
    page.locator("#remake").click()
    page.wait_for_selector("#checks .good")

    page.locator("#next-3").click()
    open_part(page, "#advanced > button")
    for section in SECTIONS:
        open_part(page, f"#section-{section} > button")
    numbers = "elements => elements.map(element => element.closest('[id]:not(input)').id)"
    boxes = page.locator("#advanced input[type=number]:visible").evaluate_all(numbers)
    assert len(boxes) > 15 and "method-mask_share" not in boxes  # of another method
    for box in (*boxes, "training-max_grad_norm"):
        fill(page, box, "-1")
    page.locator("#start").click()
    keys = [box.replace("-", ".") for box in (*boxes, "training-max_grad_norm")]
    expect_toast(page, *(f"{key} (--" if "." in key else f"{key}: " for key in keys))  # with its option, if it differs
    for box, value, message in (
        ("training-steps", "2.5", "training.steps"),
        ("training-max_grad_norm", "much", "training.max_grad_norm"),
    ):
        fill(page, box, value)
        page.locator("#start").click()
        expect_toast(page, message)
    assert sorted(path.name for path in runs.glob("*/recipe.yaml")) == before


def expect_toast(page, *words):
    """Wait for one message with all of these words, and close it."""
    toast = page.locator(".toast-body.error", has_text=words[0]).first
    toast.wait_for()
    text = toast.inner_text()
    assert [word for word in words if word not in text] == [] and "Traceback" not in text
    page.evaluate("document.querySelectorAll('.toast-close').forEach(button => button.click())")
    page.locator(".toast-body").first.wait_for(state="detached")


@browser_needed
def test_a_second_run_waits_and_both_are_steered(page, client):
    first = client.predict(short_recipe(steps=100_000, checkpoint_every=2), api_name="/unlearn")
    second = client.predict(short_recipe(steps=100_000), api_name="/unlearn")
    try:
        page.locator("#queue li", has_text=second).get_by_text("waiting for its turn").wait_for()
        assert client.predict(second, api_name="/status")["queue"] == 1
        page.reload()  # a fresh page shows the run at work
        page.locator(f"#status .status[data-run='{first}']").wait_for()
        until_steps(client, first, 1)
        page.locator("#pause:enabled").click()
        wait_for_state(page, "paused")
        steps = client.predict(first, api_name="/status")["steps"]
        assert steps >= 1
        until(client, second, "running")
        page.locator("#resume:enabled").click()
        wait_for_state(page, "queued")
        client.predict(second, api_name="/cancel")
        until(client, second, "cancelled")
        until(client, first, "running")
        until_steps(client, first, steps + 1)  # it goes on from its checkpoint
        page.locator("#cancel:enabled").click()
        wait_for_state(page, "cancelled")
    finally:
        for name in (second, first):
            client.predict(name, api_name="/cancel")
    page.locator("#queue li").first.wait_for(state="detached")
    for name in (first, second):
        client.predict(name, api_name="/delete")
    assert not {first, second} & set(client.predict(api_name="/runs"))


@browser_needed
@pytest.mark.parametrize("width", [390, 1200])
def test_every_step_is_reachable_alone_and_fits(browser, url, width):
    page = visitor(browser, width)
    for step, name in ((4, "4 Audit"), (2, "2 Prompts"), (5, "5 Export"), (3, "3 Unlearn"), ("runs", "Runs")):
        page.goto(url)
        page.get_by_role("tab", name=name).click()
        page.locator(f"#step-{step}:visible").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_api_is_named_and_described(client):
    info = client.view_api(return_format="dict", print_info=False)
    assert {name.strip("/") for name in info["named_endpoints"]} == ENDPOINTS
    assert info["unnamed_endpoints"] == {}


def test_the_api_answers(client):
    assert client.predict(api_name="/models")[0] == "tiny-canvas"
    start = client.predict("tiny-canvas", "rg", "gentle", api_name="/defaults")
    assert start["method"]["name"] == "rg" and start["training"]["steps"] > 1
    whole = client.predict(short_recipe(), api_name="/recipe")
    assert whole["training"]["steps"] == 4 and whole["audits"]["alignment_model"] == "tiny-canvas"
    pairs = client.predict(short_recipe(), api_name="/prompts")
    assert len(pairs) == 14 and pairs[0][0] == "train" and len(pairs[0]) == 4, "split, forget, retain, anchor"
    picture = client.predict("tiny-canvas", "a photo of a cat", 3, api_name="/generate")
    assert len(picture) == 64 and len(picture[0]) == 64 and len(picture[0][0]) == 3


def test_the_page_s_example(client, url, runs):
    """docs/app.md, but for the address, the size and the wait before the figures."""
    (code,) = pages.python(pages.ROOT / "docs" / "app.md")
    start, figures = code.rstrip().rsplit("\n", 1)
    for old, new in (("http://127.0.0.1:7860", url), ('{"concept": "cat", "training": {"steps": 100}}', "short")):
        assert start.count(old) == 1, old
        start = start.replace(old, new)
    names = {"short": short_recipe()}
    exec(start, names)
    assert until(client, names["run"], "done", "failed")["state"] == "done"
    exec(f"figures = {figures}", names)
    assert Results.model_validate(names["figures"]) == Results.load(runs / names["run"] / "results.json")


def test_an_audit_without_unlearning(client, runs):
    name = client.predict(short_recipe(), api_name="/audit")
    assert until(client, name, "done", "failed")["state"] == "done"
    assert client.predict(name, api_name="/results") == json.loads((runs / name / "audit.json").read_text())


@pytest.mark.parametrize(
    ("endpoint", "arguments", "message"),
    [
        ("/unlearn", ({"concept": "zebra"},), "zebra"),
        ("/unlearn", ({"concept": "cat", "model": "/etc"},), "expected a model from the list"),
        ("/unlearn", ({"concept": "cat", "model": "org/model"},), "--allow-hub"),
        ("/unlearn", ({"concept": "cat", "prompts": {"file": "/etc/passwd"}},), "prompts.file can't be set"),
        ("/unlearn", ({"concept": "cat", "prompts": {"llm_url": "http://169.254.169.254"}},), "can't be set"),
        ("/status", ("../..",), "expected the name of a run"),
        ("/delete", ("..",), "expected the name of a run"),
        ("/results", ("nothing",), "found none"),
        ("/defaults", ("tiny-canvas", "rgd", "brutal"), "preset must be one of"),
        ("/generate", ("tiny-canvas", "", 0), "expected a prompt"),
        ("/generate", ("tiny-canvas", "cat", -1), "expected a seed"),
        ("/generate", ("run:../../x", "cat", 0), "expected the name of a run"),
    ],
)
def test_the_api_refuses_in_one_line(client, endpoint, arguments, message):
    with pytest.raises(Exception, match=message) as caught:
        client.predict(*arguments, api_name=endpoint)
    assert "Traceback" not in str(caught.value)


def ask(url, path, data=None, **headers):
    """Status and text of a request made by hand."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url.rstrip("/") + path, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def test_attacks_are_answered(url, runs):
    secret = runs / "server.log"
    assert ask(url, "/", Host="evil.example")[0] == 421
    assert ask(url, "/gradio_api/queue/join", {}, Origin="http://evil.example")[0] == 403
    assert ask(url, "/gradio_api/file=http://169.254.169.254/")[0] == 404
    for path in (str(secret), "/etc/passwd", str(runs.parent / "x"), __file__):
        status, text = ask(url, f"/gradio_api/file={path}")
        assert status in (403, 404) and "root:" not in text
    for path in (
        "/gradio_api/file=/tmp/../etc/passwd",
        "/static/../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
    ):
        assert ask(url, path)[0] in (400, 403, 404)
    fetch = {
        "data": [{"path": "http://127.0.0.1:1/x", "meta": {"_type": "gradio.FileData"}}],
        "fn_index": 0,
        "session_hash": "a",
    }
    assert ask(url, "/gradio_api/queue/join", fetch)[0] == 403
    assert ask(url, "/gradio_api/queue/join", {"data": ["x" * 9_000_000]})[0] == 413


def test_large_uploads_are_refused(url):
    for size, status in ((1_000, 200), (6_000_000, 413)):
        sent = httpx.post(f"{url}gradio_api/upload", files={"files": ("pairs.csv", b"x" * size)}, timeout=60)
        assert sent.status_code == status


def test_listening_demands_a_decision(capsys, tmp_path):
    from turpentine.ui.__main__ import main

    for words, message in (
        (["--listen"], "--auth"),
        (["--listen", "--auth", "me:short"], "8 characters"),
        (["--no-auth", "--auth", "me:long enough"], "contradict"),
        (["--quota", "0"], "--quota"),
        (["--models", str(tmp_path / "nowhere")], "expected a folder"),
        (["--export-to", "x"], "NAME=DIR"),
    ):
        assert main([*words, "--runs", str(tmp_path / "runs")]) == 2
        assert message in capsys.readouterr().err


def test_a_password_is_asked_for(tmp_path):
    with served(tmp_path, "--auth", "painter:solvent-123") as address:
        assert ask(address, "/gradio_api/info")[0] == 401
        assert ask(address, "/gradio_api/queue/join", {})[0] == 401
        with pytest.raises(Exception, match=r".+"):
            Client(address, auth=("painter", "wrong-password"), verbose=False)
        assert Client(address, auth=("painter", "solvent-123"), verbose=False).predict(api_name="/runs") == []

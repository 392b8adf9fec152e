"""The report of a real run, opened in a real Chromium, on a desk and on a phone."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from turpentine.pipeline.commands.main import main

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "run"
    assert main(["demo", "--quick", "--out", str(folder)]) == 0
    return folder / "report.html"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium on the PATH")
@pytest.mark.parametrize("size", [{"width": 1200, "height": 900}, {"width": 390, "height": 800}])
def test_report_shows_itself_without_network(report, size, tmp_path):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=size)
        requests, problems = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(report.as_uri())
        assert "astronaut" in page.locator("h1").inner_text()
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
        assert problems == []
        images = page.locator("img")
        assert images.count() >= 16
        assert all(images.nth(i).evaluate("image => image.naturalWidth") == 64 for i in range(images.count()))
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.locator("table").first.locator("tbody tr").count() >= 7
        browser.close()

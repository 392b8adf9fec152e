"""Draw the screenshots of docs/app.md in the course of a run with every default, and time it.

`python -m turpentine.tests.e2e.app_pictures docs/app`; with `--short` the run takes seconds and is no good to look at.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gradio_client import Client
from PIL import Image
from playwright.sync_api import sync_playwright

from .app import CHROMIUM, served, short_recipe, wait_for_state

DESK, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 844}
HALF_WAY = "document.querySelector('#status').innerText.includes('unlearning') && " + (
    "document.querySelector('#status progress')?.value > 0.5 && document.querySelector('#previews img')"
)
LONGEST = 3600  # seconds


def main(folder: Path, short: bool = False) -> None:
    """Next, Next, Start unlearning; a picture of each step."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with served(Path(tempfile.mkdtemp())) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=DESK)
        page.set_default_timeout(240_000)
        page.goto(url)
        page.wait_for_selector("#recognised .facts", state="attached")
        tell("the page is there", began)
        page.locator("#try-draw").click()
        page.wait_for_selector("#try-image img")
        save(page, folder / "model.png")
        page.locator("#next-2").click()
        page.wait_for_selector("#checks .good")
        save(page, folder / "prompts.png")
        page.locator("#next-3").click()
        tell("Start unlearning", began)
        if short:
            Client(url, verbose=False).predict(short_recipe(steps=40), api_name="/unlearn")
        else:
            page.locator("#start").click()
        page.wait_for_function(HALF_WAY, timeout=LONGEST * 1000)
        save(page, folder / "unlearn.png")
        wait_for_state(page, "done", timeout=LONGEST)
        tell("done", began)
        phone = browser.new_page(viewport=PHONE)
        phone.set_default_timeout(240_000)
        phone.goto(url)
        phone.wait_for_selector("#recognised .facts")
        save(phone, folder / "phone-model.png", full=False)
        phone.emulate_media(color_scheme="dark")
        phone.reload()
        phone.wait_for_selector("#recognised .facts", state="attached")
        for each, name in ((page, "audit.png"), (phone, "phone-audit.png")):
            each.get_by_role("tab", name="4 Audit").click()
            each.locator("#slider").scroll_into_view_if_needed()  # its pictures are loaded when they are in sight
            each.wait_for_selector("#slider img")
            each.wait_for_timeout(1000)
            each.evaluate("scrollTo(0, 0)")
            save(each, folder / name)
        page.locator("#next-5").click()
        page.wait_for_selector("#weights label")
        save(page, folder / "export.png")
        page.get_by_role("tab", name="Runs").click()
        page.get_by_role("gridcell").first.wait_for()
        save(page, folder / "runs.png", full=False)
        browser.close()


def tell(what: str, began: float) -> None:
    """Print how long it took to get here."""
    print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)


def save(page: Any, path: Path, full: bool = True) -> None:
    """A picture of the page, at most 1600 pixels high and with few colours."""
    page.wait_for_timeout(800)
    page.screenshot(path=path, full_page=full)
    with Image.open(path) as image:
        small = image.convert("RGB").crop((0, 0, image.width, min(image.height, 1600)))
    small.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), short="--short" in sys.argv[2:])

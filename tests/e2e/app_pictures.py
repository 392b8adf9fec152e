"""Draw the screenshots of docs/app.md: `python -m turpentine.tests.e2e.app_pictures docs/app`."""

import sys
import tempfile
from pathlib import Path

from gradio_client import Client
from PIL import Image
from playwright.sync_api import sync_playwright

from .app import CHROMIUM, served, short_recipe, wait_for_state

DESK, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 844}


def main(folder: Path, steps: int = 30) -> None:
    """One short run, a picture of each step."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = Path(tempfile.mkdtemp())
    with served(runs) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=DESK)
        page.set_default_timeout(240_000)
        page.goto(url)
        page.wait_for_selector("#recognised .facts")
        page.locator("#try-draw").click()
        page.wait_for_selector("#try-image img")
        save(page, folder / "model.png")
        page.locator("#next-2").click()
        page.wait_for_selector("#checks .good")
        save(page, folder / "prompts.png")
        page.locator("#next-3").click()
        recipe = short_recipe(steps=steps, preview_every=max(1, steps // 3), batch_size=8)
        recipe["samples"]["num_inference_steps"] = 12
        Client(url, verbose=False).predict(recipe, api_name="/unlearn")
        page.wait_for_selector("#previews img")
        save(page, folder / "unlearn.png")
        wait_for_state(page, "done", timeout=1800)
        phone = browser.new_page(viewport=PHONE)
        phone.set_default_timeout(240_000)
        phone.goto(url)
        phone.wait_for_selector("#recognised .facts")
        save(phone, folder / "phone-model.png", full=False)
        for each, name in ((page, "audit.png"), (phone, "phone-audit.png")):
            each.get_by_role("tab", name="4 Audit").first.click()
            each.wait_for_selector("#slider img")
            each.wait_for_timeout(1000)
            save(each, folder / name)
        page.locator("#next-5").click()
        page.wait_for_selector("#weights label")
        save(page, folder / "export.png")
        page.get_by_role("tab", name="Runs").first.click()
        page.locator("#runs td:visible").first.wait_for()
        save(page, folder / "runs.png", full=False)
        browser.close()


def save(page, path: Path, full: bool = True) -> None:
    """A picture of the page, at most 1600 pixels high and with few colours."""
    page.wait_for_timeout(800)
    page.screenshot(path=path, full_page=full)
    with Image.open(path) as image:
        small = image.convert("RGB").crop((0, 0, image.width, min(image.height, 1600)))
    small.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Start the app as users do, for tests and for the pictures in the docs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_LONGEST_START = 600  # seconds, on a machine that is busy with other work
SHORT = {
    "prompts-n": 8, "prompts-n_test": 6, "samples-num_inference_steps": 4, "training-steps": 4,
    "training-batch_size": 4, "training-preview_every": 2, "audits-images": 6, "audits-retain_train_images": 4,
}  # fmt: skip
"""Numbers that make a whole run take seconds: id of the box -> value."""


def short_recipe(**training: Any) -> dict[str, Any]:
    """The same as a recipe."""
    recipe: dict[str, Any] = {"concept": "astronaut", "model": "tiny-canvas"}
    for name, value in SHORT.items():
        section, field = name.split("-")
        recipe.setdefault(section, {})[field] = value
    recipe["training"] |= training
    return recipe


@contextmanager
def served(runs: Path, *options: str) -> Iterator[str]:
    """`turpentine ui` on a free port; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "turpentine.pipeline.commands.main",
        "ui",
        "--port",
        str(port),
        "--runs",
        str(runs),
        *options,
    ]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"}
    with open(runs / "server.log", "ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + _LONGEST_START
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (runs / "server.log").read_text()
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def fill(page: Any, box: str, value: Any) -> None:
    """Write into the box of an id, key by key as a user does: text set at once is no `input` to the page."""
    field = page.locator(f"#{box} input, #{box} textarea").first
    field.press("Control+a")
    field.press("Delete")
    field.press_sequentially(str(value))
    field.press("Tab")


def open_part(page: Any, part: str) -> None:
    """Open a closed accordion by its id or title."""
    page.locator(part).first.click()


def state_of(page: Any) -> str:
    """State of the run that the page follows, as it says itself."""
    return page.locator("#status .status").get_attribute("data-state") or ""


def wait_for_state(page: Any, *states: str, timeout: float = 240) -> str:
    """Wait until the page says one of these states."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if page.locator("#status .status").count() and state_of(page) in states:
            return state_of(page)
        assert not page.locator(".toast-body.error").count(), page.locator(".toast-body.error").all_inner_texts()
        page.wait_for_timeout(200)
    raise AssertionError(f"expected {states}, the page says: {page.locator('#status').inner_text()}")

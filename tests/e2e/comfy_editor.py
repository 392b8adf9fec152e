"""ComfyUI's editor in a real browser."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright

from .comfyui import ComfyUI

CHROMIUM = shutil.which("chromium")

_READY = "Boolean(window.app?.graph) && 'TurpentineUnlearnConcept' in LiteGraph.registered_node_types"

_SETTINGS = {"Comfy.TutorialCompleted": "true", "LiteGraph.Canvas.LowQualityRenderingZoomThreshold": "0"}
"""No greeting of a first visit, and words on nodes that are far away; JSON."""

_OPEN = """async ([workflow, name]) => {
  await app.loadGraphData(workflow, true, true, name);
  const nodes = app.graph._nodes, view = app.canvas.ds, element = app.canvas.canvas;
  const left = Math.min(...nodes.map(n => n.pos[0])), right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]));
  const top = Math.min(...nodes.map(n => n.pos[1] - 50)), height = n => n.flags.collapsed ? 0 : n.size[1];
  const bottom = Math.max(...nodes.map(n => n.pos[1] + height(n)));
  const wide = element.clientWidth - 120, high = element.clientHeight - 90;
  view.scale = Math.min(wide / (right - left), high / (bottom - top), 1);
  view.offset = [80 / view.scale - left, 75 / view.scale - top];
  app.canvas.setDirty(true, true);
  return nodes.filter(n => n.has_errors || !LiteGraph.registered_node_types[n.type]).map(n => n.type);
}"""

_SET = """widgets => {
  for (const node of app.graph._nodes)
    for (const widget of node.widgets ?? [])
      if (widget.name in (widgets[node.type] ?? {})) widget.value = widgets[node.type][widget.name];
}"""

_LISTEN = """() => {
  window.told = {progress: [], previews: 0, ended: null};
  const on = (name, heard) => app.api.addEventListener(name, heard);
  on('progress', event => told.progress.push([String(event.detail.node), event.detail.value, event.detail.max]));
  on('b_preview', () => told.previews++);
  on('execution_success', () => told.ended = 'success');
  on('execution_error', event => told.ended = event.detail.exception_message);
}"""

_SHOWN = """() => Object.fromEntries(app.graph._nodes.map(node => [node.id, {
  type: node.type,
  pictures: (node.imgs ?? []).map(image => [image.naturalWidth, image.naturalHeight]),
  texts: (node.widgets ?? []).map(widget => widget.value).filter(value => typeof value === 'string'),
}]))"""


class Editor:
    """A tab with the editor of a running server."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, workflow: dict[str, Any], name: str) -> list[str]:
        """Load a workflow and show all of it; gives the types of nodes that are red."""
        return self.page.evaluate(_OPEN, [workflow, name])

    def prompt(self) -> dict[str, Any]:
        """What the editor would queue, in API form."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def set(self, widgets: dict[str, dict[str, Any]]) -> None:
        """Give widgets of nodes of a type other values."""
        self.page.evaluate(_SET, widgets)

    def press_run(self) -> None:
        """Press the button, as a user does."""
        self.page.evaluate(_LISTEN)
        self.page.get_by_test_id("queue-button").click()

    def wait_until(self, condition: str, timeout: float = 1800) -> None:
        """Wait for a condition on `told` (JavaScript), for at most so many seconds."""
        self.page.wait_for_function(condition, timeout=timeout * 1000, polling=200)

    def told(self) -> dict[str, Any]:
        """What the server has told the editor since `press_run`: progress, previews and how it ended."""
        return self.page.evaluate("told")

    def shown(self) -> dict[str, dict[str, Any]]:
        """What every node shows: the sizes of its pictures, and its texts."""
        return self.page.evaluate(_SHOWN)


@contextmanager
def open_editor(server: ComfyUI) -> Iterator[Editor]:
    """The editor in Chromium, ready for work."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1800, "height": 1100})
        page.set_default_timeout(240_000)
        for setting, value in _SETTINGS.items():
            page.request.post(f"{server.address}/settings/{setting}", data=value)
        page.goto(server.address)
        page.wait_for_function(_READY)
        yield Editor(page)
        browser.close()

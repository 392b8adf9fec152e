"""Make example_workflows/ out of the workflows in API form, and the screenshot of a finished graph in docs/.

`COMFYUI_DIR=… COMFYUI_PYTHON=… python -m turpentine.tests.e2e.comfy_pictures`; with `--quick` the demo takes 40
steps on 32 prompts in place of its defaults, with `--graphs` it doesn't run at all.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .comfy_checkpoints import STAND_INS, write_sd15
from .comfy_editor import Editor, open_editor
from .comfy_graphs import WORKFLOWS
from .comfyui import ComfyUI

ROOT = Path(__file__).parents[2]

QUICK: dict[str, dict[str, Any]] = {
    "TurpentineDiversePromptSet": {"n": 32, "n_test": 32},
    "TurpentineUnlearnConcept": {"steps": 40},
    "TurpentineUnlearnOptions": {"audit_images": 8, "audit_retain_train_images": 8},
}

_LAY_OUT = """async ([api, name]) => {
  await app.loadApiJson(api, name);
  const graph = app.graph, nodes = graph._nodes, columns = [], depth = new Map();
  for (const node of nodes) {
    const size = node.computeSize(), preview = {PreviewImage: 430, PreviewAny: 130}[node.type] ?? 0;
    node.setSize([Math.max(preview ? 380 : 300, size[0]), size[1] + preview]);
    node.flags.collapsed = node.type === 'TurpentineUnlearnOptions';  // every number of a recipe: a tall node
  }
  const level = node => {  // the longest way from a source
    if (!depth.has(node.id)) {
      const links = (node.inputs ?? []).map(input => graph.links[input.link]).filter(Boolean);
      depth.set(node.id, Math.max(-1, ...links.map(link => level(graph.getNodeById(link.origin_id)))) + 1);
    }
    return depth.get(node.id);
  };
  for (const node of nodes) (columns[level(node)] ??= []).push(node);
  let x = 40;
  for (const column of columns) {
    let y = 80;
    for (const node of column) { node.pos = [x, y]; y += (node.flags.collapsed ? 0 : node.size[1]) + 70; }
    x += Math.max(...column.map(node => node.size[0])) + 80;
  }
  for (const node of nodes)
    for (const widget of node.widgets ?? []) if (widget.name === 'control_after_generate') widget.value = 'fixed';
  return JSON.stringify(graph.serialize());  // what is undefined stays out
}"""


def main(docs: Path, options: list[str]) -> None:
    """All of it."""
    base = Path(tempfile.mkdtemp())
    checkpoints = base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in STAND_INS:
        write_sd15(checkpoints / f"{name}.safetensors")
    with (
        ComfyUI(Path(os.environ["COMFYUI_DIR"]), os.environ["COMFYUI_PYTHON"], base, ROOT) as server,
        open_editor(server) as editor,
    ):
        editor.page.evaluate("() => app.ui.settings.setSettingValue('Comfy.Minimap.Visible', false)")
        for path in WORKFLOWS:
            workflow = json.loads(editor.page.evaluate(_LAY_OUT, [json.loads(path.read_text()), path.stem]))
            workflow["extra"] = {}
            example = ROOT / "example_workflows" / path.name
            example.write_text(json.dumps(workflow, indent=1) + "\n")
            red = editor.open(workflow, path.stem)
            save(editor, example.with_suffix(".jpg"))
            tell(f"{path.stem}: {len(workflow['nodes'])} nodes, red: {red}")
        if "--graphs" not in options:
            run_first(editor, docs, QUICK if "--quick" in options else {})


def run_first(editor: Editor, docs: Path, widgets: dict[str, dict[str, Any]]) -> None:
    """The bundled demo, finished."""
    workflow: dict[str, Any] = json.loads((ROOT / "example_workflows" / WORKFLOWS[0].name).read_text())
    editor.open(workflow, WORKFLOWS[0].stem)
    editor.set(widgets)
    began = time.monotonic()
    editor.press_run()
    editor.wait_until("told.ended", timeout=7200)
    tell(f"{editor.told()['ended']} after {time.monotonic() - began:.0f} s")
    save(editor, docs / "comfyui-finished.jpg")


def save(editor: Editor, path: Path) -> None:
    """A picture of the tab, once the editor has drawn what it was told."""
    editor.page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 1000))")
    editor.page.screenshot(path=path, type="jpeg", quality=60)


def tell(text: str) -> None:
    """At once, for whoever waits."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(ROOT / "docs", sys.argv[1:])

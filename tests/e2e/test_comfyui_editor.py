"""The example workflows in ComfyUI's editor, in Chromium."""

import json
from pathlib import Path

import pytest
import turpentine
from turpentine.comfy_nodes import NODE_CLASS_MAPPINGS

from .comfy_editor import CHROMIUM, open_editor
from .comfy_graphs import SHORT, WORKFLOWS

EXAMPLES = Path(turpentine.__file__).parent / "example_workflows"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium on the PATH")


def test_example_workflows_open_as_they_were_made(comfy):
    with open_editor(comfy) as editor:
        for path in WORKFLOWS:
            example = EXAMPLES / path.name
            assert example.with_suffix(".jpg").is_file()
            assert editor.open(json.loads(example.read_text()), path.stem) == []
            wanted, shown = json.loads(path.read_text()), editor.prompt()
            assert set(wanted) == set(shown)
            for id_, each in wanted.items():
                assert each["inputs"].items() <= shown[id_]["inputs"].items(), (path.stem, id_)


def test_a_graph_of_before_means_the_same(comfy):
    """Saved before there was anything to draw instead, it opens with the values that were saved."""
    saved = json.loads((Path(__file__).parent / "saved" / "1-bundled-demo.json").read_text())
    wanted = json.loads(WORKFLOWS[0].read_text())
    with open_editor(comfy) as editor:
        assert editor.open(saved, "saved") == []
        shown = editor.prompt()
    assert set(wanted) == set(shown)
    for id_, each in wanted.items():
        assert each["inputs"].items() <= shown[id_]["inputs"].items(), id_
    options = NODE_CLASS_MAPPINGS["TurpentineUnlearnOptions"].INPUT_TYPES()["optional"]
    defaults = {name: settings["default"] for name, (_, settings) in options.items()}
    assert shown["16"]["inputs"] == defaults | wanted["16"]["inputs"]


def settled(editor):
    """What the nodes show once their pictures are loaded, which takes the editor a moment after a run's end."""
    for _ in range(40):
        shown = editor.shown()
        if all(node["pictures"] for node in shown.values() if node["type"] == "PreviewImage"):
            break
        editor.page.wait_for_timeout(250)
    return shown


def test_the_first_workflow_runs_to_its_end(comfy):
    with open_editor(comfy) as editor:
        assert editor.open(json.loads((EXAMPLES / WORKFLOWS[0].name).read_text()), "1") == []
        editor.set(SHORT | {"TurpentineUnlearnConcept": {"steps": 3, "learning_rate": 1e-3}})
        editor.press_run()
        editor.wait_until("told.ended")
        told = editor.told()
        assert told["ended"] == "success"
        assert ["4", 3, 3] in told["progress"] and told["previews"] > 0
        shown = settled(editor)
        for node in shown.values():
            if node["type"] == "PreviewImage":
                assert node["pictures"] and min(node["pictures"][0]) > 100
            elif node["type"] == "PreviewAny":
                assert any(node["texts"])
        editor.press_run()
        editor.wait_until("told.ended")
        assert editor.told() == {"progress": [], "previews": 0, "ended": "success"}  # nothing ran again

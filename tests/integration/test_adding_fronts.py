"""A recipe's field is a line, a node is a class and its page: both are added to a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import turpentine

ROOT = Path(turpentine.__file__).parent

FIELD = "    warmup_steps: int = Field("
NEW_FIELD = """    patience: float | None = Field(default=None, gt=0, le=9, description="a toy that nobody reads")
"""

NODE = '''

class CountPrompts(Node):
    """Counts the pairs of a prompt set: a toy."""

    TITLE = "Count Prompts"
    DESCRIPTION = "Counts pairs."
    SEARCH_ALIASES = ("how many",)
    RETURN_TYPES = ("INT",)
    RETURN_NAMES = ("count",)
    OUTPUT_TOOLTIPS = ("Pairs that are trained on.",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"prompts": (TYPE, {"tooltip": "From Diverse Prompt Set."})}}

    def work(self, prompts):
        return (len(prompts.train),)
'''

USE = """
import json
from turpentine.comfy_nodes import NODE_CLASS_MAPPINGS as nodes, NODE_DISPLAY_NAME_MAPPINGS as names, locales
from turpentine.comfy_nodes.inputs import chosen, widgets
from turpentine.pipeline.api import recipe_for
from turpentine.pipeline.commands.main import build_parser
from turpentine.pipeline.commands.options import chosen as given
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.ui.access import settable
from turpentine.ui.controls import FIELDS

words = ["unlearn", "--concept", "cat", "--patience", "2.5"]
command = build_recipe(given(build_parser("unlearn").parse_args(words)))
node = build_recipe({"concept": "cat", **chosen({"patience": 3.0}, "training")})
(prompts,) = (nodes["TurpentineDiversePromptSet"]().work("cat", "object", "tiny-canvas", 0, n=3, n_test=1)[:1])
print(json.dumps({
    "command": command.training.patience,
    "node": node.training.patience,
    "python": recipe_for("cat", "tiny-canvas", {"patience": 4}).training.patience,
    "widget": widgets("training")["patience"][0],
    "app": settable(FIELDS["training", "patience"]),
    "yaml": "patience: 2.5" in command.to_yaml(),
    "title": names["TurpentineCountPrompts"],
    "counted": nodes["TurpentineCountPrompts"]().work(prompts)[0],
    "menu": json.loads(locales.texts())["TurpentineCountPrompts"]["description"],
}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with one more field and one more node."""
    package = tmp_path_factory.mktemp("fronts") / "turpentine"
    package.mkdir()
    for folder in ("pipeline", "comfy_nodes", "ui"):
        shutil.copytree(ROOT / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", package)
    (package / "assets").symlink_to(ROOT / "assets")
    recipe = package / "pipeline" / "schema" / "recipe.py"
    text = recipe.read_text(encoding="utf-8")
    assert text.count(FIELD) == 1
    recipe.write_text(text.replace(FIELD, NEW_FIELD + FIELD), encoding="utf-8")
    with open(package / "comfy_nodes" / "prompt_sets.py", "a", encoding="utf-8") as file:
        file.write(NODE)
    return package.parent


def test_command_line_nodes_app_and_python_offer_a_new_field_and_a_new_node(copy):
    done = subprocess.run(
        [sys.executable, "-c", USE],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(copy)}, cwd=copy,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "command": 2.5,
        "node": 3.0,
        "python": 4.0,
        "widget": "FLOAT",
        "app": True,
        "yaml": True,
        "title": "Count Prompts (Turpentine)",
        "counted": 3,
        "menu": "Counts pairs.",
    }

"""An audit, and a world, is a file and a line: both are added to a copy of the package, which is then used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import turpentine

ROOT = Path(turpentine.__file__).parent

AUDIT = '''"""How bright pictures are: a toy."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from ..prompts import PromptPair
from ..schema.recipe import AuditSection
from ..schema.results import Record
from ..support.progress import Progress
from ..support.text import number, relative
from .base import Audit, AuditImages, Judges, Subject
from .figures import Bars, Evidence, Loss, Row, Section, moved


class BrightnessResult(Record):
    """Mean pixel value in [0, 1] of the pictures of two sets."""

    forget: float
    shouted: float


class BrightnessAudit(Audit[BrightnessResult]):
    """Is the picture bright, also if the prompt is shouted?"""

    name: ClassVar[str] = "brightness"
    result: ClassVar[type[Record]] = BrightnessResult
    sets: ClassVar[tuple[str, ...]] = ("shouted",)

    @classmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        return True

    @classmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        return cls()

    @classmethod
    def further_prompts(
        cls, test: Sequence[PromptPair], options: AuditSection, subject: Subject
    ) -> Mapping[str, Sequence[str]]:
        return {"shouted": [pair.forget.upper() for pair in test]}

    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> BrightnessResult:
        forget, shouted = (float(images.named(name).images.mean()) / 255 for name in ("forget_test", "shouted"))
        return BrightnessResult(forget=forget, shouted=shouted)

    @classmethod
    def rows(cls, before: BrightnessResult | None, after: BrightnessResult | None) -> list[Row]:
        x, y = (side.forget if side else float("nan") for side in (before, after))
        return [Row("Brightness", x, y, number(x), number(y), "", moved(x, y, "lower"), "lower", "Of <i>pictures</i>.")]

    @classmethod
    def section(cls, before: BrightnessResult | None, after: BrightnessResult | None) -> Section | None:
        counts = tuple(int(255 * side.shouted) if side else 0 for side in (before, after))
        return Section("How bright it is", bars=Bars("Brightness", "grey levels", (("shouted", *counts),)))

    @classmethod
    def forgetting(cls, kind: str, before: BrightnessResult, after: BrightnessResult) -> Evidence | None:
        return Evidence("brightness was looked at", 1.0, 0.0)

    @classmethod
    def keeping(cls, before: BrightnessResult, after: BrightnessResult) -> list[Loss]:
        return [Loss(-relative(before.shouted, before.shouted), "the light as it was")]
'''

WORLD = '''"""A world of woods: a toy."""

from typing import ClassVar

from .base import Words, World


class Forest(World):
    """Two animals in one place."""

    name: ClassVar[str] = "forest"
    models: ClassVar[tuple[str, ...]] = ("forest-model",)
    words: ClassVar[Words] = {"subject": {"fox": ("fox", "vixen"), "owl": ("owl",)}}

    def find(self, concept: str) -> tuple[str, str] | None:
        named = [value for value, phrases in self.words["subject"].items() if concept in phrases]
        return ("subject", named[0]) if named else None
'''

USE_OF_THE_WORLD = """
import json
from turpentine.pipeline.audits import AccuracyAudit, NudityAudit, Subject
from turpentine.pipeline.prompts import PromptSet, composed_worlds
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.worlds import world_of

recipe = build_recipe({"concept": "vixen"})
world = world_of(recipe.kind, "forest-model")
made = PromptSet.build("fox", n=8, n_test=4, world=world.name)
subject = Subject(recipe.concepts, recipe.kind, world)
print(json.dumps({
    "world": world.name,
    "composed": composed_worlds(),
    "found": world.find_concept("vixen"),
    "prompts": PromptSet.model_validate_json(made.model_dump_json()).world,
    "accuracy": AccuracyAudit.wanted(recipe.audits, subject),
    "nudity": NudityAudit.wanted(recipe.audits, subject),
}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with one file and one line more for each."""
    package = tmp_path_factory.mktemp("added") / "turpentine"
    package.mkdir()
    shutil.copytree(ROOT / "pipeline", package / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", package)
    (package / "assets").symlink_to(ROOT / "assets")
    (package / "pipeline" / "audits" / "brightness.py").write_text(AUDIT)
    (package / "pipeline" / "worlds" / "forest.py").write_text(WORLD)
    for file, module, name, last in (
        ("audits/registry.py", "brightness", "BrightnessAudit", "ClassAudit)"),
        ("worlds/__init__.py", "forest", "Forest", "Classes())"),
    ):
        path = package / "pipeline" / file
        text = path.read_text()
        first = text.index("from .")
        added = f"{last[:-1]}, {name}{'()' if '()' in last else ''})"
        text = f"{text[:first]}from .{module} import {name}\n{text[first:]}"
        assert text.count(last) == 1
        path.write_text(text.replace(last, added))
    return package.parent


def python(copy, *words):
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_audit_is_a_file_and_a_line(copy):
    words = (
        "unlearn --concept cat --n 2 --n-test 2 --steps 1 --batch-size 2 --num-inference-steps 2 --audit-images 2 "
        "--audit-retain-train-images 2 --alignment false --accuracy false --formats denoiser --out run"
    )
    shown = python(copy, "-m", "turpentine.pipeline.commands.main", *words.split())
    assert "Brightness" in shown
    run = copy / "run"
    found = json.loads((run / "results.json").read_text())["audits"]
    assert found["before"].keys() >= {"brightness"} and 0 < found["before"]["brightness"]["shouted"] < 1
    assert json.loads((run / "images" / "prompts.json").read_text())["shouted"][0].isupper()
    assert (run / "images" / "after" / "shouted-001.png").is_file()
    page = (run / "report.html").read_text()
    assert "<h2>How bright it is</h2>" in page and "shouted" in page and "Of &lt;i&gt;pictures&lt;/i&gt;." in page
    assert "Forgotten: brightness was looked at; kept: the light as it was." in page
    assert "Brightness" in (run / "MODEL_CARD.md").read_text()
    python(copy, "-m", "turpentine.pipeline.commands.main", "report", "run")  # results with it are read again


def test_a_world_is_a_file_and_a_line(copy):
    assert json.loads(python(copy, "-c", USE_OF_THE_WORLD)) == {
        "world": "forest",
        "composed": ["open", "tiny-canvas", "forest"],
        "found": ["subject", "fox"],
        "prompts": "forest",
        "accuracy": False,
        "nudity": False,
    }

"""The run folder: where a run keeps what it made, so that it can be resumed, read and reproduced."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from ..prompts import PromptSet
from ..schema.defaults import load_recipe
from ..schema.recipe import Recipe
from ..schema.results import AuditResult, Results
from ..support.errors import UserError
from ..support.files import file_name, replacing, write_text

KEPT_IMAGES = 16
"""Images of each set that are kept as files for people to look at."""

PREVIEWS = 4
"""Images of each of `TEST_SETS` that are drawn while a model trains: the first of the audit's, with its seeds."""


def preview_name(done: int) -> str:
    """Folder under `images/` of the pictures drawn after `done` steps."""
    return f"step-{done:06d}"


@dataclass(frozen=True)
class RunFolder:
    """Paths and contents of one run.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, recipe: Recipe, out: Path | None = None) -> "RunFolder":
        """Make the folder of a new run and write its recipe.

        Raises:
            UserError: the folder already holds a run.
        """
        path = Path(out) if out else new_run_path(recipe)
        if (path / "recipe.yaml").exists():
            raise UserError(f"{path} already holds a run. Continue it with --resume {path}, or choose another --out.")
        if path.is_file():
            raise UserError(f"expected a folder for --out, got the file {path}.")
        recipe.save(path / "recipe.yaml")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open the folder of an earlier run.

        Raises:
            UserError: no run there.
        """
        if not (Path(path) / "recipe.yaml").is_file():
            raise UserError(f"expected a run folder with a recipe.yaml, found none in {path}.")
        return cls(Path(path))

    def recipe(self) -> Recipe:
        """The run's recipe."""
        return load_recipe(self.path / "recipe.yaml")

    @property
    def samples(self) -> Path:
        """The drawn training images, kept to resume from and removed when the run ends."""
        return self.path / "checkpoints" / "samples.safetensors"

    def prompts(self) -> PromptSet | None:
        """The run's prompts, if they were made."""
        path = self.path / "prompts.json"
        return PromptSet.load(path) if path.exists() else None

    def results(self) -> Results | None:
        """The run's results, if it ended."""
        path = self.path / "results.json"
        return Results.load(path) if path.exists() else None

    def save_audit(self, name: str, audit: AuditResult) -> None:
        """Keep an audit to resume from."""
        write_text(self.path / "checkpoints" / f"audit-{name}.json", audit.model_dump_json(indent=2))

    def audit(self, name: str) -> AuditResult | None:
        """An audit that was kept."""
        path = self.path / "checkpoints" / f"audit-{name}.json"
        return AuditResult.model_validate_json(path.read_text()) if path.exists() else None

    def save_images(self, when: str, sets: dict[str, np.ndarray], prompts: Mapping[str, Sequence[str]] | None) -> None:
        """Keep the first images of each set, for people to look at, and their prompts if they are new."""
        for name, images in sets.items():
            for index, image in enumerate(images[:KEPT_IMAGES]):
                with replacing(self.path / "images" / when / f"{name}-{index:03d}.png") as partial:
                    Image.fromarray(image).save(partial)
        if prompts is None:
            return
        kept = {name: list(texts[:KEPT_IMAGES]) for name, texts in prompts.items()}
        write_text(self.path / "images" / "prompts.json", json.dumps(kept, indent=2) + "\n")


def new_run_path(recipe: Recipe, runs: Path = Path("runs")) -> Path:
    """A folder under `runs` that is not there yet, named after the concept and the method."""
    stem = file_name(f"{recipe.concept}-{recipe.method.name}")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path, number = runs / f"{stem}-{stamp}", 2
    while path.exists():
        path, number = path.with_name(f"{stem}-{stamp}-{number}"), number + 1
    return path

"""A folder of pictures that a model drew from a list of prompts: each is written as it is drawn, so that work goes on.

`pictures.json` says what each picture was drawn from, and by what. Whoever comes back with the same list, settings and
model draws what is missing; with others the folder is refused.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..models import Denoiser, Sampling
from ..support.errors import UserError
from ..support.files import replacing, write_text
from ..support.progress import Progress
from .generate import Plan, check_plans, draw_plans
from .record import model_sha256

RECORD = "pictures.json"


class DrawnPicture(BaseModel):
    """One picture, and what it was drawn from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    prompt: str
    seed: int
    guidance_scale: float


class DrawnRecord(BaseModel):
    """The content of `pictures.json`.

    Attributes:
        format: version of this file.
        name: of the model, as it was called.
        model: component -> hash, see `model_sha256`.
        sampling: how it was drawn; each picture has its own guidance.
        pictures: in the order of the list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    model: dict[str, str]
    sampling: dict[str, Any]
    pictures: list[DrawnPicture] = Field(min_length=1)

    @classmethod
    def of(cls, denoiser: Denoiser, plans: Sequence[Plan], sampling: Sampling) -> Self:
        """The record of pictures that are to be drawn."""
        pictures = [DrawnPicture(file=_file(place), **asdict(plan)) for place, plan in enumerate(plans)]
        model = model_sha256(denoiser, [plan.prompt for plan in plans])
        settings = {key: value for key, value in asdict(sampling).items() if key != "guidance_scale"}
        return cls(name=denoiser.name, model=model, sampling=settings, pictures=pictures)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what `save` wrote; None if the folder has none.

        Raises:
            UserError: damaged, or of a newer version.
        """
        path = folder / RECORD
        try:
            return cls.model_validate_json(path.read_bytes()) if path.is_file() else None
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} can't be read: {str(error).splitlines()[0]}. Move it away.") from None

    def save(self, folder: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_text(folder / RECORD, json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")

    def check_same(self, now: Self, folder: Path) -> None:
        """Refuse to mix pictures that differ in what they were drawn from.

        Raises:
            UserError: other prompts, settings or another model.
        """
        compared = (
            ("prompts, seeds or guidance", self.pictures, now.pictures),
            ("settings", self.sampling, json.loads(json.dumps(now.sampling))),
            ("weights of the model", self.model, now.model),
        )
        other = next((what for what, before, after in compared if before != after), None)
        if other:
            raise UserError(f"{folder} holds pictures with other {other} ({RECORD}). Choose another folder.")


@dataclass(frozen=True)
class PictureFolder:
    """The folder.

    Attributes:
        path: where it is, or will be.
    """

    path: Path

    def check_free(self, count: int) -> None:
        """Refuse, before a model is loaded, a folder with pictures of that name of which nothing tells the origin.

        Raises:
            UserError: a file, or a picture in a folder without a record, or a record that is damaged.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"expected a folder for the pictures, got the file {self.path}.")
        if DrawnRecord.load(self.path) is None:
            taken = next((file for place in range(count) if _taken(file := self.path / _file(place))), None)
            if taken:
                raise UserError(
                    f"{taken} is there already and would be replaced. Choose another folder, or move it away."
                )

    def draw(self, denoiser: Denoiser, plans: Sequence[Plan], sampling: Sampling, progress: Progress) -> list[Path]:
        """Draw what is missing.

        Args:
            denoiser: the model.
            plans: see `plans_of`.
            sampling: how to draw, guidance aside.
            progress: told about each picture. Whoever cancels goes on with the same call.

        Returns:
            The files, in the order of `plans`.

        Raises:
            UserError: the folder holds pictures of another drawing, or the model can't draw such; nothing is drawn.
        """
        self.check_free(len(plans))
        check_plans(denoiser, plans, sampling)
        now, before = DrawnRecord.of(denoiser, plans, sampling), DrawnRecord.load(self.path)
        if before:
            before.check_same(now, self.path)
        else:
            now.save(self.path)
        files = [self.path / _file(place) for place in range(len(plans))]
        have = {place for place, file in enumerate(files) if file.is_file()}
        if len(have) < len(plans):
            draw_plans(denoiser, plans, sampling, progress, self._keep, have)
        return files

    def _keep(self, place: int, image: np.ndarray) -> None:
        with replacing(self.path / _file(place)) as partial:
            Image.fromarray(image).save(partial, "PNG")


def _file(place: int) -> str:
    return f"{place:05d}.png"


def _taken(file: Path) -> bool:
    return file.exists() or file.is_symlink()

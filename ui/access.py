"""The limits of a visitor: configured folders, checked names, a limited disk, and nothing else by default.

Every handler, public or not, gets its folders, models and recipes through `Access`, so that all checks are in one
place. docs/app.md lists the protections.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pipeline.data.pictures import check_pictures
from ..pipeline.models import BUNDLED as _BUNDLED
from ..pipeline.run.folder import RECIPE, RECORD, RunFolder, new_run_path
from ..pipeline.schema.defaults import build_recipe
from ..pipeline.schema.fields import Field, fields_of, value_at
from ..pipeline.schema.recipe import Recipe
from ..pipeline.support.errors import UserError
from ..pipeline.support.files import file_name, replacing, sha256
from ..pipeline.support.pictures import SUFFIXES

_NAME = re.compile(r"\w[\w.-]{0,199}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_TEXT = 500
"""Longest text of a recipe's field or a prompt, in characters."""
_NAMED = 60
"""Longest name of a concept."""

_PICTURES = re.compile(r"pictures-[0-9a-f]{12}")
_LARGEST_PICTURE = 5_000_000
"""Bytes of one uploaded picture."""
_MOST_PICTURES = 500
"""Pictures and captions that are uploaded at once."""

_DEPTH = 3  # how far below a configured folder models are looked for
_PLAIN = {"concept", "device", "audits.nudity_labels", "prompts.synonyms", "prompts.replace_with"}
_PLACES = {"model", "audits.alignment_model", "data.forget_images"}
"""Free-text fields that name no place, and those whose place is checked. Visitors can't change any others."""

BUNDLED = {name: path for name, path in _BUNDLED.items() if name != "digits"}
"""Bundled models that take prompts. The app does not support the class-conditional one."""


@dataclass(frozen=True)
class Access:
    """The folders and rights of an app.

    Attributes:
        runs: the folder of all run folders.
        models: folders whose models may be read.
        exports: folders that finished weights may be copied into, by their shown name.
        hub: whether visitors may name models by hub id, which downloads them.
        quota: bytes in `runs` above which no new run starts.
        llm_url: OpenAI-compatible server that suggests sub-concepts; None for none.
        llm_model: its model.
    """

    runs: Path
    models: tuple[Path, ...] = ()
    exports: Mapping[str, Path] = field(default_factory=dict)
    hub: bool = False
    quota: int = 50_000_000_000
    llm_url: str | None = None
    llm_model: str | None = None

    # runs ---------------------------------------------------------------------------------------

    def run(self, name: str) -> RunFolder:
        """Find a run by its name.

        Raises:
            UserError: the name is malformed, or there is no such run, or it is a link.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f"expected the name of a run, got {str(name)[:80]!r}. Choose one from the list.")
        run = RunFolder(self.runs / name)
        if run.path.is_symlink() or not run.is_there:
            raise UserError(f"expected a run named {name!r}, found none. It may have been deleted; reload the page.")
        return run

    def run_names(self) -> list[str]:
        """Every run that `run` gives, the newest first."""
        found = [path for path in self.runs.glob("*") if RunFolder(path).is_there]
        named = [path for path in found if _NAME.fullmatch(path.name) and not path.is_symlink()]
        return [path.name for path in sorted(named, key=_age, reverse=True)]

    def new_run(self, recipe: Recipe) -> Path:
        """Choose the folder of a new run.

        Raises:
            UserError: the runs fill their quota, or the disk is full.
        """
        used, free = self.used(), shutil.disk_usage(self.runs).free
        if used >= self.quota or free < 1_000_000_000:
            raise UserError(
                f"the runs take {used / 1e9:.1f} of {self.quota / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB "
                "left. Delete runs that you no longer need on the tab Runs."
            )
        path = new_run_path(recipe, self.runs)
        if not _NAME.fullmatch(path.name):
            raise UserError(f"expected a concept that starts with a letter, got {recipe.concept!r}.")
        return path

    def used(self) -> int:
        """Bytes that all runs take."""
        return sum(path.lstat().st_size for path in self.runs.rglob("*") if path.is_file() and not path.is_symlink())

    def delete(self, name: str) -> None:
        """Delete a run folder.

        Raises:
            UserError: there is none, or a process is at work in it.
        """
        self.run(name).delete()

    # models -------------------------------------------------------------------------------------

    def model_names(self) -> list[str]:
        """Every model that can be chosen: the bundled ones, those of configured folders, those of runs."""
        found = [str(path) for folder in self.models for path in sorted(_models_below(folder, _DEPTH))]
        runs = [f"{path.parents[1].name}" for path in sorted(self.runs.glob("*/weights/diffusers"))]
        return [*BUNDLED, *(f"run:{name}" for name in reversed(runs)), *found]

    def model(self, name: str) -> str:
        """The path or hub id that `load_denoiser` opens for a name that a visitor gave.

        Raises:
            UserError: it is no bundled model, in no configured folder, and no hub id that is allowed.
        """
        name = _short(name, "model").strip()
        if name in BUNDLED:
            return name
        if name.startswith("run:"):
            path = self.run(name.removeprefix("run:")).path / "weights" / "diffusers"
            if not path.is_dir():
                raise UserError(
                    f"expected diffusers weights in {name}, found none. "
                    "Choose that format in step 3 (Advanced, Output)."
                )
            return str(path)
        path = Path(name)
        if self.hub and _HUB_ID.fullmatch(name) and not path.exists():
            return name
        return str(self._inside(path, "model"))

    def _inside(self, path: Path, what: str) -> Path:
        """Resolve every link and '..' of `path`, and check that it lies in a configured model folder."""
        try:
            real = path.resolve(strict=True) if path.is_absolute() and "\0" not in str(path) else None
        except (OSError, RuntimeError):
            real = None
        if real is None or not any(
            real.is_relative_to(folder.resolve()) for folder in (*self.models, *BUNDLED.values())
        ):
            hub = "a hub id" if self.hub else "hub ids are not allowed here (--allow-hub)"
            raise UserError(
                f"expected a {what} from the list, got {str(path)!r}. Allowed: {', '.join(BUNDLED)}, a run, models in "
                f"the folders given with --models; {hub}."
            )
        return real

    # pictures -----------------------------------------------------------------------------------

    def keep_pictures(self, files: Sequence[object]) -> Path:
        """Keep uploaded pictures and their captions among the runs; the same ones give the same folder.

        Raises:
            UserError: none, too many, one that is too large or can't be read, or the runs fill their quota.
        """
        paths = [upload(file, (*SUFFIXES, ".txt"), _LARGEST_PICTURE) for file in files]
        if not 0 < len(paths) <= _MOST_PICTURES:
            raise UserError(f"expected 1 to {_MOST_PICTURES} pictures and captions, got {len(paths)}.")
        if self.used() >= self.quota:
            raise UserError("the runs fill their quota. Delete runs that you no longer need on the tab Runs.")
        folder = self.runs / f"pictures-{sha256(*sorted(paths, key=lambda path: path.name))[:12]}"
        for path in paths:
            with replacing(folder / file_name(path.name)) as partial:
                shutil.copyfile(path, partial)
        try:
            check_pictures(folder)
        except UserError as error:
            shutil.rmtree(folder)
            raise UserError(self.without_folders(str(error))) from None
        return folder

    def without_folders(self, text: str) -> str:
        """A message without the folders of dropped pictures, which no visitor knows."""
        return re.sub(rf"{re.escape(str(self.runs))}/(?:{_PICTURES.pattern}/)?", "", text)

    def pictures(self, name: object) -> Path:
        """Find kept pictures by the name of their folder, or its path.

        Raises:
            UserError: there are none.
        """
        path = self.runs / Path(str(name)).name
        if not _PICTURES.fullmatch(path.name) or not path.is_dir() or str(name) not in (path.name, str(path)):
            raise UserError(f"expected pictures that were dropped on the page, got {str(name)[:80]!r}. Drop them anew.")
        return path

    # recipes ------------------------------------------------------------------------------------

    def recipe(self, chosen: Mapping[str, Any]) -> Recipe:
        """Complete and check a recipe that a visitor described.

        Raises:
            UserError: a value is out of range, or a place is not allowed.
        """
        if not isinstance(chosen, Mapping):
            raise UserError(f"expected a recipe (names and values), got {type(chosen).__name__}.")
        chosen = dict(chosen)
        chosen["model"] = self.model(str(chosen.get("model") or "tiny-canvas"))
        given = value_at(chosen, ("data", "forget_images"))
        if given is not None:
            chosen["data"] = {**chosen["data"], "forget_images": str(self.pictures(given))}
        recipe = build_recipe(chosen)
        for option, value in _free_texts(recipe):
            if option.key in _PLAIN:
                _short(value, option.key, _NAMED if option.key == "concept" else _TEXT)
            elif option.key == "audits.alignment_model" and value != option.default:
                self._check_judge(str(value))
            elif option.key not in _PLACES and value != option.default:
                raise UserError(f"{option.key} can't be set from the app, got {str(value)[:80]!r}. Leave it out.")
        if recipe.prompts.source == "llm":
            if not self.llm_url:
                raise UserError("no language model is configured: start the app with --llm-url, or use the templates.")
            asked = recipe.prompts.model_copy(update={"llm_url": self.llm_url, "llm_model": self.llm_model})
            recipe = recipe.model_copy(update={"prompts": asked})
        return recipe

    def _check_judge(self, name: str) -> None:
        if name in BUNDLED:
            return
        path = Path(_short(name, "audits.alignment_model"))
        if not (self.hub and _HUB_ID.fullmatch(name) and not path.exists()):
            self._inside(path, "judge (audits.alignment_model)")

    def export_folder(self, name: str) -> Path:
        """Find a configured export folder by its name.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.exports:
            raise UserError(f"expected one of the folders {list(self.exports)}, got {str(name)[:80]!r}.")
        return self.exports[name]


def short_text(value: object, what: str) -> str:
    """Check a visitor's text and put it on one line.

    Raises:
        UserError: the text is empty or too long.
    """
    text = " ".join(_short(value, what).split())
    if not text:
        raise UserError(f"expected a {what}, got an empty text.")
    return text


def upload(path: object, suffixes: tuple[str, ...], largest: int) -> Path:
    """Check an uploaded file.

    Raises:
        UserError: there is none, or it is of another kind or too large.
    """
    if not isinstance(path, str) or not path:
        raise UserError(f"expected a file ({', '.join(suffixes)}), got none.")
    file = Path(path)
    if file.suffix.lower() not in suffixes:
        raise UserError(f"expected a file that ends in {', '.join(suffixes)}, got {file_name(file.name)[:80]!r}.")
    if file.stat().st_size > largest:
        raise UserError(f"expected a file of at most {largest / 1e6:g} MB, got {file.stat().st_size / 1e6:.1f} MB.")
    return file


def _age(run: Path) -> float:
    """When the run was made, in seconds since 1970; 0 if it was deleted meanwhile."""
    for name in (RECIPE, RECORD):
        with suppress(OSError):
            return (run / name).stat().st_mtime
    return 0.0


def _short(value: object, what: str, longest: int = _TEXT) -> str:
    if isinstance(value, tuple | list):
        value = ", ".join(map(str, value))
    text = "" if value is None else str(value)
    if len(text) > longest or "\0" in text:
        raise UserError(f"expected a {what} of at most {longest} characters, got {len(text)}.")
    return text


def _free_texts(recipe: Recipe) -> Iterator[tuple[Field, Any]]:
    """Each field that takes any text, with its value."""
    for option in fields_of():
        value = value_at(recipe, option.path)
        if option.is_free_text and value is not None:
            yield option, value


def settable(option: Field) -> bool:
    """Tell whether visitors may change a field of the recipe."""
    return option.key in _PLAIN | _PLACES or not option.is_free_text


def _models_below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir():
            if (entry / "model_index.json").is_file():
                yield entry
            elif depth > 1:
                yield from _models_below(entry, depth - 1)
        elif entry.suffix == ".safetensors":
            yield entry

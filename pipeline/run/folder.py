"""The run folder: where a run keeps what it made, so that it can be resumed, read and reproduced.

It has one owner, one identity and its own files. One process at a time works in it (`RunFolder.locked`). `run.json`
says what the run began with, and whoever goes on compares (`RunRecord`). A new run adopts nothing that lies there
and deletes nothing that it did not write (`NAMES`). What is damaged is told, and made again where that gives the same.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError

from ..data.samples import SampleSet
from ..models import BUNDLED, Denoiser
from ..models.lineage import denoiser_files
from ..prompts import PromptSet
from ..report import write_report
from ..schema.defaults import read_yaml, stored_recipe
from ..schema.events import EVENTS_FILE
from ..schema.recipe import Recipe
from ..schema.results import AuditResult, Results, WeightsFile
from ..support.errors import Tell, UserError, untold
from ..support.files import file_name, replacing, sha256, write_text
from ..support.places import existing, user_path
from ..training.checkpoints import CHECKPOINTS, PREPARED, checkpoint_files
from .record import RunRecord, check_recipe, prompts_sha256, start_anew

KEPT_IMAGES = 16
"""Images of each set that are kept as files for people to look at."""

PREVIEWS = 4
"""Images of each of `TEST_SETS` that are drawn while a model trains: the first of the audit's, with its seeds."""

RECORD, RECIPE, PROMPTS, RESULTS = "run.json", "recipe.yaml", "prompts.json", "results.json"
REPORT = ("report.html", "MODEL_CARD.md")

NAMES = (
    *(RECORD, RECIPE, PROMPTS, EVENTS_FILE, *PREPARED, RESULTS, *REPORT),
    *(CHECKPOINTS, "images", "weights"),
)
"""Everything that a run writes into its folder. A new run begins only where none of them is; other files are left."""

_SECONDS = TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]])

_LOCK, _IN_PROCESS = ".lock", " in process "


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

    # begin, go on, hold ---------------------------------------------------------------------------

    @classmethod
    def create(cls, recipe: Recipe, out: Path | None = None) -> "RunFolder":
        """Make the folder of a run that waits for its turn, for `resume` to begin.

        Raises:
            UserError: see `begin`.
        """
        with cls.begin(recipe, out) as run:
            RunRecord.of(recipe).save(run.path / RECORD)
            recipe.save(run.path / RECIPE)
        return run

    @classmethod
    @contextmanager
    def begin(cls, recipe: Recipe, out: Path | None = None) -> Iterator["RunFolder"]:
        """Hold the folder of a new run while the block works. If the block never calls `start`, nothing of it stays.

        Raises:
            UserError: the folder holds something that a run writes, is no folder, lies in what the run reads from, or
                can't be made.
        """
        run = cls(Path(out) if out else new_run_path(recipe))
        run._check_place(recipe)
        made = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _remove_empty(made)
            raise UserError(f"can't make the run folder {run.path}: {error.strerror}. Choose another --out.") from None
        try:
            with run.locked():
                run._check_place(recipe)  # another process may have been faster
                yield run
        finally:
            if not (run.path / RECORD).exists():
                run._drop_lock()
                _remove_empty(made)

    @classmethod
    @contextmanager
    def resume(cls, recipe: Recipe, path: Path) -> Iterator["RunFolder"]:
        """Hold the folder of a run that was begun, while the block goes on with it.

        Raises:
            UserError: no run there, one that another process works on, or one that began with another recipe.
        """
        run = cls.open(path)
        with run.locked():
            known = run._known()
            if known.began:
                check_recipe(known.recipe, recipe, run.path)
            if not (run.path / RECIPE).exists():
                recipe.save(run.path / RECIPE)
            yield run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open the folder of an earlier run.

        Raises:
            UserError: no run there.
        """
        run = cls(existing(Path(path), "a run folder"))
        if not run.is_there:
            raise UserError(f"expected a run folder with a {RECIPE}, found none in {path}.")
        return run

    @property
    def is_there(self) -> bool:
        """Whether the folder holds a run, begun or finished."""
        return any((self.path / name).is_file() for name in (RECIPE, RECORD))

    @property
    def is_run(self) -> bool:
        """Whether `run.json` is there, and ours."""
        with suppress(UserError):
            return self.record() is not None
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one to write into the folder while the block works; the lock of a killed process is free.

        Raises:
            UserError: no such folder, or another process, or another thread of this one, is at work there.
        """
        if not self.path.is_dir():
            raise UserError(f"expected a run folder, found none at {self.path}.")
        file = self.path / _LOCK
        lock = FileLock(file, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{self.path} is at work{_holder(file)}. Wait for it to end, or stop it.") from None
        except (OSError, NotImplementedError) as error:
            raise UserError(f"can't lock {self.path}: {error}. Choose another folder.") from None
        try:
            if not file.stat().st_size or _holder(file):  # else the lock keeps something of its own in the file
                with suppress(OSError):
                    file.write_text(f"{_IN_PROCESS}{os.getpid()} since {datetime.now():%Y-%m-%d %H:%M}")
            yield
        finally:
            lock.release()

    def _drop_lock(self) -> None:
        """Remove the lock's file if nobody holds it."""
        with suppress(UserError, OSError):
            with self.locked():
                pass
            (self.path / _LOCK).unlink(missing_ok=True)

    def _check_place(self, recipe: Recipe) -> None:
        if self.is_run:
            raise UserError(
                f"{self.path} already holds a run. Continue it with --resume {self.path}, or choose another --out."
            )
        if self.path.is_file() or (self.path.is_symlink() and not self.path.exists()):
            raise UserError(f"expected a folder for --out, got the file {self.path}.")
        found = [name for name in NAMES if (self.path / name).exists() or (self.path / name).is_symlink()]
        if found:
            raise UserError(
                f"{self.path} holds {', '.join(found)}, which this run did not write and would replace. Choose "
                "another --out, or move it away."
            )
        for used in (recipe.model, recipe.model_config_folder, recipe.data.dataset, recipe.data.forget_images):
            base = BUNDLED.get(used) or user_path(used) if used else None
            if base and base.is_dir() and self.path.resolve().is_relative_to(base.resolve()):
                raise UserError(f"{self.path} lies in {used!r}, which the run reads from. Choose another --out.")

    # what the run is ------------------------------------------------------------------------------

    def record(self) -> RunRecord | None:
        """What the run began with; None for a run of a version that kept no `run.json`.

        Raises:
            UserError: damaged.
        """
        path = self.path / RECORD
        return RunRecord.load(path) if path.exists() else None

    def recipe(self, tell: Tell = untold) -> Recipe:
        """The run's recipe, as `recipe.yaml` has it; if that is lost or no YAML, as the run began.

        Raises:
            UserError: it was edited where that decides the weights or the figures, or is no recipe.
        """
        kept, path = self._kept_recipe(), self.path / RECIPE
        try:
            recipe = stored_recipe(read_yaml(path))
        except UserError as error:
            if kept is None or _is_mapping(path):
                raise
            tell(f"{error} The run goes by {RECORD}.")
            return stored_recipe(kept)
        if kept is not None:
            check_recipe(kept, recipe, self.path)
        return recipe

    def begun_with(self) -> Recipe:
        """The recipe that was carried out, or that the run began with, whatever `recipe.yaml` says since.

        Raises:
            UserError: nothing in the folder says so.
        """
        kept = self._kept_recipe()
        return stored_recipe(read_yaml(self.path / RECIPE)) if kept is None else stored_recipe(kept)

    def start(self, recipe: Recipe, prompts: PromptSet, denoiser: Denoiser) -> None:
        """Write down what the run begins with; of a run that goes on, compare.

        Args:
            recipe: of the run.
            prompts: of the run.
            denoiser: with the weights that it came with.

        Raises:
            UserError: the run began with something else, or the disk is full.
        """
        now = RunRecord.of(recipe, prompts, denoiser)
        known = self.record()
        if known and known.began:
            known.check_outside(now, self.path)
        else:
            try:
                now.save(self.path / RECORD)
                recipe.save(self.path / RECIPE)
                prompts.save(self.path / PROMPTS)
            except BaseException:
                if known is None:  # nobody waits for this run
                    for name in (RECORD, RECIPE, PROMPTS):
                        (self.path / name).unlink(missing_ok=True)
                raise
        if self.prompts() is None:
            prompts.save(self.path / PROMPTS)

    def _known(self) -> RunRecord:
        """The record of a run that is to go on."""
        try:
            record = self.record()
        except UserError as error:
            raise UserError(f"{error} So nothing says what the run began with: {start_anew(self.path)}") from None
        if record is None:
            raise UserError(
                f"{self.path} has no {RECORD}, so nothing says what the run began with: {start_anew(self.path)}"
            )
        return record

    def _kept_recipe(self) -> dict[str, object] | None:
        """The recipe that was carried out, or that the run began with; None where nothing says so."""
        with suppress(UserError):
            if results := self.results():
                return results.recipe
        with suppress(UserError):
            if record := self.record():
                return record.recipe
        return None

    # what it made ---------------------------------------------------------------------------------

    def prompts(self, tell: Tell = untold) -> PromptSet | None:
        """The run's prompts; None if they were not made, or are damaged and must be made again.

        Raises:
            UserError: they were edited.
        """
        record, path = self.record(), self.path / PROMPTS
        if record and not record.began:
            return None
        try:
            prompts = PromptSet.load(path) if path.exists() else None
        except UserError as error:
            if record is None:
                raise
            tell(f"{error} The prompts were made again.")
            return None
        if prompts and record and prompts_sha256(prompts) != record.prompts:
            raise UserError(
                f"{path} was edited: it is not what the run began with. Put it back, or {start_anew(self.path)}"
            )
        return prompts

    def results(self) -> Results | None:
        """The run's results, if it ended."""
        path = self.path / RESULTS
        return Results.load(path) if path.exists() else None

    def finished(self) -> Results:
        """The results of a run that ended.

        Raises:
            UserError: it did not, they can't be read, or there is no run.
        """
        results = self.results()
        if results is None:
            begun = RunFolder.open(self.path).path
            raise UserError(f"expected a finished run in {begun}. Finish it with: turpentine unlearn --resume {begun}")
        return results

    def missing(self, tell: Tell = untold) -> list[str] | None:
        """What a finished run no longer has of what it wrote; None if it did not end, as far as is known.

        Raises:
            UserError: weights that are no longer as the run wrote them, and may be somebody's.
        """
        try:
            results = self.results()
        except UserError as error:
            tell(str(error))
            return None
        if results is None:
            return None
        states = self.states(results)
        changed = [name for name, state in states.items() if state == "changed"]
        if changed:
            raise UserError(
                f"{', '.join(str(self.path / name) for name in changed)}: not as the run wrote it. Move it away, and "
                "--resume writes it again."
            )
        gone = [name for name, state in states.items() if state == "missing"]
        return [*gone, *(name for name in REPORT if not (self.path / name).exists())]

    def states(self, results: Results) -> dict[str, str]:
        """Path of each weights file of the run -> "unchanged", "changed" or "missing"."""
        return {file.path: self._state(file) for file in results.weights}

    def _state(self, file: WeightsFile) -> str:
        path = self.path / file.path
        files = [path] if path.is_file() else denoiser_files(path)
        if not files:
            return "missing"
        return "unchanged" if sha256(*files) == file.sha256 else "changed"

    def samples(self, tell: Tell = untold) -> SampleSet | None:
        """The drawn training images; None if they were not drawn, or are damaged and must be drawn again."""
        path = self._samples
        if not path.exists():
            return None
        with suppress(UserError, OSError):
            if self._samples_hash.read_bytes() == sha256(path).encode():
                return SampleSet.load(path)
        tell(f"{path} was damaged: the training images were drawn again.")
        return None

    def save_samples(self, samples: SampleSet) -> None:
        """Keep the training images to resume from."""
        samples.save(self._samples)
        write_text(self._samples_hash, sha256(self._samples))

    @property
    def _samples(self) -> Path:
        return self.path / CHECKPOINTS / "samples.safetensors"

    @property
    def _samples_hash(self) -> Path:
        return self._samples.with_suffix(".sha256")

    def save_audit(self, name: str, audit: AuditResult) -> None:
        """Keep an audit to resume from."""
        write_text(self._audit(name), audit.model_dump_json(indent=2))

    def audit(self, name: str, tell: Tell = untold) -> AuditResult | None:
        """An audit that was kept; None if it was not made, or is damaged and must be made again."""
        path = self._audit(name)
        try:
            return AuditResult.model_validate_json(path.read_bytes()) if path.exists() else None
        except (OSError, ValidationError):
            tell(f"{path} was damaged: what it held was measured again.")
            return None

    def _audit(self, name: str) -> Path:
        return self.path / CHECKPOINTS / f"audit-{name}.json"

    def save_seconds(self, seconds: Mapping[str, float]) -> None:
        """Keep the seconds of each stage so far, for a run that goes on later to add its own."""
        write_text(self._seconds, json.dumps(dict(seconds)) + "\n")

    def seconds(self) -> dict[str, float]:
        """The seconds of each stage before the run was stopped; none where that is not known."""
        with suppress(OSError, ValidationError):
            return _SECONDS.validate_json(self._seconds.read_bytes())
        return {}

    @property
    def _seconds(self) -> Path:
        return self.path / CHECKPOINTS / "seconds.json"

    def save_images(
        self, when: str, sets: dict[str, np.ndarray], prompts: Mapping[str, Sequence[str]] | None = None, first: int = 0
    ) -> None:
        """Keep the first images of each set, for people to look at, and their prompts if they are new.

        Args:
            when: they were drawn; the name of their folder.
            sets: by their names.
            prompts: of the sets; None if they are kept already.
            first: place of the first image that is given.
        """
        for name, images in sets.items():
            for index, image in enumerate(images[: max(0, KEPT_IMAGES - first)], first):
                with replacing(self.path / "images" / when / f"{name}-{index:03d}.png") as partial:
                    Image.fromarray(image).save(partial)
        if prompts is None:
            return
        kept = {name: list(texts[:KEPT_IMAGES]) for name, texts in prompts.items()}
        write_text(self.path / "images" / PROMPTS, json.dumps(kept, indent=2) + "\n")

    def write_report(self, tell: Tell = untold) -> Path:
        """Write the page and the model card of a finished run; gives the page.

        Raises:
            UserError: no results, or they can't be read.
        """
        return write_report(self.path, tell)

    # the end --------------------------------------------------------------------------------------

    def forget_samples(self) -> None:
        """Remove the training images: the run needs them no more."""
        for file in (self._samples, self._samples_hash):
            file.unlink(missing_ok=True)

    def forget_checkpoints(self) -> None:
        """Remove everything that a run is resumed from."""
        ours = [*checkpoint_files(self.path), self._samples, self._samples_hash, self._seconds]
        for file in (*ours, *(self.path / CHECKPOINTS).glob("audit-*.json")):
            file.unlink(missing_ok=True)
        _remove_empty([self.path / CHECKPOINTS])

    def delete(self) -> None:
        """Delete the folder with everything in it.

        Raises:
            UserError: a process is at work in it.
        """
        with self.locked():
            pass
        shutil.rmtree(self.path)


def new_run_path(recipe: Recipe, runs: Path = Path("runs")) -> Path:
    """A folder under `runs` that is not there yet, named after the concept and the method."""
    stem = file_name(f"{recipe.concept}-{recipe.method.name}")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path, number = runs / f"{stem}-{stamp}", 2
    while path.exists():
        path, number = path.with_name(f"{stem}-{stamp}-{number}"), number + 1
    return path


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the deepest first, that hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _holder(lock: Path) -> str:
    """Who holds a lock, as its file says; empty where it doesn't."""
    with suppress(OSError, UnicodeDecodeError):
        text = lock.read_text()
        return text[:80] if text.startswith(_IN_PROCESS) else ""
    return ""


def _is_mapping(path: Path) -> bool:
    """Whether a file is YAML with keys and values, so that what is wrong in it was written by somebody."""
    with suppress(UserError):
        read_yaml(path)
        return True
    return False

"""Long work as subprocesses of the command line: one at a time on each device, the others wait.

A job is a run folder. Its `job.json` says what to do; `progress.json`, `events.jsonl` and `log.txt` say how far it
has come. Nothing is in memory alone, so a closed browser, a crashed run or a restarted app loses nothing.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import TypeAdapter, ValidationError

from ..pipeline.models import choose_device
from ..pipeline.prompts import PromptSet
from ..pipeline.run.folder import RunFolder
from ..pipeline.run.preflight import preflight
from ..pipeline.schema.events import EVENTS_FILE, Event, read_events
from ..pipeline.schema.recipe import Recipe
from ..pipeline.schema.resolve import resolve
from ..pipeline.support.errors import UserError
from ..pipeline.support.files import write_text
from .access import Access

State = Literal["queued", "running", "stopping", "paused", "cancelled", "failed", "done"]
ACTIVE: tuple[State, ...] = ("running", "stopping")
UNFINISHED: tuple[State, ...] = ("queued", *ACTIVE)
RESUMABLE: tuple[State, ...] = ("paused", "cancelled", "failed")
_CLI = f"{__package__.rpartition('.')[0]}.pipeline.commands.main"
_POLL = 0.3  # seconds
_PATIENCE = 60  # seconds after which a job that was asked to stop is asked again


@dataclass(frozen=True)
class Job:
    """The content of `job.json`.

    Attributes:
        task: unlearn, or audit a model as it is.
        state: where the job stands.
        device: where it computes; jobs on one device take turns.
        queued: when it joined the queue, in seconds since 1970.
        pid: id of its process. Ids are reused, so `born`, the start of the process, belongs to it.
        stop: the state to take once it has stopped.
        asked: when it was last asked to stop, in seconds since 1970.
        message: why it failed.
        warnings: what the visitor should know before it starts.
    """

    task: Literal["unlearn", "audit"]
    state: State
    device: str
    queued: float
    pid: int | None = None
    born: float | None = None
    stop: State | None = None
    asked: float | None = None
    message: str = ""
    warnings: tuple[str, ...] = ()


_JOB = TypeAdapter(Job)


class Runner:
    """Starts, follows and stops jobs. Use one for each folder of runs.

    Args:
        access: finds the runs.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="turpentine-queue", daemon=True)

    def start(self) -> None:
        """Begin to work through the queue."""
        self._thread.start()

    def close(self) -> None:
        """Start no more jobs. Those at work continue."""
        self._stopping.set()
        self._thread.join(timeout=5)

    # what visitors ask for ------------------------------------------------------------------------

    def submit(
        self, recipe: Recipe, task: Literal["unlearn", "audit"] = "unlearn", pairs: PromptSet | None = None
    ) -> str:
        """Queue a new run and return its name.

        Args:
            recipe: checked by `Access.recipe`.
            task: what to do.
            pairs: the prompts, unless the recipe makes them.

        Raises:
            UserError: what `preflight` finds without the model. It is found now rather than at its turn.
        """
        recipe = resolve(recipe).recipe
        checked = preflight(resolve(_without_asking(recipe)), pairs, trains=task == "unlearn")
        device = str(choose_device(recipe.device))
        with self._lock:
            path = self.access.new_run(recipe)
            if task == "audit":
                path = path.with_name(f"audit-{path.name}")
            file = (path / "pairs.json").resolve()
            if pairs is not None:
                kept = {"file": str(file), "n": len(pairs.train), "n_test": len(pairs.test)}
                recipe = recipe.model_copy(update={"prompts": recipe.prompts.model_copy(update=kept)})
            run = RunFolder.create(recipe, path)
            try:
                if pairs is not None:
                    pairs.save(file)
                self._write(path.name, Job(task, "queued", device, time.time(), warnings=checked.warnings))
            except BaseException:
                run.delete()
                raise
        return path.name

    def pause(self, name: str) -> None:
        """Stop a run after its current step, to resume it later."""
        self._stop(name, "paused")

    def cancel(self, name: str) -> None:
        """Stop a run. Its files are kept until it is deleted."""
        self._stop(name, "cancelled")

    def resume(self, name: str) -> None:
        """Put a stopped run back into the queue.

        Raises:
            UserError: it was not stopped.
        """
        with self._lock:
            job = self.job(name)
            if job.state not in RESUMABLE:
                raise UserError(f"expected a run that was stopped, got {name!r}, which is {job.state}.")
            device = job.device or str(choose_device(self.access.run(name).begun_with().device))
            self._write(name, Job(job.task, "queued", device, time.time()))

    def delete(self, name: str) -> None:
        """Delete a run that is not at work.

        Raises:
            UserError: it is running.
        """
        with self._lock:
            if self.job(name).state in ACTIVE:
                raise UserError(f"{name!r} is running. Cancel it first.")
            self.access.delete(name)
            self._children.pop(name, None)

    # what visitors see ----------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every run, the newest first."""
        return self.access.run_names()

    def job(self, name: str) -> Job:
        """Read the job of a run. Without a valid `job.json`, other files of the run give its state."""
        folder = self.access.run(name).path
        try:
            return _JOB.validate_json((folder / "job.json").read_bytes())
        except (OSError, ValidationError):
            done = (folder / "results.json").exists()
            return Job("unlearn", "done" if done else "paused", "", 0.0)

    def queue(self) -> list[str]:
        """Names of the runs at work and of those that wait, in order."""
        jobs = [(name, self.job(name)) for name in self.names()]
        waiting = sorted((job.state == "queued", job.queued, name) for name, job in jobs if job.state in UNFINISHED)
        return [name for _, _, name in waiting]

    def progress(self, name: str) -> dict[str, Any]:
        """Stage, done, total and seconds_left of a run, empty before its first stage."""
        with suppress(OSError, ValueError):
            return json.loads((self.access.run(name).path / "progress.json").read_text(encoding="utf-8"))
        return {}

    def events(self, name: str) -> list[Event]:
        """The steps so far, without a line that is being written."""
        return read_events(self.access.run(name).path / EVENTS_FILE, running=True)

    # the queue ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping.wait(_POLL):
            with self._lock, suppress(UserError, OSError):  # a run that was deleted meanwhile, a full disk: next time
                self._turn()

    def _turn(self) -> None:
        """Record the jobs that have ended, and start those that have waited longest on the free devices."""
        busy = set()
        for name in self.queue():
            job = self.job(name)
            if job.state == "queued":
                if job.device not in busy and not self._stopping.is_set():
                    busy.add(job.device)
                    self._launch(name, job)
            elif self._alive(name, job):
                busy.add(job.device)
                if job.state == "stopping" and time.time() - (job.asked or 0) > _PATIENCE:
                    self._write(name, replace(job, asked=time.time()))
                    self._interrupt(job)
            else:
                self._end(name, job)

    def _launch(self, name: str, job: Job) -> None:
        folder = self.access.run(name).path
        follow = ["--progress-file", str(folder / "progress.json")]
        if job.task == "unlearn":
            words = ["unlearn", "--resume", str(folder)]
        else:
            words = ["audit", "--recipe", str(folder / "recipe.yaml"), "--out", str(folder / "audit.json")]
        (folder / "progress.json").unlink(missing_ok=True)
        with open(folder / "log.txt", "ab") as log:
            child = subprocess.Popen(  # noqa: S603 - every word is ours
                [sys.executable, "-m", _CLI, *words, *follow],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
                start_new_session=True,
            )
        self._children[name] = child
        self._write(name, replace(job, state="running", pid=child.pid, born=_born(child.pid), message=""))

    def _alive(self, name: str, job: Job) -> bool:
        child = self._children.get(name)
        if child is not None:
            return child.poll() is None
        return job.pid is not None and _born(job.pid) == job.born  # of an earlier start of the app

    def _end(self, name: str, job: Job) -> None:
        self._children.pop(name, None)
        folder = self.access.run(name).path
        finished = folder / ("results.json" if job.task == "unlearn" else "audit.json")
        state: State
        if finished.exists():
            state, message = "done", ""
        elif job.stop:
            state, message = job.stop, ""
        else:
            state, message = "failed", _last_words(folder / "log.txt")
        self._write(name, replace(job, state=state, pid=None, born=None, stop=None, message=message))

    def _stop(self, name: str, then: State) -> None:
        with self._lock:
            job = self.job(name)
            if job.state == "queued":
                self._write(name, replace(job, state=then))
            elif job.state in ACTIVE:
                self._write(name, replace(job, state="stopping", stop=then, asked=job.asked or time.time()))
                if job.state == "running":
                    self._interrupt(job)
            elif job.state in RESUMABLE:
                self._write(name, replace(job, state=then))
            else:
                raise UserError(f"expected a run that is at work or waits, got {name!r}, which is {job.state}.")

    def _interrupt(self, job: Job) -> None:
        """Send Ctrl-C: the command stops after this step and keeps a checkpoint."""
        if job.pid is not None and _born(job.pid) == job.born:
            with suppress(OSError):
                os.kill(job.pid, signal.SIGINT)

    def _write(self, name: str, job: Job) -> None:
        write_text(self.access.runs / name / "job.json", _JOB.dump_json(job, indent=1).decode() + "\n")


def _without_asking(recipe: Recipe) -> Recipe:
    """The recipe with templates for the language model, which is not asked before the run's turn."""
    if recipe.prompts.source != "llm":
        return recipe
    templates = {"source": "template", "llm_url": None, "llm_model": None, "llm_fallback": True}
    return recipe.model_copy(update={"prompts": recipe.prompts.model_copy(update=templates)})


def _born(pid: int) -> float | None:
    """The start time of a process; None if there is no such process, or it has ended."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.create_time()
    return None


def _last_words(log: Path) -> str:
    """The last line of a log that starts with "error:", otherwise its last line."""
    with suppress(OSError):
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        told = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
        return (told or lines or [""])[-1][:500]
    return ""

"""A run that is stopped anywhere, by hand, by the system or by a full disk, ends as if nothing had been.

Each such run has a process of its own, which is stopped from inside at a chosen place: where it opens or names a
file, or calls the network for the n-th time. Nothing here knows how a run is made.
"""

import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from turpentine.pipeline.models import load_denoiser

from ..support.command import SHORT, Ended, command, empty_figures, refused
from ..support.tiny_models import build_family
from ..support.training import same

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that share what is loaded")

FORMATS = ("--formats", "diffusers,denoiser")


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with empty_figures():
        yield


class Reference(NamedTuple):
    """What the uninterrupted run gave."""

    model: Path
    run: Path
    calls: int
    """How often the network was called."""


def new_run(model: Path, out: Path) -> tuple[object, ...]:
    return ("unlearn", "--concept", "cat", "--model", model, *SHORT, *FORMATS, "--out", out)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Reference:
    folder, calls = tmp_path_factory.mktemp("reference"), []
    build_family("sd1").save_pretrained(folder / "sd1")
    counting = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: calls.append(1) if isinstance(module, UNet2DConditionModel) else None
    )
    try:
        assert command(*new_run(folder / "sd1", folder / "run")).code == 0
    finally:
        counting.remove()
    return Reference(folder / "sd1", folder / "run", len(calls))


# a process that is stopped --------------------------------------------------------------------------


def at_file(name: str, action: Callable[[], None], times: int = 1) -> None:
    """Act when a file of that name, whole or in part, is about to be opened to be written, or to get its name."""
    seen = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal seen
        if event == "open":
            path, mode, flags = args
            touched = bool(mode and set(mode) & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR))
        elif event == "os.rename":
            path, touched = args[1], True
        else:
            return
        if touched and isinstance(path, str | bytes | os.PathLike) and name in os.fsdecode(path):
            seen += 1
            if seen == times:
                action()

    sys.addaudithook(hook)


def at_call(number: int, action: Callable[[], None]) -> None:
    """Act when the network is called for the n-th time."""
    seen = 0

    def hook(module: torch.nn.Module, _: object) -> None:
        nonlocal seen
        if isinstance(module, UNet2DConditionModel):
            seen += 1
            if seen == number:
                action()

    torch.nn.modules.module.register_module_forward_pre_hook(hook)


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def ctrl_c_twice() -> None:
    ctrl_c()
    ctrl_c()


def sigterm() -> None:
    signal.raise_signal(signal.SIGTERM)


def sigterm_twice() -> None:
    sigterm()
    sigterm()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def disk_is_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_a_process(words: tuple[object, ...], prepare: Callable[[], None]) -> tuple[int, str]:
    """Run a command in a copy of this process; gives its exit code (minus the signal that ended it) and errors."""
    reading, writing = os.pipe()  # not a file: that might be refused, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a copy made while other threads run: they take no part
        child = os.fork()
    if child:
        os.close(writing)
        with open(reading, encoding="utf-8") as said:
            err = said.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), err
    code, err = 99, ""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare()
        code, _, err = command(*words)
    except BaseException as error:
        err = f"Traceback: {error!r}"
    finally:
        os.write(writing, err.encode())
        os._exit(code)


def go_on(reference: Reference, out: Path) -> Ended:
    """What a person does then: resume, or start again where there is nothing to resume."""
    if (out / "recipe.yaml").exists():
        return command("unlearn", "--resume", out)
    return command(*new_run(reference.model, out))


def steps(run: Path) -> list[dict[str, object]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def assert_as_if_nothing_had_been(reference: Reference, run: Path) -> None:
    """The same weights bit for bit, each step once, every file of a whole run and nothing else."""
    files = {path.relative_to(reference.run) for path in reference.run.rglob("*") if path.is_file()}
    assert {path.relative_to(run) for path in run.rglob("*") if path.is_file()} == files
    for file in files:
        if file.suffix == ".safetensors":
            assert same(load_file(reference.run / file), load_file(run / file)), file
    assert steps(run) == steps(reference.run)
    audits = [json.loads((each / "results.json").read_text())["audits"] for each in (run, reference.run)]
    assert audits[0] == audits[1]


@pytest.mark.parametrize("place", ["samples.safetensors", "step-000002", "report.html"])
def test_ctrl_c_stops_at_the_next_safe_place(place, reference, tmp_path):
    code, err = in_a_process(new_run(reference.model, tmp_path / "run"), lambda: at_file(place, ctrl_c))
    assert code in (0, 130) and "Traceback" not in err, err
    if code == 130:
        assert str(tmp_path / "run") in err.replace("\n", ""), "it says how to go on"
        assert go_on(reference, tmp_path / "run").code == 0
    assert_as_if_nothing_had_been(reference, tmp_path / "run")


@pytest.mark.parametrize("place", ["recipe.yaml", "audit-before.json", "sd1-without-cat", "report.html"])
def test_ctrl_c_twice_stops_at_once(place, reference, tmp_path):
    code, err = in_a_process(new_run(reference.model, tmp_path / "run"), lambda: at_file(place, ctrl_c_twice))
    assert code == 130 and "Traceback" not in err, err
    ended = go_on(reference, tmp_path / "run")
    assert ended.code == 0, ended.err
    assert_as_if_nothing_had_been(reference, tmp_path / "run")


@pytest.mark.parametrize("part", [0.1, 0.6])
def test_ctrl_c_while_the_network_works(part, reference, tmp_path):
    number = max(1, round(part * reference.calls))
    code, err = in_a_process(new_run(reference.model, tmp_path / "run"), lambda: at_call(number, ctrl_c))
    assert code == 130 and "Traceback" not in err, err
    assert go_on(reference, tmp_path / "run").code == 0
    assert_as_if_nothing_had_been(reference, tmp_path / "run")


@pytest.mark.parametrize("term", [sigterm, sigterm_twice])
def test_a_scheduler_that_ends_the_job_leaves_a_checkpoint_of_this_step(term, reference, tmp_path):
    at_second_step = partial(at_file, "events.jsonl", term, 2)
    code, err = in_a_process(new_run(reference.model, tmp_path / "run"), at_second_step)
    assert code == 130 and "Traceback" not in err, err
    done = len(steps(tmp_path / "run"))
    (kept,) = (tmp_path / "run" / "checkpoints").glob("step-*.safetensors")
    assert kept.stem == f"step-{done:06d}" and f"--resume {tmp_path / 'run'}" in err.replace("\n", "")
    assert go_on(reference, tmp_path / "run").code == 0
    assert_as_if_nothing_had_been(reference, tmp_path / "run")


@pytest.mark.parametrize("place", ["events.jsonl", "weights/diffusers", "report.html"])
def test_a_killed_run_goes_on(place, reference, tmp_path):
    times = 3 if place == "events.jsonl" else 1  # in the middle
    code, _ = in_a_process(new_run(reference.model, tmp_path / "run"), lambda: at_file(place, kill, times))
    assert code == -signal.SIGKILL
    ended = go_on(reference, tmp_path / "run")
    assert ended.code == 0, ended.err
    assert_as_if_nothing_had_been(reference, tmp_path / "run")


def test_a_finished_run_may_be_resumed_again_and_again(reference, tmp_path):
    run = shutil.copytree(reference.run, tmp_path / "run")
    for _ in range(2):
        ended = command("unlearn", "--resume", run)
        assert ended.code == 0, ended.err
        assert_as_if_nothing_had_been(reference, run)


# no room --------------------------------------------------------------------------------------------


def assert_told_in_one_line(code: int, err: str, reason: str) -> None:
    assert code == 2 and "Traceback" not in err, err
    told = [line for line in err.splitlines() if "error:" in line]
    assert len(told) == 1 and reason in told[0], err


@pytest.mark.parametrize("place", ["samples.safetensors", "events.jsonl", "step-000004", "report.html"])
def test_a_full_disk_is_told_and_the_run_goes_on_after_more_room(place, reference, tmp_path):
    code, err = in_a_process(new_run(reference.model, tmp_path / "run"), lambda: at_file(place, disk_is_full))
    assert_told_in_one_line(code, err, "No space left on device")
    assert not list((tmp_path / "run").rglob("*partial*"))
    assert go_on(reference, tmp_path / "run").code == 0
    assert_as_if_nothing_had_been(reference, tmp_path / "run")


@pytest.mark.parametrize("largest", [100, 20_000])
def test_files_that_the_system_refuses(largest, reference, tmp_path):
    """A quota: no file may be larger than so many bytes."""
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    code, err = in_a_process(
        new_run(reference.model, tmp_path / "run"),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard)),
    )
    assert code == 2 and "Traceback" not in err, err
    assert not list((tmp_path / "run").rglob("*partial*"))
    ended = go_on(reference, tmp_path / "run")
    assert ended.code == 0, ended.err
    assert_as_if_nothing_had_been(reference, tmp_path / "run")


# no right to write ------------------------------------------------------------------------------------


@pytest.fixture
def readonly(reference) -> Iterator[Path]:
    """A folder with a model in it, in which nobody but the administrator may write."""
    place = Path(tempfile.mkdtemp())
    shutil.copytree(reference.model, place / "sd1")
    for path in place.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    place.chmod(0o555)
    yield place
    for path in (place, *place.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(place)


def as_an_ordinary_user() -> None:
    if os.getuid() == 0:  # the administrator may write everywhere
        os.setgid(65534)
        os.setuid(65534)


@pytest.mark.parametrize("out", ["deep/run", None])
def test_a_folder_that_may_not_be_written(out, readonly):
    """Given as `--out`, or the working directory, under which new runs go."""

    def prepare() -> None:
        os.chdir(readonly)
        as_an_ordinary_user()

    words = [*new_run(readonly / "sd1", readonly / (out or ""))]
    if out is None:
        words = words[:-2]
    before = sorted(readonly.iterdir())
    code, err = in_a_process(tuple(words), prepare)
    assert code == 2 and "Traceback" not in err, err
    assert "Permission denied" in err
    assert sorted(readonly.iterdir()) == before


@pytest.mark.parametrize("place", ["file/run", "file"])
def test_a_folder_under_a_file(place, reference, tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refused(*new_run(reference.model, tmp_path / place))
    assert str(tmp_path / "file") in message
    assert (tmp_path / "file").read_text() == "mine"


def test_the_model_is_never_written_to(reference):
    """All the runs of this file trained it; it is as it was."""
    loaded, expected = load_denoiser(str(reference.model), "cpu"), build_family("sd1")
    assert same(expected.unet.state_dict(), loaded.module.state_dict())

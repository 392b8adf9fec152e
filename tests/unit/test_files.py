"""Files are there whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from turpentine.pipeline.support.errors import Cancelled, UserError
from turpentine.pipeline.support.files import NAME_BYTES, file_name, replacing, sha256, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_success_replaces_and_leaves_no_partial(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_text(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert names(tmp_path) == ["a.txt"]


def test_folders_are_made(tmp_path):
    write_text(tmp_path / "deep" / "down" / "a.txt", "x")
    assert (tmp_path / "deep" / "down" / "a.txt").read_text() == "x"


def test_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as partial:
        assert partial.parent == path.parent and partial.suffix == path.suffix and partial.name.startswith(".")
        partial.write_text("half")
        assert path.read_text() == "old"
    assert path.read_text() == "half"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, Cancelled])
def test_failure_leaves_the_old_file_and_no_partial(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure, match="stop"), replacing(path) as partial:
        partial.write_text("half")
        raise failure("stop")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_failure_before_anything_was_written(tmp_path):
    with pytest.raises(ValueError, match="stop"), replacing(tmp_path / "a.txt"):
        raise ValueError("stop")
    assert names(tmp_path) == []


@pytest.fixture(params=[0o022, 0o027], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_umask_decides_who_may_read(tmp_path, umask):
    """safetensors writes files for their owner alone, whatever the umask."""
    expected = 0o666 & ~umask
    path = tmp_path / "a.safetensors"
    for _ in range(2):  # new, and in the place of another
        with replacing(path) as partial:
            save_file({"x": torch.zeros(2)}, partial)
        assert path.stat().st_mode & 0o777 == expected
    with replacing(tmp_path / "folder") as partial:
        (partial / "part").mkdir(parents=True)
        save_file({"x": torch.zeros(2)}, partial / "part" / "a.safetensors")
    assert (tmp_path / "folder" / "part" / "a.safetensors").stat().st_mode & 0o777 == expected
    assert (tmp_path / "folder" / "part").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    def write(text, failure=None):
        with replacing(tmp_path / "folder", stale=lambda file: file.name == "old") as partial:
            partial.mkdir()
            (partial / text).write_text(text)
            if failure:
                raise failure

    write("old")
    with pytest.raises(ValueError, match="stop"):
        write("half", ValueError("stop"))
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["old"]
    write("new")
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["new"]


def test_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_some(self, text, encoding=None):
        self.write_bytes(text[:2].encode())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", write_some)
    with pytest.raises(UserError, match=r"can't write .*a\.txt: No space left on device\. Free some space or choose"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_full_disk_under_safetensors(tmp_path):
    """safetensors has an error of its own for what the system refuses."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with (
            pytest.raises(UserError, match=r"can't write .*a\.safetensors: .*(too large|space)"),
            replacing(path) as partial,
        ):
            save_file({"x": torch.zeros(100_000)}, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.safetensors"]


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"can't write .*a\.txt: (File exists|Not a directory)"):
        write_text(tmp_path / "file" / "a.txt", "new")
    with pytest.raises(UserError, match=r"can't write .*a\.txt: (File exists|Not a directory)"):
        write_text(tmp_path / "file" / "deeper" / "a.txt", "new")


def test_name_that_is_a_folder(tmp_path):
    (tmp_path / "a.txt" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match=r"can't write .*a\.txt"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert sha256(tmp_path / "a").startswith("ba7816bf")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pop art", "pop-art"),
        ("../../etc", "..-..-etc"),
        ("a\\b", "a-b"),
        ("what?: *", "what-"),
        ("Größe.v1_2", "Größe.v1_2"),
        ("con", "con_"),
        ("AUX.txt", "AUX_.txt"),
        ("lpt1", "lpt1_"),
        ("concert", "concert"),
        ("etc...", "etc"),
        ("...", "_"),
        ("", "_"),
    ],
)
def test_file_name(text, name):
    assert file_name(text) == name


@pytest.mark.parametrize("text", ["a" * 101, "猫" * 100, "e\u0301" * 60, "x " * 99])
def test_long_names_are_cut(text):
    name = file_name(text)
    assert len(name.encode()) <= NAME_BYTES and name == file_name(text) != file_name(f"{text}b")
    assert file_name("b" * NAME_BYTES) == "b" * NAME_BYTES


def test_what_others_put_into_a_folder_stays(tmp_path):
    folder = tmp_path / "folder"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "ours").write_text("old")
    (folder / "part" / "stale").write_text("old")
    (folder / "README.md").write_text("mine")
    (folder / "part" / "notes").write_text("mine")

    def write(failure=None):
        with replacing(folder, stale=lambda file: file.name == "stale") as partial:
            (partial / "part").mkdir(parents=True)
            (partial / "part" / "ours").write_text("new")
            if failure:
                raise failure

    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt())
    assert (folder / "part" / "ours").read_text() == "old" and names(folder / "part") == ["notes", "ours", "stale"]
    write()
    assert (folder / "part" / "ours").read_text() == "new" and names(folder / "part") == ["notes", "ours"]
    assert (folder / "README.md").read_text() == (folder / "part" / "notes").read_text() == "mine"
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_a_crash_left_under_its_old_name_comes_back(tmp_path):
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old" / "README.md").write_text("mine")
    with replacing(tmp_path / "folder") as partial:
        partial.mkdir()
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["README.md"]

"""Files that are there whole or not at all: written under a temporary name, then renamed."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import UserError

NAME_BYTES = 100
"""Longest name that `file_name` gives: with our endings and a temporary name's it fits every file system."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # devices of Windows


@contextmanager
def replacing(path: Path, lasting: bool = False, stale: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    The block writes a file there, or makes a folder. Whatever the writer did, the result has the permissions
    that the user's umask gives to new files (safetensors alone would write files that only their owner reads).
    Nothing that others put into the folder before is lost: what the new folder lacks is copied into it.

    Args:
        path: the file or folder.
        lasting: wait until the disk has the file, so that after a crash of the machine it is there whole.
        stale: says of a file of the old folder that it is part of what is replaced and goes with it.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    path = Path(path)
    partial, old = (path.with_name(f".{path.stem}.{state}{path.suffix}") for state in ("partial", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not path.exists():  # a crash between the two renames below
            os.replace(old, path)
        _remove(partial)
        mode = _mode_of_new_files(partial)
        yield partial
        _give_permissions(partial, mode)
        if partial.is_dir():
            _keep_others(path, partial, stale)
            _swap(partial, path, old)
        else:
            if lasting:
                _flush(partial)
            os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        _remove(partial)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write {path}: {reason}. Free some space or choose another --out.") from error
    except BaseException:
        _remove(partial)
        raise


def _keep_others(folder: Path, new: Path, stale: Callable[[Path], bool] | None) -> None:
    """Copy into a new folder what the one that it replaces holds beside what is written anew."""
    for file in folder.rglob("*"):
        place = new / file.relative_to(folder)
        if file.is_file() and not place.exists() and not (stale and stale(file)):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)


def _swap(new: Path, path: Path, old: Path) -> None:
    if not path.is_dir():
        os.replace(new, path)
        return
    _remove(old)
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
    _remove(old)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _mode_of_new_files(path: Path) -> int:
    """The permissions of a file that is made at `path`, where nothing is, afterwards neither.

    Reading the umask itself would mean to set it, for every thread of the process.
    """
    path.touch()
    try:
        return path.stat().st_mode & 0o777
    finally:
        path.unlink()


def _give_permissions(path: Path, mode: int) -> None:
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            file.chmod(mode)


def _remove(partial: Path) -> None:
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial, ignore_errors=True)
        return
    with suppress(OSError):  # what went wrong before matters more
        partial.unlink()


def file_name(text: str) -> str:
    """`text` as a file name that every system takes: no separators, no device of Windows, at most 100 bytes.

    A name that is cut ends in a hash of the whole, so that two that begin alike stay two.

    >>> file_name("a/b: pop art")
    'a-b-pop-art'
    >>> file_name("aux.1")
    'aux_.1'
    """
    name = re.sub(r"[^\w.-]+", "-", text)
    name = _RESERVED.sub(r"\1_\2", name, count=1) if _RESERVED.match(name) else name
    if len(name.encode()) > NAME_BYTES:
        ending = f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        name = name.encode()[: NAME_BYTES - len(ending)].decode(errors="ignore") + ending
    return name.rstrip(".") or "_"


def write_text(path: Path, text: str, lasting: bool = False) -> None:
    """Write a text file whole or not at all; see `replacing`."""
    with replacing(path, lasting) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(*paths: Path) -> str:
    """Hash of the contents of a file, or of several one after another, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()

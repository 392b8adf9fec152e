"""Files that are there whole or not at all: written under a temporary name, then renamed."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    The block writes a file there, or makes a folder. Whatever the writer did, the result has the permissions
    that the user's umask gives to new files (safetensors alone would write files that only their owner reads).

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        mode = _mode_of_new_files(partial)
        yield partial
        _give_permissions(partial, mode)
        if partial.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        _remove(partial)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write {path}: {reason}. Free some space or choose another --out.") from error
    except BaseException:
        _remove(partial)
        raise


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
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        return
    with suppress(OSError):  # what went wrong before matters more
        partial.unlink()


def file_name(text: str) -> str:
    """`text` as a file name that every system takes, without separators.

    >>> file_name("a/b: pop art")
    'a-b-pop-art'
    """
    return re.sub(r"[^\w.-]+", "-", text)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(*paths: Path) -> str:
    """Hash of the contents of a file, or of several one after another, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()

"""Files that are there whole or not at all: written under a temporary name, then renamed."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        _remove(partial)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write {path}: {reason}. Free some space or choose another --out.") from error
    except BaseException:
        _remove(partial)
        raise


def _remove(partial: Path) -> None:
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

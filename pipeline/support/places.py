"""What a text of the user's stands for: a place on the disk, or the name of something else.

One rule for every field and option that takes a file or folder. A known name is what is known by it, whatever lies in
the working folder. A text that looks like a path is a path, and an error where nothing is there. A leading `~` is the
home folder, as in a shell; nothing else is expanded.
"""

import os
from collections.abc import Collection
from pathlib import Path

from .errors import UserError

_FILES = (".safetensors", ".json", ".csv", ".txt", ".yaml", ".yml")
"""Endings by which a text is known for a file's name."""


def user_path(text: str | Path) -> Path:
    """The path that a text stands for.

    Raises:
        UserError: no text, one that no file can be called, or the home folder of a user who is not known.
    """
    if not str(text).strip() or "\0" in str(text):
        raise UserError(f"expected a path, got {str(text)!r}. Name a file or folder, or leave it out.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"expected a path, got {str(text)!r}: there is no such user's home folder here.") from None


def existing(path: Path, expected: str) -> Path:
    """The same path, if something is there.

    Args:
        path: a place that somebody named.
        expected: what should be there: "a run folder".

    Raises:
        UserError: nothing is.
    """
    if not path.exists():
        raise UserError(f"expected {expected}, and there is no {path}. Correct the path.")
    return path


def looks_like_path(text: str) -> bool:
    """Tell a path from a name: it has a separator, begins with `.` or `~`, or ends as a file's name does.

    >>> [looks_like_path(text) for text in ("dog", "./dog", "~/dog", "runs/dog", "dog.safetensors", "St. Bernard")]
    [False, True, True, True, True, False]
    """
    separators = {os.sep, os.altsep or os.sep, "/"}
    return text.startswith((".", "~")) or bool(separators & set(text)) or text.lower().endswith(_FILES)


def absolute(text: str, known: Collection[str] = ()) -> str:
    """A path made absolute, so that it means the same wherever it is read; a known name stays as it is."""
    return text if text in known else str(user_path(text).absolute())


def absolute_if_there(text: str, known: Collection[str] = ()) -> str:
    """The same for a text that may be an id on a hub: a path if it can be nothing else, or if something is there."""
    certain = text.startswith((".", "~"))
    return absolute(text) if text not in known and (certain or user_path(text).exists()) else text

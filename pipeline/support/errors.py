"""Errors that the user can mend: one clear line, exit code 2. And warnings: one line, and the work goes on."""

from collections.abc import Callable

Tell = Callable[[str], None]
"""Takes a warning, one line."""


class UserError(ValueError):
    """Expected X, got Y, do Z. Front ends show the message and nothing else."""


class MissingExtra(UserError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs the package {package!r}. Install it with: pip install "turpentine[{extra}]"')


class Cancelled(Exception):
    """The user stopped the work; what was finished is kept."""


class Caution(UserWarning):
    """Something that the user should know, on one line; the work goes on. Front ends show it."""


def given(value: object) -> str:
    """What was given, as an error names it: on one line, and by its type where it is long.

    >>> given("0.6"), given(None), given([0] * 100)
    ("'0.6'", 'None', 'list')
    """
    text = repr(value)
    return text if len(text) <= 60 and text.isprintable() else type(value).__name__


def untold(warning: str) -> None:
    """Take a warning that nobody wants to see."""

"""The command `turpentine` in this process, and what it printed."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple

import pytest
from turpentine.pipeline.commands.main import main

SHORT = ("--n", "4", "--n-test", "2", "--steps", "4", "--batch-size", "2", "--num-inference-steps", "2",
         "--image-size", "16", "--audit-images", "1", "--audit-retain-train-images", "1", "--alignment", "false",
         "--nudity", "off", "--checkpoint-every", "2")  # fmt: skip
"""Options of a run that takes about a second with a tiny model."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*words: object) -> Ended:
    """Run `turpentine WORDS`; anything but an exit code comes through as it is."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:  # argparse
            code = int(exit.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def refused(*words: object) -> str:
    """Run a command that must be refused; gives its message, which must be one line."""
    ended = command(*words)
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err, ended.err
    lines = [line for line in ended.err.splitlines() if "error:" in line]
    assert len(lines) == 1, ended.err
    return lines[0]


@contextmanager
def empty_figures() -> Iterator[None]:
    """Reports with nothing in their figures, which take half of the time of a run with a tiny model."""

    def savefig(_figure: object, file: object, *_: object, **__: object) -> None:
        content = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"></svg>\n'
        file.write(content if isinstance(file, StringIO) else content.encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", savefig)
        yield

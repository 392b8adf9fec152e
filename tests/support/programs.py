"""Our programs' real parsers: of the command `turpentine` and of everything that `python -m turpentine.…` starts."""

import argparse
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
import turpentine

ROOT = Path(turpentine.__file__).parent


class _Stop(BaseException):
    """Raised where a program has its parser and would go to work."""


@contextmanager
def _caught(parse: bool) -> Iterator[list[argparse.ArgumentParser]]:
    """Stops a program when it parses its command line: after it if `parse`, else before; gives the parser."""
    found: list[argparse.ArgumentParser] = []
    real = argparse.ArgumentParser.parse_args

    def stop(parser, args=None, namespace=None):
        found.append(parser)
        if parse:
            real(parser, args, namespace)
        raise _Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        yield found


def _start(words: Sequence[str]) -> None:
    """Start `turpentine WORDS` or, where the first word is one of our modules, that module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(words))
        if words[0] != "turpentine":
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        else:
            scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
            module, name = scripts["turpentine"].split(":")
            getattr(import_module(module), name)()


def parse(words: Sequence[str]) -> None:
    """Parse a command line with the parser of its program.

    Raises:
        ValueError: the program refuses it; with the program's own message.
    """
    messages: list[str] = []
    with _caught(parse=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "_print_message", lambda parser, text, file=None: messages.append(text))
        try:
            _start(words)
        except _Stop:
            return
        except SystemExit:
            raise ValueError(messages[-1] if messages else "exits without a word") from None
    raise ValueError("the program parsed no command line")


def options(words: Sequence[str]) -> set[str]:
    """Every option that a program and its commands know, such as `--concept`."""
    with _caught(parse=False) as found, pytest.raises(_Stop):
        _start(words)
    parsers, known = list(found), set()
    while parsers:
        for action in parsers.pop()._actions:
            known.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return known


def commands() -> tuple[str, ...]:
    """The commands of `turpentine`."""
    with _caught(parse=False) as found, pytest.raises(_Stop):
        _start(["turpentine"])
    (action,) = (action for action in found[0]._actions if isinstance(action, argparse._SubParsersAction))
    return tuple(action.choices)


def modules() -> tuple[str, ...]:
    """Our modules that are programs of their own, by their dotted names."""
    files = [file for folder in ("pipeline", "benchmarks", "ui") for file in sorted((ROOT / folder).rglob("*.py"))]
    starts = re.compile(r"^if __name__ == .__main__.:", flags=re.MULTILINE)
    return tuple(
        ".".join(("turpentine", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__main__")
        for file in files
        if starts.search(file.read_text(encoding="utf-8"))
    )

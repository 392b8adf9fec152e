"""What a reader copies from our pages: commands and Python."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import turpentine

ROOT = Path(turpentine.__file__).parent
PAGES = tuple(
    sorted(
        {
            *ROOT.glob("*.md"),
            *ROOT.glob("docs/**/*.md"),
            *ROOT.glob("assets/*/README.md"),
            *ROOT.glob("comfy_nodes/web/docs/*.md"),
            *ROOT.glob("pipeline/**/*.md"),
            *ROOT.glob("benchmarks/**/*.md"),
        }
    )
)
_FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LAUNCHERS = ("accelerate", "torchrun", "python", "python3")


class Command(NamedTuple):
    """One command line of ours, and whatever starts it."""

    text: str
    launcher: tuple[str, ...]
    """`("accelerate", "launch", "--multi_gpu")`, or nothing."""
    words: tuple[str, ...]
    """`("turpentine", "unlearn", …)`, or `("turpentine.benchmarks.step", …)`."""


def name(page: Path) -> str:
    """A page's path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in any of the languages; "" is a block that names none."""
    return [text for language, text in _FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def python(page: Path) -> list[str]:
    """The Python examples of a page."""
    return blocks(page, "python", "py")


def inline(page: Path) -> list[str]:
    """The code in the running text of a page."""
    return _CODE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def command(text: str) -> Command | None:
    """Read a line of a shell; None if it starts nothing of ours."""
    words = shlex.split(text, comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        del words[0]
    if words[:1] == ["turpentine"]:
        return Command(text, (), tuple(words))
    if words[:1] and words[0] in _LAUNCHERS and "-m" in words:
        place = words.index("-m")
        if words[place + 1].split(".")[0] == "turpentine":
            return Command(text, tuple(words[:place]), tuple(words[place + 1 :]))
    return None


def commands(page: Path) -> Iterator[Command]:
    """Our command lines in the fenced blocks of a page."""
    for block in blocks(page, "", "bash", "sh", "shell", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.strip().removeprefix("$ ").split(" && "):
                found = command(part) if part.split(" ")[0] in ("turpentine", *_LAUNCHERS) or "=" in part else None
                if found:
                    yield found

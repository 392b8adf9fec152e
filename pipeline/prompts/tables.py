"""Read prompts from text, CSV and JSON files; whatever is wrong with a file is one clear line."""

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..support.errors import UserError
from ..support.text import counted, meant

_NETWORK = re.compile(r"<(?:lora|lyco|hypernet)\s*:[^<>]*>", re.I)

_LINE_END = re.compile(r"\r\n|\n|\r")
"""What ends a line of a text file; other signs that Unicode calls so stand for a space, as they do in CSV."""

_NEAR = 0.54
"""Share of letters in common from which a name may be a misspelt other one: "anker" for "anchor"."""

SUFFIXES = (".json", ".csv", ".txt")


def suffix_of(path: Path, known: Sequence[str] = SUFFIXES) -> str:
    """Give the kind of a file by its name's ending, one of `known`.

    Raises:
        UserError: a kind that is not read or written here.
    """
    suffix = path.suffix.lower()
    if suffix not in known:
        raise UserError(
            f"a prompt file must end in one of {', '.join(known)}, got {path.name!r}. Rename or convert it."
        )
    return suffix


def read_text(path: Path, what: str = "prompts", remedy: str = "Write one prompt a line") -> str:
    """Read a UTF-8 file with something in it.

    Args:
        path: of the file.
        what: should be in it, for messages.
        remedy: what to do where it is empty.

    Raises:
        UserError: it can't be read, is not UTF-8 text, or is empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be UTF-8 text, got bytes that are not. Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{path} must be text, got a NUL byte in line {line}. Save it as UTF-8 text.")
    if not text.strip():
        raise UserError(f"expected {what} in {path}, got an empty file. {remedy}.")
    return text


def is_comment(line: str) -> bool:
    """Tell whether a line is a comment: # and a space, or # alone. "#1 cat" and "#cat" are prompts."""
    text = line.strip()
    return text.startswith("#") and (len(text) == 1 or text[1].isspace())


def read_lines(path: Path) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """List (line number, line) of a text file without blank lines and comments, and warn of the comments.

    Raises:
        UserError: no line is left, or the file can't be read.
    """
    lines = [(number, line) for number, line in enumerate(_LINE_END.split(read_text(path)), start=1) if line.strip()]
    kept = [(number, line) for number, line in lines if not is_comment(line)]
    if not kept:
        raise UserError(f"expected prompts in {path}, got comments only. Write one prompt a line.")
    comments = [number for number, line in lines if is_comment(line)]
    return kept, told(comments, "comment", "skipped, which start with '# '", "line")


def told(places: Sequence[int], noun: str, what: str, where: str) -> tuple[str, ...]:
    """A warning about some places of a file: how many, what about them, and the first; none without places."""
    return (f"{counted(len(places), noun)} {what} (the first in {where} {places[0]})",) if places else ()


def question(name: str, known: Iterable[str]) -> str:
    """A question whether a name that is not known is a misspelt one, with a space before it; empty where none is near.

    >>> question("anker", ["anchor", "split"]), question("note", ["anchor", "split"])
    (' (did you mean anchor?)', '')
    """
    near = meant(name, known, _NEAR)
    return f" (did you mean {near}?)" if near else ""


def unused_warnings(columns: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """Warn of the columns of a table, in lower case, that are none of those that are read."""
    absent = [name for name in known if name not in columns]
    unused = [f"{name}{question(name, absent)}" for name in columns if name and name not in known]
    return (f"columns not used: {', '.join(unused)}",) if unused else ()


def network_warnings(prompts: Iterable[tuple[int, str]], where: str = "line") -> tuple[str, ...]:
    """Warn of prompts with <lora:…> and the like, which load nothing here.

    Args:
        prompts: each with its place in the file.
        where: what the places are.
    """
    places = [number for number, text in prompts if _NETWORK.search(text)]
    return told(places, "prompt", "with <lora:…> or the like, which is read as plain words", where)


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """List (line number, row) of a CSV file with a header; column names in lower case.

    Raises:
        UserError: no row, a row with more cells than the header, or a file that is not CSV.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        names = [str(name).strip().lower() for name in reader.fieldnames or ()]
        if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
            raise UserError(f"expected commas between the columns of {path}, got {names[0]!r}. Save it with commas.")
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{path}: expected each column once, got {twice!r} twice. Rename or remove one of them.")
        for row in reader:
            if None in row:
                raise UserError(
                    f"{path} line {reader.line_num}: expected {counted(len(names), 'cell')}, got more. "
                    "Put quotation marks around prompts with commas."
                )
            cells = {str(name).strip().lower(): (value or "").strip() for name, value in row.items()}
            rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV: {error}.") from error
    if not rows:
        raise UserError(f"expected rows under the header of {path}, got none. Write some.")
    return rows


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno} is not JSON: {error.msg}.") from error
    except RecursionError as error:
        raise UserError(f"{path} is not a list of prompts: it is nested too deeply.") from error


def read_json_lines(path: Path) -> list[tuple[int, Any]]:
    """List (line number, what it holds) of a file with one JSON value a line; blank lines are left out.

    Raises:
        UserError: a line that is not JSON, or the file can't be read.
    """
    found = []
    for number, line in enumerate(_LINE_END.split(read_text(path)), start=1):
        if line.strip():
            try:
                found.append((number, json.loads(line)))
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(f"{path} line {number} is not JSON: {getattr(error, 'msg', error)}.") from error
    return found


def write_table(header: list[str], rows: Iterable[Sequence[str]]) -> str:
    """Write CSV with Unix line ends."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()

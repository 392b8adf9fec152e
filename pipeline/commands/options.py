"""The recipe's fields as command-line options: name, help, range and default come from the field."""

import argparse
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any

from ..methods import names
from ..schema.defaults import merge, read_yaml
from ..schema.fields import Field, Path, fields_of, nest

_MARK = "recipe:"  # before the path, where argparse keeps the value of an option


def add_recipe_options(parser: argparse.ArgumentParser, *sections: str, skip: Iterable[str] = ()) -> None:
    """Add an option for every field of the recipe.

    Values are left as text: the recipe reads and checks them, once.

    Args:
        parser: gets the options.
        sections: sections and fields, if not all.
        skip: whole paths with dots that stay out.
    """
    groups: dict[str, Any] = {}

    def group(title: str) -> Any:
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        return groups[title]

    for field in fields_of(*sections, skip=skip):
        repeated: dict[str, Any] = {"action": "append"} if field.repeatable else {}
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if field.kind is bool else {}  # --guard: --guard true
        group(field.path[0] if len(field.path) > 1 else "recipe").add_argument(
            field.option,
            dest=destination(field.path),
            metavar=_metavar(field),
            help=_help(field).replace("%", "%%"),
            **repeated,
            **switch,
        )
    if not sections or "method" in sections:
        group("method").add_argument(
            "--method",
            dest=destination(("method", "name")),
            metavar="|".join(names()),
            help="unlearning method; default rgd",
        )


def destination(path: Path) -> str:
    """Where argparse keeps the value."""
    return _MARK + ".".join(path)


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as the nested dictionaries of a recipe."""
    known = {destination(field.path): field for field in fields_of()}
    given = {key: value for key, value in vars(arguments).items() if key.startswith(_MARK) and value is not None}
    paths = {key: tuple(key.removeprefix(_MARK).split(".")) for key in given}
    return nest((paths[key], _value(known.get(key), value)) for key, value in given.items())


def _value(field: Field | None, given: Any) -> Any:
    if field is None:
        return given
    return field.parse(field.separator.join(given) if field.repeatable else given)


def _help(field: Field) -> str:
    within = f" [{field.range}]" if field.range else ""
    default = "" if field.required else f"; default {_shown(field.default)}"
    return f"{field.help}{within}{default}" + (f" ({field.note})" if field.note else "")


def _metavar(field: Field) -> str:
    kinds = {bool: "true|false", int: "N", float: "X", str: "TEXT"}
    plain = [] if field.is_choice else [kinds[field.kind]]
    text = "|".join([*plain, *field.choices])
    if field.several:
        text += ",…"
    return f"{text}|none" if field.optional else text


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def add_recipe_file(parser: argparse.ArgumentParser) -> None:
    """Add `--recipe`, which options win over."""
    text = "a recipe file, or the name of a shipped recipe; options override it"
    parser.add_argument("--recipe", type=FilePath, metavar="FILE", help=text)


def add_progress_file(parser: argparse.ArgumentParser) -> None:
    """Add `--progress-file`, by which another program follows the work."""
    text = "keep a JSON file that says how far the work has come, for a program that follows it"
    parser.add_argument("--progress-file", type=FilePath, metavar="FILE", help=text)


def nested_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The recipe file and the options over it, as nested dictionaries."""
    base = read_yaml(arguments.recipe) if getattr(arguments, "recipe", None) else {}
    return merge(base, chosen(arguments))

"""The recipe's fields as command-line options: name, help, range and default come from the field."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path as FilePath
from tempfile import TemporaryFile
from typing import Any

from ..methods import names
from ..schema.defaults import merge, read_yaml, usual_value
from ..schema.fields import Field, Path, fields_of, nest
from ..support.errors import UserError
from ..support.places import user_path

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
    default = "" if field.required else f"; default {_shown(usual_value(field))}"
    return f"{field.help}{within}{default}" + (f" ({field.note})" if field.note else "")


def _metavar(field: Field) -> str:
    kinds = {bool: "true|false", int: "N", float: "X", str: "TEXT"}
    plain = [] if field.is_choice else [kinds[field.kind]]
    text = "|".join([*plain, *field.choices])
    if field.several:
        text += ",…"
    return f"{text}|none" if field.takes_none else text


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def path_of(text: str) -> FilePath:
    """The path that an argument stands for.

    Raises:
        ArgumentTypeError: see `user_path`.
    """
    try:
        return user_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_file(path: FilePath) -> None:
    """Refuse, before long work starts, a file that can't be written when it is done, or is somebody's.

    Raises:
        UserError: a folder, a file that is there already, or a place where no file can be made.
    """
    if path.is_dir():
        raise UserError(f"expected a file for --out, got the folder {path}.")
    check_free(path)
    check_writable(path.parent)


def check_free(file: FilePath) -> None:
    """Refuse to replace a file.

    Raises:
        UserError: it is there already, or a link that leads nowhere.
    """
    if file.exists() or file.is_symlink():
        raise UserError(f"{file} is there already and would be replaced. Choose another --out, or move it away.")


def add_folder_options(parser: argparse.ArgumentParser, even_if: str) -> None:
    """Add where a command writes a model, in which number format, and whether it takes one that nothing vouches for.

    Args:
        parser: of a command that changes the weights of a model.
        even_if: what `--any-base` goes on in spite of.
    """
    parser.add_argument("--out", type=path_of, required=True, metavar="DIR", help="new diffusers folder")
    parser.add_argument(
        "--dtype", default="fp32", choices=("fp32", "fp16", "bf16"), help="number format on disk; default fp32"
    )
    parser.add_argument("--any-base", action="store_true", help=f"go on even if {even_if}")


def check_folder(path: FilePath) -> None:
    """The same of a folder.

    Raises:
        UserError: a file, or a place where no folder can be made or written to.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"expected a folder to write into, got the file {path}.")
    check_writable(path)


def check_writable(folder: FilePath) -> None:
    """Refuse a folder in which no file can be made, there or not yet.

    Raises:
        UserError: it is read-only, or below a file.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with TemporaryFile(dir=there):
            return
    except OSError as error:
        raise UserError(f"can't write into {folder}: {error.strerror}. Choose another --out.") from None


def add_recipe_file(parser: argparse.ArgumentParser) -> None:
    """Add `--recipe`, which options win over."""
    text = "a recipe file, or the name of a shipped recipe; options override it"
    parser.add_argument("--recipe", metavar="FILE", help=text)


def add_prompt_list(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add `--from`, a list of prompts such as I2P, and `--where`, which of its rows.

    Args:
        parser: gets the options.
        purpose: what becomes of the list.
    """
    parser.add_argument(
        "--from",
        dest="prompt_file",
        type=path_of,
        metavar="FILE",
        help=f"{purpose}: a .txt, .csv, .json or .jsonl file; its own seeds and guidance are used, unless given here",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="rows of --from that count, by its own columns: 'nudity_percentage > 0', 'categories has sexual'; several "
        "must all hold",
    )


def check_prompt_list(arguments: argparse.Namespace) -> None:
    """Refuse conditions without a list.

    Raises:
        UserError: `--where` without `--from`.
    """
    if arguments.where and not arguments.prompt_file:
        raise UserError("--where selects rows of --from, and there are none. Name the list.")


def add_progress_file(parser: argparse.ArgumentParser) -> None:
    """Add `--progress-file`, by which another program follows the work."""
    text = "keep a JSON file that says how far the work has come, for a program that follows it"
    parser.add_argument("--progress-file", type=_progress_file, metavar="FILE", help=text)


def _progress_file(text: str) -> FilePath:
    """A file that is not there yet, or holds the progress of earlier work."""
    file = path_of(text)
    try:
        ours = "seconds_left" in json.loads(file.read_bytes())
    except FileNotFoundError:
        return file
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise argparse.ArgumentTypeError(f"{file} is there already and would be replaced. Choose another file.")
    return file


def nested_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The recipe file and the options over it, as nested dictionaries."""
    base = read_yaml(arguments.recipe) if getattr(arguments, "recipe", None) is not None else {}
    return merge(base, chosen(arguments))

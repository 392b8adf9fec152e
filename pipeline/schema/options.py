"""The recipe's fields as command-line options: name, help, range and default come from the field."""

import argparse
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from ..methods import METHODS
from .recipe import options

OWN_NAMES = {("prompts", "file"): "prompts", ("attribute_of",): "from"}
"""Fields whose option is not called as they are."""

REPEATED = {("concept",): " + ", ("prompts", "keep_forgotten"): ","}
"""Options that may be given several times -> what joins their texts."""


def add_recipe_options(parser: argparse.ArgumentParser, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> None:
    """Add an option for every field of the recipe.

    Values are left as text: the recipe model reads and checks them, once.

    Args:
        parser: gets the options.
        only: sections and fields, if not all.
        skip: paths with dots that stay out.
    """
    groups: dict[str, Any] = {}
    for path, field, note in options():
        if (only and path[0] not in only) or ".".join(path) in skip:
            continue
        title = path[0] if len(path) > 1 else "recipe"
        group = groups.setdefault(title, parser.add_argument_group(title))
        default = "" if field.is_required() else f"; default {_shown(field.get_default(call_default_factory=True))}"
        owner = f" ({note})" if note else ""
        group.add_argument(
            option_name(path),
            dest=destination(path),
            metavar=_metavar(field),
            **({"action": "append"} if path in REPEATED else {}),
            **({"nargs": "?", "const": "true"} if field.annotation is bool else {}),  # --guard is --guard true
            help=f"{field.description}{bounds(field)}{default}{owner}".replace("%", "%%"),
        )
    if not only or "method" in only:
        group = groups.setdefault("method", parser.add_argument_group("method"))
        group.add_argument(
            "--method", dest="recipe:method.name", metavar="|".join(METHODS), help="how to unlearn; default rgd"
        )


def option_name(path: tuple[str, ...]) -> str:
    """`("training", "batch_size")` -> `--batch-size`; the prompts' and audits' plain names get a prefix."""
    name = path[-1]
    if path[0] == "audits" and not name.startswith("nudity") and not name.startswith("alignment"):
        name = f"audit_{name}" if name != "accuracy" else name
    return "--" + OWN_NAMES.get(path, name).replace("_", "-")


def destination(path: tuple[str, ...]) -> str:
    """Where argparse keeps the value."""
    return "recipe:" + ".".join(path)


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as the nested dictionaries of a recipe."""
    nested: dict[str, Any] = {}
    fields = {destination(path): field for path, field, _ in options()}
    for key, value in vars(arguments).items():
        if not key.startswith("recipe:") or value is None:
            continue
        *sections, last = path = tuple(key.removeprefix("recipe:").split("."))
        if path in REPEATED:
            value = REPEATED[path].join(value)
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = _parsed(value, fields.get(key))
    return nested


def _parsed(text: str, field: FieldInfo | None) -> Any:
    if field is None:
        return text
    if text.lower() in ("none", "null") and type(None) in members(field.annotation):
        return None
    if get_origin(field.annotation) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of any other type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _metavar(field: FieldInfo) -> str:
    def names(annotation: Any) -> Iterator[str]:
        if get_origin(annotation) is Literal:
            yield "|".join(map(str, get_args(annotation)))
        elif get_origin(annotation) is tuple:
            yield ",".join(names(get_args(annotation)[0])) + ",…"
        elif annotation is bool:
            yield "true|false"
        else:
            yield {int: "N", float: "X", str: "TEXT", type(None): "none"}.get(annotation, "VALUE")

    return "|".join(name for member in members(field.annotation) for name in names(member))


def bounds(field: FieldInfo) -> str:
    """The range of a number, as in " [≥ 1, ≤ 1000]"; empty where there is none."""
    low = next((f"≥ {m.ge}" for m in field.metadata if isinstance(m, annotated_types.Ge)), None) or next(
        (f"> {m.gt}" for m in field.metadata if isinstance(m, annotated_types.Gt)), None
    )
    high = next((f"≤ {m.le}" for m in field.metadata if isinstance(m, annotated_types.Le)), None)
    ends = [end for end in (low, high) if end]
    return f" [{', '.join(ends)}]" if ends else ""


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


__all__ = ["add_recipe_options", "bounds", "chosen", "members"]

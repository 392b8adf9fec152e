"""The recipe's fields as widgets of a node, and what was chosen there as a part of a recipe.

Names, descriptions, ranges and choices come from the fields, so that a new field or method appears by
itself. Every widget starts at "auto" (-1 for numbers, nothing for text): the default that the model and
method have in `pipeline/schema/recipes/`, which a fixed number in a widget could not follow.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

AUTO = "auto"
AUTO_NUMBER = -1
NONE_NUMBER = 0
"""Stands for "none" in number fields that may be none; all of these are above 0."""

Path = tuple[str, ...]


def seed_widget(tooltip: str) -> tuple[str, dict[str, Any]]:
    """A seed that stays as it is: a training must not start anew because the editor rolled the dice."""
    return "INT", {"default": 0, "min": 0, "max": 2**31 - 1, "control_after_generate": False, "tooltip": tooltip}


def widgets(*sections: str, skip: tuple[str, ...] = (), advanced: bool = True) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Inputs of a node for the fields of some sections.

    Args:
        sections: first keys of the fields' paths, for example "training"; or whole paths with dots.
        skip: paths with dots that stay out.
        advanced: let the editor fold them away.
    """
    found = {}
    for path, field, note in _fields(sections, skip):
        kind, options = _widget(field)
        owner = f" ({note})" if note else ""
        options["tooltip"] = f"{_capital(field.description)}{owner}. {options['tooltip']}"
        if advanced:
            options["advanced"] = True
        found[input_name(path)] = (kind, options)
    return found


def chosen(values: Mapping[str, Any], *sections: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """What differs from "auto", as the nested dictionaries of a recipe. See `widgets` for the arguments."""
    nested: dict[str, Any] = {}
    for path, field, _ in _fields(sections, skip):
        value = values.get(input_name(path), AUTO)
        if value == AUTO or value == "" or (value == AUTO_NUMBER and not isinstance(value, bool)):
            continue
        place = nested
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = _parsed(value, field.annotation)
    return nested


def input_name(path: Path) -> str:
    """`("audits", "images")` -> `audit_images`: as the command line calls it, with underscores."""
    from ..pipeline.schema.options import option_name

    return option_name(path).removeprefix("--").replace("-", "_")


def _fields(sections: tuple[str, ...], skip: tuple[str, ...]) -> Iterator[tuple[Path, Any, str]]:
    from ..pipeline.schema.recipe import options

    for path, field, note in options():
        dotted = ".".join(path)
        if (path[0] in sections or dotted in sections) and dotted not in skip:
            yield path, field, note


def _widget(field: Any) -> tuple[Any, dict[str, Any]]:
    members = _members(field.annotation)
    plain = next(member for member in members if member is not type(None))
    if get_origin(plain) is Literal:
        return [AUTO, *map(str, get_args(plain))], {
            "default": AUTO,
            "tooltip": "auto: this model's and method's default.",
        }
    if plain is bool:
        return [AUTO, "on", "off"], {"default": AUTO, "tooltip": "auto: this model's and method's default."}
    if plain in (int, float):
        low, high = _bounds(field)
        none = f", {NONE_NUMBER}: none" if type(None) in members else ""
        tooltip = f"{_range(low, high)}{AUTO_NUMBER}: this model's and method's default{none}."
        limits = {"default": plain(AUTO_NUMBER), "min": plain(AUTO_NUMBER), "max": plain(high or 2**31 - 1)}
        if plain is float:
            default = field.get_default(call_default_factory=True)
            limits |= {"step": 1e-6 if default is not None and 0 < default < 0.01 else 0.05, "round": False}
            return "FLOAT", {**limits, "tooltip": tooltip}
        return "INT", {**limits, "tooltip": tooltip}
    several = get_origin(plain) is tuple
    words = "Joined by commas. " if several else ""
    inner = get_args(plain)[0] if several else None
    if get_origin(inner) is Literal:
        words = f"Of {', '.join(get_args(inner))}, joined by commas. "
    return "STRING", {"default": "", "tooltip": f"{words}Empty: the default."}


def _parsed(value: Any, annotation: Any) -> Any:
    members = _members(annotation)
    plain = next(member for member in members if member is not type(None))
    if plain is bool and value in ("on", "off"):
        return value == "on"
    if plain in (int, float) and type(None) in members and value == NONE_NUMBER:
        return None
    if get_origin(plain) is tuple:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _bounds(field: Any) -> tuple[str | None, float | None]:
    low = high = None
    for mark in field.metadata:
        if getattr(mark, "ge", None) is not None:
            low = f"at least {mark.ge}"
        if getattr(mark, "gt", None) is not None:
            low = f"above {mark.gt}"
        if getattr(mark, "le", None) is not None:
            high = mark.le
    return low, high


def _range(low: str | None, high: float | None) -> str:
    parts = [part for part in (low, f"at most {high}" if high is not None else None) if part]
    return f"{_capital(', '.join(parts))}. " if parts else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

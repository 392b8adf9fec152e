"""The recipe's fields as widgets of a node, and the chosen values as a part of a recipe.

Names, help, ranges and choices come from the fields, so that a new field or method appears by itself. Every
widget starts at "auto" (-1 for numbers, nothing for text), the default of the model and method in
`pipeline/schema/recipes/`. A fixed number in a widget couldn't follow that default.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline.schema.fields import Field

AUTO = "auto"
AUTO_NUMBER = -1
NONE_NUMBER = 0
"""Stands for "none" in number fields that may be none."""

_LARGEST = 2**31 - 1
_DEFAULT = "the default of the model and method"


def seed_widget(tooltip: str) -> tuple[str, dict[str, Any]]:
    """A seed that the editor doesn't change by itself, because a new seed starts a new training."""
    return "INT", {"default": 0, "min": 0, "max": _LARGEST, "control_after_generate": False, "tooltip": tooltip}


def widgets(*sections: str, skip: Iterable[str] = (), advanced: bool = True) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Inputs of a node for the fields of some sections.

    Args:
        sections: first keys of the fields' paths, for example "training"; or whole paths with dots.
        skip: fields to leave out, as whole paths with dots.
        advanced: whether the editor may fold the widgets away.
    """
    from ..pipeline.schema.fields import fields_of  # pydantic is not loaded before ComfyUI asks for inputs

    found = {}
    for field in fields_of(*sections, skip=skip):
        kind, options = _widget(field)
        note = f" ({field.note})" if field.note else ""
        options["tooltip"] = sentence(field.help + note, _hint(field))
        if advanced:
            options["advanced"] = True
        found[field.name] = (kind, options)
    return found


def chosen(values: Mapping[str, Any], *sections: str, skip: Iterable[str] = ()) -> dict[str, Any]:
    """The values other than "auto", as the nested dictionaries of a recipe. See `widgets` for the arguments."""
    from ..pipeline.schema.fields import fields_of, nest

    given = ((field, values.get(field.name, AUTO)) for field in fields_of(*sections, skip=skip))
    return nest((field.path, _parsed(field, value)) for field, value in given if not _is_auto(value))


def sentence(text: str, *more: str) -> str:
    """Make a tooltip of a field's help, followed by more sentences.

    >>> sentence("optimizer steps", "-1: the default.")
    'Optimizer steps. -1: the default.'
    """
    return " ".join([f"{text[:1].upper()}{text[1:]}.", *(each for each in more if each)])


def _is_auto(value: Any) -> bool:
    return value in (AUTO, "") or (value == AUTO_NUMBER and not isinstance(value, bool))


def _widget(field: "Field") -> tuple[Any, dict[str, Any]]:
    if field.kind is bool:
        return [AUTO, "on", "off"], {"default": AUTO}
    if field.is_choice and not field.several:
        return [AUTO, *(choice for choice in field.choices if choice != AUTO)], {"default": AUTO}
    if not field.is_number:
        return "STRING", {"default": ""}
    number = field.kind
    options = {"default": number(AUTO_NUMBER), "min": number(AUTO_NUMBER), "max": number(field.high or _LARGEST)}
    if number is int:
        return "INT", options
    small = field.default is not None and 0 < field.default < 0.01
    return "FLOAT", {**options, "step": 1e-6 if small else 0.05, "round": False}


def _hint(field: "Field") -> str:
    """How a widget writes the field's values; empty where its help says so itself."""
    if field.is_number:
        limits = f"Range: {field.range}. " if field.range else ""
        return f"{limits}{AUTO_NUMBER}: {_DEFAULT}{f'; {NONE_NUMBER}: none' if field.optional else ''}."
    if field.several:
        known = f"One or more of {', '.join(field.choices)}, joined" if field.choices else "Joined"
        return f"{known} by commas. Empty: the default."
    if field.is_free_text:
        return "Empty: the default."
    return "" if AUTO in field.choices else f"{AUTO}: {_DEFAULT}."


def _parsed(field: "Field", value: Any) -> Any:
    if field.kind is bool:
        return value == "on" if value in ("on", "off") else value
    if field.is_number and field.optional and value == NONE_NUMBER:
        return None
    return field.parse(value) if field.several else value

"""The recipe's fields as widgets of a node, and what was chosen there as a part of a recipe.

Names, descriptions, ranges and choices come from the fields, so that a new field or method appears by
itself. Every widget starts at "auto" (-1 for numbers, nothing for text): the default that the model and
method have in `pipeline/schema/recipes/`, which a fixed number in a widget could not follow.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline.schema.fields import Field

AUTO = "auto"
AUTO_NUMBER = -1
NONE_NUMBER = 0
"""Stands for "none" in number fields that may be none; all of these are above 0."""

_LARGEST = 2**31 - 1
_DEFAULT = "auto: this model's and method's default."


def seed_widget(tooltip: str) -> tuple[str, dict[str, Any]]:
    """A seed that stays as it is: a training must not start anew because the editor rolled the dice."""
    return "INT", {"default": 0, "min": 0, "max": _LARGEST, "control_after_generate": False, "tooltip": tooltip}


def widgets(*sections: str, skip: Iterable[str] = (), advanced: bool = True) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Inputs of a node for the fields of some sections.

    Args:
        sections: first keys of the fields' paths, for example "training"; or whole paths with dots.
        skip: whole paths with dots that stay out.
        advanced: let the editor fold them away.
    """
    from ..pipeline.schema.fields import fields_of  # no library is loaded before ComfyUI asks for inputs

    found = {}
    for field in fields_of(*sections, skip=skip):
        kind, options = _widget(field)
        note = f" ({field.note})" if field.note else ""
        options["tooltip"] = f"{_capital(field.help)}{note}. {options['tooltip']}"
        if advanced:
            options["advanced"] = True
        found[field.name] = (kind, options)
    return found


def chosen(values: Mapping[str, Any], *sections: str, skip: Iterable[str] = ()) -> dict[str, Any]:
    """What differs from "auto", as the nested dictionaries of a recipe. See `widgets` for the arguments."""
    from ..pipeline.schema.fields import fields_of, nest

    given = ((field, values.get(field.name, AUTO)) for field in fields_of(*sections, skip=skip))
    return nest((field.path, _parsed(field, value)) for field, value in given if not _is_auto(value))


def _is_auto(value: Any) -> bool:
    return value in (AUTO, "") or (value == AUTO_NUMBER and not isinstance(value, bool))


def _widget(field: "Field") -> tuple[Any, dict[str, Any]]:
    if field.is_choice and not field.several:
        return [AUTO, *field.choices], {"default": AUTO, "tooltip": _DEFAULT}
    if field.kind is bool:
        return [AUTO, "on", "off"], {"default": AUTO, "tooltip": _DEFAULT}
    if field.is_number:
        none = f", {NONE_NUMBER}: none" if field.optional else ""
        tooltip = f"{_range(field)}{AUTO_NUMBER}: this model's and method's default{none}."
        limits = {name: field.kind(value) for name, value in
                  (("default", AUTO_NUMBER), ("min", AUTO_NUMBER), ("max", field.high or _LARGEST))}  # fmt: skip
        if field.kind is float:
            small = field.default is not None and 0 < field.default < 0.01
            return "FLOAT", {**limits, "step": 1e-6 if small else 0.05, "round": False, "tooltip": tooltip}
        return "INT", {**limits, "tooltip": tooltip}
    words = f"Of {', '.join(field.choices)}, joined by commas. " if field.choices else "Joined by commas. "
    return "STRING", {"default": "", "tooltip": f"{words if field.several else ''}Empty: the default."}


def _parsed(field: "Field", value: Any) -> Any:
    if field.kind is bool:
        return value == "on" if value in ("on", "off") else value
    if field.is_number and field.optional and value == NONE_NUMBER:
        return None
    return field.parse(value) if field.several else value


def _range(field: "Field") -> str:
    low = f"{'above' if field.low_is_open else 'at least'} {field.low}" if field.low is not None else ""
    high = f"at most {field.high}" if field.high is not None else ""
    ends = ", ".join(end for end in (low, high) if end)
    return f"{_capital(ends)}. " if ends else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

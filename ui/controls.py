"""The recipe's fields as components: label, help, range and default come from the field."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

import gradio as gr
from pydantic.fields import FieldInfo

from ..pipeline.methods import METHODS
from ..pipeline.schema.options import bounds, members
from ..pipeline.schema.presets import preset_for
from ..pipeline.schema.recipe import Recipe, build_recipe, merge, options
from .access import settable

Path = tuple[str, ...]
METHOD: Path = ("method", "name")
FIELDS: dict[Path, tuple[FieldInfo, str]] = {path: (field, note) for path, field, note in options()}
"""Every field that can be offered, and whose option it is."""

START = {"concept": "astronaut"}
"""What the page opens with, beside the recipe's defaults: the concept of `turpentine demo`."""
_PREVIEWS = 8  # pictures in the course of a training
_RADIO = 4  # up to so many choices are all shown
_NONE = "none"


class Controls:
    """The components of one page that together describe a recipe."""

    def __init__(self) -> None:
        self.components: dict[Path, gr.components.Component] = {}
        self.start = starting_recipe(START)

    def add(self, path: Path, **over: Any) -> Any:
        """Make the component of a field where the page is being built; `over` replaces its properties."""
        value = value_of(self.start, path)
        if path[0] == "method" and path[-1] not in method_fields(self.start.method.name):
            over = {"visible": False} | over
        component = method_choice(value, **over) if path == METHOD else component_for(path, value, **over)
        self.components[path] = component
        return component

    def choice(self, path: Path, choices: Sequence[Any], **over: Any) -> Any:
        """Make a free-text field a choice among what there is here."""
        field, _ = FIELDS[path]
        value = value_of(self.start, path)
        about = {"label": label_of(path), "info": field.description, "elem_id": "-".join(path), "value": value}
        self.components[path] = gr.Dropdown(choices=list(choices), interactive=True, **about | over)
        return self.components[path]

    def section(self, name: str, skip: Iterable[str] = ()) -> None:
        """Make the components of every field of a section that are not on the page yet."""
        for path, (field, _) in FIELDS.items():
            if (
                path[0] == name
                and path[-1] not in skip
                and path not in self.components
                and settable(path, field.annotation)
            ):
                self.add(path)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components, in the order in which `nested` takes their values and `filled` gives updates."""
        return list(self.components.values())

    def nested(self, values: Sequence[Any]) -> dict[str, Any]:
        """What the visitor chose, as the nested dictionaries of a recipe."""
        chosen = dict(zip(self.components, values, strict=True))
        owned = method_fields(chosen.get(METHOD, "rgd"))
        nested: dict[str, Any] = {}
        for path, value in chosen.items():
            if path[0] == "method" and path[-1] not in owned:
                continue
            place = nested
            for name in path[:-1]:
                place = place.setdefault(name, {})
            place[path[-1]] = from_component(path, value)
        return nested

    def filled(self, recipe: Recipe, keep: Iterable[Path] = ()) -> list[dict[str, Any]]:
        """Updates that show a recipe; the fields of other methods are hidden."""
        owned, kept = method_fields(recipe.method.name), set(keep)
        updates = []
        for path in self.components:
            if path[0] == "method" and path[-1] not in owned:
                updates.append(gr.update(visible=False))
            elif path in kept:
                updates.append(gr.update())
            else:
                shown = {"visible": True} if path[0] == "method" else {}
                updates.append(gr.update(value=to_component(path, value_of(recipe, path)), **shown))
        return updates


def starting_recipe(chosen: Mapping[str, Any], preset: str = "balanced") -> Recipe:
    """The recipe that a page offers for a model, a method and a preset.

    Raises:
        UserError: an unknown preset or method.
    """
    method = chosen.get("method") or {}
    name = method.get("name", "rgd") if isinstance(method, Mapping) else str(method)
    base = preset_for(preset, str(chosen.get("model") or "tiny-canvas"), name)
    recipe = build_recipe(merge(base, chosen))
    training = recipe.training.model_copy(update={"preview_every": max(1, recipe.training.steps // _PREVIEWS)})
    return recipe.model_copy(update={"training": training})


def method_fields(method: str) -> set[str]:
    """Names of a method's own options, and of its name."""
    return set(METHODS[method][0].model_fields) if method in METHODS else {"name"}


def method_choice(value: str, **over: Any) -> gr.Dropdown:
    """The choice among the registered methods."""
    info = "how the weights are changed; Why? tells them apart"
    choice = {"choices": list(METHODS), "value": value, "label": "Method", "info": info, "elem_id": "method-name"}
    return gr.Dropdown(**choice | over)


def method_notes() -> str:
    """What the module of each method says of itself, as a Markdown list."""
    told: dict[str, list[str]] = {}
    for name, (config, _) in METHODS.items():
        about = (sys.modules[config.__module__].__doc__ or "").strip().splitlines()[0]
        told.setdefault(about, []).append(name)
    return "\n".join(f"- **{', '.join(names)}**: {about.partition(': ')[2] or about}" for about, names in told.items())


def component_for(path: Path, value: Any, **over: Any) -> Any:
    """Make the component of a field."""
    field, note = FIELDS[path]
    about = {
        "label": label_of(path),
        "info": f"{field.description}{bounds(field)}" + (f" ({note})" if note else ""),
        "value": to_component(path, value),
        "elem_id": "-".join(path),
        "interactive": True,
    }
    kinds = [kind for kind in members(field.annotation) if kind is not type(None)]
    optional = len(kinds) < len(members(field.annotation))
    first = kinds[0]
    if first is bool:
        return gr.Checkbox(**about | over)
    if all(get_origin(kind) is Literal for kind in kinds):
        choices = [choice for kind in kinds for choice in get_args(kind)] + [_NONE] * optional
        choice = gr.Radio if len(choices) <= _RADIO else gr.Dropdown
        return choice(**about | {"choices": choices} | over)
    if get_origin(first) is tuple and get_origin(get_args(first)[0]) is Literal:
        return gr.CheckboxGroup(**about | {"choices": list(get_args(get_args(first)[0]))} | over)
    if first in (int, float) and not optional:  # an empty number box comes back as 0, not as none
        return gr.Number(**about | {"step": 1 if first is int else "any"} | over)
    return gr.Textbox(**about | {"max_lines": 1} | over)


def label_of(path: Path) -> str:
    """`("training", "batch_size")` -> "Batch size"."""
    words = path[-1].replace("_", " ")
    return words[0].upper() + words[1:]


def value_of(recipe: Recipe, path: Path) -> Any:
    """A field's value in a recipe; None for a field of another method."""
    found: Any = recipe
    for name in path:
        found = getattr(found, name, None)
    return found


def to_component(path: Path, value: Any) -> Any:
    """A recipe's value as its component shows it."""
    if path not in FIELDS:
        return value
    annotation = FIELDS[path][0].annotation
    if isinstance(value, tuple | list):
        literal = any(get_origin(part) is Literal for member in members(annotation) for part in get_args(member))
        return list(value) if literal else ", ".join(map(str, value))
    if type(None) in members(annotation):
        return _NONE if value is None else value if isinstance(value, str) else str(value)
    return value


def from_component(path: Path, value: Any) -> Any:
    """A component's value as a recipe takes it; the recipe checks it."""
    if path not in FIELDS:
        return value
    kinds = members(FIELDS[path][0].annotation)
    if type(None) in kinds and (value is None or str(value).strip().lower() in ("", _NONE)):
        return None
    if isinstance(value, str) and any(get_origin(kind) is tuple for kind in kinds):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        return (parts[0] if parts else "") if len(parts) < 2 and str in kinds else parts
    if isinstance(value, float) and value.is_integer() and int in kinds:
        return int(value)
    if isinstance(value, str) and (number := next((kind for kind in (int, float) if kind in kinds), None)):
        with suppress(ValueError):  # the recipe tells what is wrong with it
            return number(value)
    return value

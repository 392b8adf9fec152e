"""The recipe's fields as components. Label, help, range and default come from the field."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr

from ..pipeline.methods import find, names
from ..pipeline.schema.defaults import build_recipe, merge
from ..pipeline.schema.fields import Field, Path, fields_of, nest, value_at
from ..pipeline.schema.presets import preset_for, with_previews
from ..pipeline.schema.recipe import Recipe
from .access import settable

METHOD: Path = ("method", "name")
FIELDS: dict[Path, Field] = {field.path: field for field in fields_of()}
"""Every field that can be offered."""

START = {"concept": "astronaut"}
"""The page opens with the recipe's defaults and this, the concept of `turpentine demo`."""
_PREVIEWS = 8  # times that a training draws pictures
_RADIO = 4  # up to this number, choices are shown side by side
_NONE = "none"


class Controls:
    """The components of one page that describe a recipe."""

    def __init__(self) -> None:
        self.components: dict[Path, gr.components.Component] = {}
        self.start = starting_recipe(START)

    def add(self, path: Path, **over: Any) -> Any:
        """Add the component of a field at this place of the page. `over` replaces its properties."""
        value = value_at(self.start, path)
        if path[0] == "method" and path[-1] not in method_fields(self.start.method.name):
            over = {"visible": False} | over
        component = method_choice(value, **over) if path == METHOD else component_for(path, value, **over)
        self.components[path] = component
        return component

    def choice(self, path: Path, choices: Sequence[Any], **over: Any) -> Any:
        """Add a free-text field as a list of choices."""
        value = value_at(self.start, path)
        about = {"label": label_of(path), "info": FIELDS[path].help, "elem_id": "-".join(path), "value": value}
        self.components[path] = gr.Dropdown(choices=list(choices), interactive=True, **about | over)
        return self.components[path]

    def section(self, name: str, skip: Iterable[str] = ()) -> None:
        """Add all components of a section that are not on the page yet."""
        for path, field in FIELDS.items():
            if path[0] == name and path[-1] not in skip and path not in self.components and settable(field):
                self.add(path)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components, in the order of the values of `nested` and of the updates of `filled`."""
        return list(self.components.values())

    def nested(self, values: Sequence[Any]) -> dict[str, Any]:
        """The visitor's choices as the nested dictionaries of a recipe."""
        chosen = dict(zip(self.components, values, strict=True))
        owned = method_fields(chosen.get(METHOD, "rgd"))
        return nest(
            (path, from_component(path, value))
            for path, value in chosen.items()
            if path[0] != "method" or path[-1] in owned
        )

    def filled(self, recipe: Recipe, keep: Iterable[Path] = ()) -> list[dict[str, Any]]:
        """Updates that show a recipe and hide the fields of other methods."""
        owned, kept = method_fields(recipe.method.name), set(keep)
        updates = []
        for path in self.components:
            if path[0] == "method" and path[-1] not in owned:
                updates.append(gr.update(visible=False))
            elif path in kept:
                updates.append(gr.update())
            else:
                shown = {"visible": True} if path[0] == "method" else {}
                updates.append(gr.update(value=to_component(path, value_at(recipe, path)), **shown))
        return updates


def starting_recipe(chosen: Mapping[str, Any], preset: str = "balanced") -> Recipe:
    """The recipe that a page offers for a model, a method and a preset.

    Raises:
        UserError: the preset or the method is unknown.
    """
    base = preset_for(preset, str(chosen.get("model") or "tiny-canvas"), chosen.get("method") or {})
    return with_previews(build_recipe(merge(base, chosen)), _PREVIEWS)


def method_fields(method: str) -> set[str]:
    """Names of a method's options, `name` included."""
    return set(find(method).config.model_fields) if method in names() else {"name"}


def method_choice(value: str, **over: Any) -> gr.Dropdown:
    """Make the choice among the registered methods."""
    info = "how the weights are changed; Why? compares the methods"
    choice = {"choices": names(), "value": value, "label": "Method", "info": info, "elem_id": "method-name"}
    return gr.Dropdown(**choice | over)


def method_notes() -> str:
    """A Markdown list of the methods, from the docstrings of their modules."""
    told: dict[str, list[str]] = {}
    for name in names():
        about = (sys.modules[find(name).config.__module__].__doc__ or "").strip().splitlines()[0]
        told.setdefault(about, []).append(name)
    return "\n".join(f"- **{', '.join(who)}**: {about.partition(': ')[2] or about}" for about, who in told.items())


def component_for(path: Path, value: Any, **over: Any) -> Any:
    """Make the component of a field."""
    field = FIELDS[path]
    within = f" [{field.range}]" if field.range else ""
    about = {
        "label": label_of(path),
        "info": f"{field.help}{within}" + (f" ({field.note})" if field.note else ""),
        "value": to_component(path, value),
        "elem_id": "-".join(path),
        "interactive": True,
    }
    if field.kind is bool:
        return gr.Checkbox(**about | over)
    if field.is_choice and field.several:
        return gr.CheckboxGroup(**about | {"choices": list(field.choices)} | over)
    if field.is_choice:
        choices = [*field.choices, *([_NONE] if field.optional else [])]
        choice = gr.Radio if len(choices) <= _RADIO else gr.Dropdown
        return choice(**about | {"choices": choices} | over)
    if field.is_number and not field.optional:  # an empty number box comes back as 0, not as none
        return gr.Number(**about | {"step": 1 if field.kind is int else "any"} | over)
    return gr.Textbox(**about | {"max_lines": 1} | over)


def label_of(path: Path) -> str:
    """`("training", "batch_size")` -> "Batch size"."""
    words = path[-1].replace("_", " ")
    return words[0].upper() + words[1:]


def to_component(path: Path, value: Any) -> Any:
    """Convert a recipe's value for its component."""
    field = FIELDS.get(path)
    if field is None:
        return value
    if isinstance(value, tuple | list):
        return list(value) if field.is_choice else ", ".join(map(str, value))
    if value is None and field.is_free_text:
        return ""
    if field.optional:
        return _NONE if value is None else value if isinstance(value, str) else str(value)
    return value


def from_component(path: Path, value: Any) -> Any:
    """Convert a component's value for the recipe, which checks it."""
    field = FIELDS.get(path)
    if field is None:
        return value
    if field.optional and (value is None or str(value).strip().lower() in ("", _NONE)):
        return None
    if isinstance(value, str) and field.is_number:
        with suppress(ValueError):  # the recipe tells what is wrong with it
            return field.kind(value)
        return value
    if isinstance(value, float) and value.is_integer() and field.kind is int:
        return int(value)
    return field.parse(value) if isinstance(value, str) else value

"""Every field of a recipe as front ends offer it: one description for options, widgets and controls.

A front end turns a `Field` into its own thing and gives back pairs of a path and a value; `nest` makes the
nested dictionaries of a recipe of them, and the recipe checks the values.
"""

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ..methods import find, names
from .recipe import Recipe, Section

Path = tuple[str, ...]
"""Keys of a field in the nested dictionaries of a recipe."""

TRAINING_IMAGES = ("samples.training_guidance_scale", "samples.training_num_inference_steps")
"""Fields, as paths with dots, that are about training images: commands and nodes that draw none leave them out."""


@dataclass(frozen=True)
class Field:
    """One field of a recipe.

    Attributes:
        path: its keys, for example ("training", "batch_size").
        name: the one word that front ends call it, for example "audit_images"; no two fields share one.
        help: one line that says what it decides.
        kind: type of a plain value: bool, int, float or str.
        choices: texts that it may be; empty where any text or number of its kind is allowed.
        several: true if it holds several values, written with commas between them.
        optional: true if it may be None, written "none".
        required: true if it has no default.
        default: its value where nobody says anything; None where it is required.
        low: smallest number; None for no bound.
        low_is_open: true if `low` itself is too small.
        high: largest number; None for no bound.
        high_is_open: true if `high` itself is too large.
        owners: methods that have it; empty where it belongs to every method.
        repeatable: true if an option may be given several times.
        separator: stands between the values of a repeated option.
    """

    path: Path
    name: str
    help: str
    kind: type
    choices: tuple[str, ...] = ()
    several: bool = False
    optional: bool = False
    required: bool = False
    default: Any = None
    low: float | None = None
    low_is_open: bool = False
    high: float | None = None
    high_is_open: bool = False
    owners: tuple[str, ...] = ()
    repeatable: bool = False
    separator: str = ","

    @property
    def key(self) -> str:
        """The path with dots, as error messages name it."""
        return ".".join(self.path)

    @property
    def option(self) -> str:
        """The option of the command line: `--audit-images`, of the field with that name."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_number(self) -> bool:
        """True if a plain value is a number, whole or not."""
        return self.kind in (int, float)

    @property
    def is_choice(self) -> bool:
        """True if the value is one or several of `choices` and nothing else."""
        return self.kind is str and bool(self.choices)

    @property
    def is_free_text(self) -> bool:
        """True if any text is allowed, so that it may name a file, an address or a model."""
        return self.kind is str and not self.choices

    @property
    def range(self) -> str:
        """The range of a number, as in "≥ 1, ≤ 1000"; empty where there is none."""
        low = f"{'>' if self.low_is_open else '≥'} {self.low}" if self.low is not None else ""
        high = f"{'<' if self.high_is_open else '≤'} {self.high}" if self.high is not None else ""
        return ", ".join(end for end in (low, high) if end)

    @property
    def note(self) -> str:
        """Whose option it is, where it belongs to some methods only: "for rg, rgd"."""
        return f"for {', '.join(self.owners)}" if self.owners else ""

    @property
    def takes_none(self) -> bool:
        """True if "none" stands for no value: where it may be None, and for no name at all in a list of names."""
        return self.optional or (self.several and self.is_free_text)

    def parse(self, text: str) -> Any:
        """Read what a person wrote; numbers and choices stay texts, which the recipe reads and checks.

        >>> fields()["forget_limit"].parse("none") is None
        True
        >>> fields()["formats"].parse("lora, delta")
        ['lora', 'delta']
        >>> fields()["keep_forgotten"].parse("none")
        []
        """
        if self.takes_none and text.strip().lower() in ("none", "null"):
            return None if self.optional else []
        if self.several:
            return [part.strip() for part in text.split(self.separator) if part.strip()]
        return text


def fields() -> dict[str, Field]:
    """Every field of a recipe by its name, in the order of the recipe; `method` itself is left to front ends."""
    return {field.name: field for field in _every_field()}


def fields_of(*sections: str, skip: Iterable[str] = ()) -> list[Field]:
    """The fields of some sections.

    Args:
        sections: first keys of paths, for example "training", or whole paths with dots; none for every field.
        skip: whole paths with dots that stay out.
    """
    left_out = set(skip)
    return [
        field
        for field in _every_field()
        if (not sections or field.path[0] in sections or ".".join(field.path) in sections) and field.key not in left_out
    ]


def nest(pairs: Iterable[tuple[Path, Any]]) -> dict[str, Any]:
    """Values by their paths as nested dictionaries.

    >>> nest([(("training", "steps"), 7), (("seed",), 1)])
    {'training': {'steps': 7}, 'seed': 1}
    """
    nested: dict[str, Any] = {}
    for path, value in pairs:
        place = nested
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
    return nested


def value_at(nested: object, path: Path) -> Any:
    """The value at a path of a recipe or of nested dictionaries; None where there is none."""
    found: Any = nested
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else getattr(found, key, None)
    return found


def _every_field() -> Iterator[Field]:
    for key, info in Recipe.model_fields.items():
        if key == "method":
            yield from _method_fields()
        elif isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            for inner, inner_info in info.annotation.model_fields.items():
                yield _describe((key, inner), inner_info)
        else:
            yield _describe((info.alias or key,), info)


def _method_fields() -> Iterator[Field]:
    owners: dict[str, tuple[FieldInfo, list[str]]] = {}
    for method in names():
        for key, info in find(method).config.model_fields.items():
            if key != "name":
                owners.setdefault(key, (info, []))[1].append(method)
    for key, (info, methods) in owners.items():
        yield _describe(("method", key), info, () if len(methods) == len(names()) else tuple(methods))


def _describe(path: Path, info: FieldInfo, owners: tuple[str, ...] = ()) -> Field:
    members = _alternatives(info.annotation)
    plain = [member for member in members if member is not type(None)]
    several = all(get_origin(member) is tuple for member in plain)
    inner = [get_args(member)[0] for member in plain] if several else plain
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    separator = str(extra.get("separator", ","))
    bounds: dict[str, Any] = {
        end: getattr(mark, end) for mark in info.metadata for end in ("ge", "gt", "le", "lt") if hasattr(mark, end)
    }
    return Field(
        path=path,
        name=str(extra.get("option", path[-1])),
        help=info.description or "",
        kind=next((kind for kind in (bool, int, float) if kind in inner), str),
        choices=tuple(str(choice) for member in inner if get_origin(member) is Literal for choice in get_args(member)),
        several=several and separator == ",",
        optional=type(None) in members,
        required=info.is_required(),
        default=None if info.is_required() else info.get_default(call_default_factory=True),
        low=bounds.get("gt", bounds.get("ge")),
        low_is_open="gt" in bounds,
        high=bounds.get("lt", bounds.get("le")),
        high_is_open="lt" in bounds,
        owners=owners,
        repeatable=bool(extra.get("repeatable", False)),
        separator=separator,
    )


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union; any other type alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)

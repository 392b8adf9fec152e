"""The methods by name: those of this folder, and those of other packages.

A method's file calls `register` beside its class. The files of this folder are imported when somebody first
looks a method up, so that a recipe's schema can be imported without torch. A package brings its own methods
with an entry point of the group `turpentine.methods` that names a module which calls `register`:

    [project.entry-points."turpentine.methods"]
    my_method = "my_package.my_method"
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from ..support.errors import UserError
from .config import MethodConfig

if TYPE_CHECKING:  # imports torch
    from .base import Method

FILES = ("finetune", "grad_diff", "salun", "esd", "restricted", "uce", "rece", "speed")
"""The files of this folder that hold methods, in the order in which front ends offer them."""

GROUP = "turpentine.methods"
"""The entry points of other packages' methods."""


@dataclass(frozen=True)
class MethodSpec:
    """A registered method.

    Attributes:
        config: the class of its options; its class variables say what it needs.
        method: the class that carries it out.
    """

    config: type[MethodConfig]
    method: "type[Method[Any]]"


_specs: dict[str, MethodSpec] = {}


def register(config: type[MethodConfig], method: "type[Method[Any]]") -> None:
    """Make a method known under the default of its configuration's `name`.

    Raises:
        ValueError: the configuration has no name, or one that another method has.
    """
    name = config.model_fields["name"].default
    if not isinstance(name, str) or not name:
        raise ValueError(f"{config.__name__}.name must have a text as its default, got {name!r}.")
    if not _ours(config):
        _import_files()  # so that their names are taken
    known, spec = _specs.get(name), MethodSpec(config, method)
    if known not in (None, spec):
        raise ValueError(f"the name {name!r} is taken by {known.config.__module__}. Give {config.__name__} another.")
    _specs[name] = spec


def names() -> list[str]:
    """The names of all methods: this package's by the order of its files, then those of others."""
    _import_all()
    return sorted(_specs, key=_place)


def find(name: str) -> MethodSpec:
    """The method of a name.

    Raises:
        UserError: there is none.
    """
    if name not in names():
        raise UserError(f"method must be one of {sorted(_specs)}, got {name!r}.")
    return _specs[name]


def build_method(config: MethodConfig) -> "Method[Any]":
    """Make the method that a configuration describes."""
    return find(config.name).method(config)


def read_config(value: object) -> MethodConfig:
    """The configuration that a recipe's `method` describes: a mapping with the method's `name`, or one that was read.

    Raises:
        ValueError: no name, an unknown one, or options that the method doesn't take.
    """
    if isinstance(value, MethodConfig):
        return value
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"expected a mapping with the name of a method, one of {sorted(names())}")
    return find(name).config.model_validate(value)


@cache
def _import_files() -> None:
    for file in FILES:
        import_module(f".{file}", __package__)


@cache
def _import_all() -> None:
    _import_files()
    if not _ours_is_installed():
        return
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            warnings.warn(_broken(point, error), stacklevel=2)


def _place(name: str) -> int:
    file = _specs[name].config.__module__.removeprefix(f"{__package__}.")
    return FILES.index(file) if file in FILES else len(FILES)


def _ours(config: type[MethodConfig]) -> bool:
    return config.__module__.startswith(f"{__package__}.")


def _ours_is_installed() -> bool:
    """True if other packages register here: they import `turpentine`, which ComfyUI loads under another name."""
    return (__package__ or "").startswith("turpentine.")


def _broken(point: EntryPoint, error: Exception) -> str:
    package = point.dist.name if point.dist else point.value
    return (
        f"the package {package!r} has a method that can't be loaded ({point.value}: {type(error).__name__}: {error}). "
        "Update or uninstall it."
    )

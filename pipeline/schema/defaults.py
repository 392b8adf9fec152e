"""Complete recipes from what a person chose: shipped recipes, and the defaults of a model and a method."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, create_model
from yaml.constructor import ConstructorError

from ..methods import find, names
from ..models.family import Family
from ..models.lineage import lineage_of, pipeline_class_of
from ..support.errors import UserError, given
from ..support.places import user_path
from ..support.text import meant
from .fields import fields_of
from .recipe import Recipe, Section

RECIPES = Path(__file__).parent / "recipes"
SOME_MODEL = "some model"
"""Stands for a model that is not known yet; it has the defaults of every model that says nothing of itself."""

_RGD = "rgd"  # the method where nobody names one
_ALTERNATIVE = re.compile(r"(float|literal\[.*)$")  # what pydantic adds to a place where a field may be of two types


class _Loader(yaml.SafeLoader):
    """Reads plain values only, and refuses a mapping that has a key twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping.

        Raises:
            ConstructorError: a key is there twice.
        """
        seen: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConstructorError(f"the key {key.value!r} stands in line {seen[key.value]} and in line {line}")
            seen[key.value] = line
        return super().construct_mapping(node, deep)


def shipped() -> list[str]:
    """Names of the complete recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a recipe as nested dictionaries: a file, or the name of a shipped one, whatever the working folder holds.

    Raises:
        UserError: unreadable, not a mapping, or one with a key twice.
    """
    path = RECIPES / f"{path}.yaml" if str(path) in shipped() else user_path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"can't read the recipe {path}: {str(error).splitlines()[0]}. Expected a YAML file or one of {shipped()}."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"expected a recipe (a YAML mapping) in {path}, got {type(content).__name__}.")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, the second one winning.

    Two that bear different names describe different things (a method and its options): the second replaces the first.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            named = value.get("name", old.get("name")) == old.get("name")
            merged[key] = merge(old, value) if named else dict(value)
        else:
            merged[key] = value
    return merged


_BUNDLED = {
    "tiny-canvas": ("tiny-canvas",),
    "tiny-canvas-dit": ("tiny-canvas", "tiny-canvas-dit"),
    "digits": ("class-conditional", "digits"),
}
"""Bundled model -> folders of `recipes/` that hold its defaults, each building on the one before."""


def defaults_for(model: str, method: str | Mapping[str, Any], pipeline_class: str | None = None) -> dict[str, Any]:
    """The shipped starting point for a model and method: `recipes/<family>/all.yaml`, then `<method>.yaml`.

    A family can build on another one; then its files hold what differs. Where an option of a method has settings of
    its own for one of its values (`MethodConfig.variants`), they are in `<method>-<value>.yaml`, which comes last.

    Args:
        model: as a recipe names it.
        method: the name of a registered one, or its options as far as they were chosen; RGD's without a name.
        pipeline_class: name of the model's diffusers class, where it is known; else it is looked up.
    """
    options = {"name": _RGD, **method} if isinstance(method, Mapping) else {"name": str(method)}
    config = find(options["name"]).config
    variant = options.get(config.variants)
    files = ("all", options["name"], *([f"{options['name']}-{variant}"] if variant else []))
    found = {"model": model, "method": {"name": options["name"]}, **config.recipe}
    for family in _families(model, pipeline_class):
        for name in files:
            path = RECIPES / family / f"{name}.yaml"
            found = merge(found, read_yaml(path) if path.exists() else {})
    return found


def _families(model: str, pipeline_class: str | None) -> tuple[str, ...]:
    bundled = lineage_of(model).bundled
    if bundled:
        return _BUNDLED.get(bundled, (bundled,))
    kind = pipeline_class or pipeline_class_of(model)
    if not kind:
        return Family.defaults
    from ..models.registry import family_of_pipeline  # heavy: all of diffusers

    return (family_of_pipeline(kind) or Family).defaults


def build_recipe(chosen: Mapping[str, Any], pipeline_class: str | None = None) -> Recipe:
    """Fill what was chosen (nested dictionaries) with the defaults of its model and method.

    Args:
        chosen: fields of a recipe.
        pipeline_class: see `defaults_for`.

    Raises:
        UserError: an unknown key or a value out of range, one line each.
    """
    model = str(chosen.get("model", Recipe.model_fields["model"].default))
    base = defaults_for(model, chosen.get("method") or {}, pipeline_class or _class_behind(chosen))
    try:
        return Recipe.model_validate(merge(base, chosen))
    except ValidationError as error:
        raise UserError(describe(error)) from None


def build_part(chosen: Mapping[str, Any], *keys: str) -> Any:
    """Some fields of a recipe, for whoever needs no whole one: a frozen object with just these attributes.

    Args:
        chosen: fields of a recipe, nested.
        keys: top-level fields that are wanted, for example "device" and "samples".

    Raises:
        UserError: an unknown key or a value out of range.
    """
    known = Recipe.model_fields
    strange = [key for key in chosen if key not in {info.alias or name for name, info in known.items()}]
    if strange:
        raise UserError(_unknown(strange[0]))
    definitions: dict[str, Any] = {key: (known[key].annotation, known[key]) for key in keys}
    part = create_model("Part", __base__=Section, **definitions)
    base = defaults_for(str(chosen.get("model", known["model"].default)), _RGD, _class_behind(chosen))
    filled = merge(base, chosen)
    wanted = [known[key].alias or key for key in keys]
    try:
        return part.model_validate({name: filled[name] for name in wanted if name in filled})
    except ValidationError as error:
        raise UserError(describe(error)) from None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file, filling what it leaves out with the defaults of its model and method."""
    return build_recipe(read_yaml(path))


def stored_recipe(content: Mapping[str, Any]) -> Recipe:
    """Read a complete recipe that a run wrote. A field that it lacks came later, and is as if it were not there.

    So a run of an older version stays what it was, whatever the defaults of its model and method are today.

    Raises:
        UserError: an unknown key or a value out of range.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(describe(error)) from None


def _class_behind(chosen: Mapping[str, Any]) -> str | None:
    """The pipeline class that a checkpoint's configs name."""
    configs = chosen.get("model_config_folder")
    return pipeline_class_of(str(configs)) if configs else None


def _of_another_method(place: tuple[int | str, ...]) -> str | None:
    """The message for an option that other methods have; None where no method has it."""
    *outer, option = place
    owners = [name for name in names() if option in find(name).config.model_fields]
    if outer != ["method"] or not owners:
        return None
    return f"unknown option {f'method.{option}'!r} of this method; it belongs to {', '.join(owners)}"


def _unknown(place: str) -> str:
    places = {field.path[-1]: field.key for field in fields_of()}
    near = places.get(meant(place.rpartition(".")[2], places))
    told = f"did you mean {near!r}? " if near else ""
    return f"unknown option {place!r}; {told}`turpentine unlearn --help` lists the known ones"


def describe(error: ValidationError) -> str:
    """A pydantic error as lines that a person can act on: the key, the option that sets it, expected, got."""
    options = {field.key: field.option for field in fields_of() if len(field.path) > 1}
    wrong: dict[tuple[str, str], list[str]] = {}  # place and what came -> what was expected, one thing or another
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"] if not _ALTERNATIVE.match(str(part))]
        place = ".".join(part for part in parts if not part.isdigit())  # an item of a list goes by the list's name
        start, got = f"{place} ({options[place]}): " if place in options else f"{place}: " if place else "", ""
        if problem["type"] == "extra_forbidden":
            start, expected = _of_another_method(problem["loc"]) or _unknown(place), ""
        elif problem["type"] == "missing":
            start, expected = f"expected a {place}: --{place} cat" if place == "concept" else f"expected {place}", ""
        else:
            expected = _expected(problem)
            got = f", got {given(problem['input'])}" if place and ", got " not in expected else ""
        wrong.setdefault((start, got), []).append(expected)
    return "; ".join(f"{start}{_either(expected)}{got}" for (start, got), expected in wrong.items())


def _either(expected: Sequence[str]) -> str:
    first, *others = dict.fromkeys(expected)
    return " or ".join([first, *(other.removeprefix("expected ") for other in others)])


_WORDS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "finite_number": "expected a finite number",
    "literal_error": "expected {expected}",
}
"""Kind of a pydantic error -> what was expected, of its bounds."""

_KINDS = (
    ("int_", "expected a whole number"),
    ("float_", "expected a number"),
    ("bool_", "expected true or false"),
    ("string_", "expected a text"),
    ("tuple_", "expected a list"),
    ("dict_", "expected a section with options, each as `name: value`"),
    ("model_", "expected a section with options, each as `name: value`"),
)
"""The same by the beginning of the kind's name."""


def _expected(problem: Mapping[str, Any]) -> str:
    """What pydantic expected, in plain words."""
    kind, bounds = problem["type"], problem.get("ctx", {})
    words = _WORDS.get(kind) or next((words for start, words in _KINDS if kind.startswith(start)), None)
    if words is None:
        return str(problem["msg"].removeprefix("Value error, "))
    return words.format(**{key: f"{value:g}" if isinstance(value, float) else value for key, value in bounds.items()})

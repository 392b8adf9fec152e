"""The names of concepts as people write them: one, or several as in "cat + pop art"; and which of them mean the same.

A name is plain words. What other tools would read as a list or as syntax (commas, "cat and dog", quotation marks,
brackets, weights, `<lora:…>`) is refused with a word on how to write it, never taken literally, and so is the plural of
a concept that the tables know. A token of textual inversion, <cat-toy>, is a name. The names of classes come from a
model and may be anything.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

from annotated_types import MinLen
from pydantic import BeforeValidator, PlainSerializer

from ..support.errors import UserError
from ..support.text import squeezed
from .banks import is_token, main_name, plain_name
from .plurals import head, respelled, singulars

_JOINT = " + "

_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
"""Soft hyphens and the like, which come along when a name is copied from a page."""

_QUOTES = r"[\"“”„«»「」『』]"
_BRACKETS = r"[()\[\]{}<>（）［］｛｝＜＞【】]"
_WEIGHT = r"[:：]+\s*[+\-]?[\d.]+(?![\w])"
_SYNTAX = (
    (re.compile(rf"{_QUOTES}|^'.*'$|^[‘‚].*[’‘]$"), "quotation marks"),
    (re.compile(_BRACKETS), "brackets"),
    (re.compile(_WEIGHT), "a weight"),
    (re.compile(r"__|\$"), "a wildcard"),
    (re.compile(r"\\"), "a backslash"),
    (re.compile(r"(?:^|\s)--\w"), "an option"),
)
"""What belongs to the prompts of other tools -> how a message calls it."""

_NO_WORDS = re.compile(rf"<\w+:[^>]*>|{_WEIGHT}|{_QUOTES}|{_BRACKETS}|[\\$]|\s--.*|^[\s'‘]+|[\s'’,.:]+$")

_LIST = re.compile(r"(?<!\d)[,，、،;；؛|｜]|[,，、،;；؛|｜](?!\d)|[\n\r]|(?<=[a-z]\s)(?:BREAK|AND)\s")
_AND = re.compile(r"\s+(?:and|or|und|et|vs\.?)\s+|\s*[&/+]\s*", re.I)


def split_concepts(text: str) -> tuple[str, ...]:
    """Read one concept, or several joined by a plus between spaces.

    Raises:
        UserError: nothing on one side of a plus, or one concept twice.

    >>> split_concepts("cat + pop art")
    ('cat', 'pop art')
    """
    parts = [" ".join(part.split()) for part in re.split(r"\s\+(?=\s)", f" {text} ")]
    if len(parts) == 1:
        return (text,)
    if not all(parts):
        raise UserError(f"expected a concept on both sides of each '+', got {text!r}. Leave the plus out.")
    _each_once(parts)
    return tuple(parts)


def join_concepts(concepts: Sequence[str]) -> str:
    """Write concepts as one text, which `split_concepts` reads.

    >>> join_concepts(("cat", "pop art"))
    'cat + pop art'
    """
    return _JOINT.join(concepts)


def same_concept(one: str, other: str) -> bool:
    """Tell whether two names mean the same, whatever their spelling and number: "Cat", "a cat", "kittens".

    >>> same_concept("Van Gogh", "vincent_van_gogh"), same_concept("a Quokka", "quokkas"), same_concept("cat", "dog")
    (True, True, False)
    """
    return _identity(one) == _identity(other)


def different_concepts(names: Iterable[str]) -> list[str]:
    """Leave out the names that mean the same as an earlier one."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(_identity(name), name)
    return list(found.values())


def read_concept(text: str) -> str:
    """Read the name of one concept: plain words, with spaces for underscores.

    Raises:
        UserError: what may be several concepts, carries syntax, or is the plural of a concept that the tables know.

    >>> read_concept("van_gogh"), read_concept("AC/DC"), read_concept("salt and pepper")
    ('van gogh', 'AC/DC', 'salt and pepper')
    """
    given, text = text, text.translate(_UNSEEN).strip()
    if not text:
        raise UserError(f"the concept must be at least one word, got {given!r}.")
    if is_token(text):
        return text
    _one_only(text)
    for pattern, called in _SYNTAX:
        if pattern.search(text):
            hint = f"Write {_words(text)!r}" if _words(text) else "Write plain words"
            raise UserError(f"expected the plain name of a concept, got {text!r} with {called}. {hint}.")
    name = " ".join(text.replace("_", " ").split())
    single = _singular(name)
    if single is not None and main_name(name) is None and main_name(single) is not None:
        raise UserError(f"expected a concept in the singular, got {name!r}. Write {single!r}; plurals are understood.")
    return name


def read_concepts(concepts: str | Sequence[str]) -> tuple[str, ...]:
    """Read one or more concepts (see `read_concept`).

    Args:
        concepts: names, or one text with a plus between them.

    Raises:
        UserError: a name that is refused, or one concept twice.
    """
    names = tuple(map(read_concept, split_concepts(concepts) if isinstance(concepts, str) else concepts))
    _each_once(names)
    return names


def plural_warnings(names: Iterable[str]) -> tuple[str, ...]:
    """Say which names look like plurals that the tables don't know; a name with a capital letter may be called so."""
    return tuple(
        f"{name!r} looks like a plural: prompts use it as it is, and {single!r} counts as naming it. "
        f"Write {single!r} if you mean each of them."
        for name in names
        if name.islower() and main_name(name) is None and (single := _singular(name)) is not None
    )


def _words(text: str) -> str:
    """What is left of a text without the syntax of other tools."""
    return " ".join(_NO_WORDS.sub(" ", text.replace("_", " ")).split())


def _one_only(text: str) -> None:
    """Refuse what other tools read as a list."""
    listed = _LIST.search(text)
    parts = [part for part in map(_words, _LIST.split(text) if listed else [text]) if part]
    names: list[str] = []
    for part in parts:
        sides = _AND.split(part)
        names += [_singular(side) or side for side in sides] if all(map(_known, sides)) else [part]
    if not listed and len(names) < 2:
        return
    several = join_concepts(different_concepts(names))
    hint = f"Write {several!r}" if several else "Write plain words"
    leave = ", or leave the sign out" if listed else ""
    raise UserError(f"expected one concept, or several joined by ' + ', got {text!r}. {hint}{leave}.")


def _known(name: str) -> bool:
    return main_name(name) is not None or main_name(_singular(name) or name) is not None


def _each_once(names: Sequence[str]) -> None:
    if len(different_concepts(names)) < len(names):
        raise UserError(f"expected different concepts, got {join_concepts(names)!r}. Name each once.")


def _singular(name: str) -> str | None:
    """The singular of a name that is a plural: one that the tables know, else the likeliest."""
    words = name.split()
    if not words:
        return None
    place = head([word.lower() for word in words])
    forms = [respelled(words[place], single) for single in singulars(words[place])]
    found = [" ".join([*words[:place], form, *words[place + 1 :]]) for form in forms]
    return next((one for one in found if main_name(one)), found[0] if found else None)


def _identity(name: str) -> str:
    """What all spellings of a name share."""
    name = plain_name(plain_name(name, "object"), "style")
    single = name if main_name(name) else _singular(name) or name
    return squeezed(main_name(single) or single)


def _several(concepts: object) -> object:
    """Read "cat + pop art" as ("cat", "pop art")."""
    if not isinstance(concepts, str):
        return concepts
    if not concepts.strip():
        raise ValueError("expected the name of a concept, got an empty text")
    try:
        return split_concepts(concepts.strip())
    except UserError as error:
        raise ValueError(str(error)) from None


Concepts = Annotated[
    tuple[str, ...], BeforeValidator(_several), PlainSerializer(join_concepts, return_type=str), MinLen(1)
]
"""One or more concepts: a tuple in the program, one text in documents and options."""

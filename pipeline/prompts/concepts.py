"""The names of concepts as people write them: one, or several as in "cat + pop art"; and which of them mean the same.

A name is plain words. What other tools would read as a list or as syntax ("cat and dog", quotation marks, brackets,
weights, `<lora:…>`) is refused with a word on how to write it, never taken literally, and so is the plural of a concept
that the tables know. A list with commas is read as one where the tables know all its concepts ("cat, dog"), else
refused ("Paris, Texas"). A token of textual inversion, <cat-toy>, is a name. The names of classes come from a model and
may be anything.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Annotated

from annotated_types import MinLen
from pydantic import BeforeValidator, PlainSerializer

from ..support.errors import UserError
from ..support.text import squeezed
from .banks import is_token, main_name, plain_name
from .plurals import head, respelled, singulars

_JOINT = " + "

UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
"""Soft hyphens and the like, which come along when a name is copied from a page."""

_QUOTES = r"[\"“”„«»「」『』]"
_BRACKETS = r"[()\[\]{}<>（）［］｛｝＜＞【】]"
_WEIGHT = r"(?<!\d)[:：]+\s*[+\-]?\d{0,2}(?:\.\d*|(?<=\d))(?![\w.])"
_SYNTAX = (
    (re.compile(rf"{_QUOTES}|^'.*'$|^[‘‚].*[’‘]$"), "quotation marks"),
    (re.compile(_BRACKETS), "brackets"),
    (re.compile(_WEIGHT), "a weight"),
    (re.compile(r"__|\$"), "a wildcard"),
    (re.compile(r"\\"), "a backslash"),
    (re.compile(r"(?:^|\s)--\w"), "an option"),
    (re.compile(r"[\x00-\x08\x0e-\x1f\x7f]"), "control characters"),
    (re.compile(r"^[\-*]\s"), "a bullet"),
)
"""What belongs to the prompts of other tools -> how a message calls it."""

_NO_WORDS = re.compile(
    rf"<\w+:[^>]*>|{_WEIGHT}|{_QUOTES}|{_BRACKETS}|[\\$\x00-\x08\x0e-\x1f\x7f]|(?:^|\s)--.*|^[\-*]\s|^[\s'‘]+|[\s'’,.:]+$"
)

_LIST = re.compile(r"(?<!\d)[,，、،;；؛|｜]|[,，、،;；؛|｜](?!\d)|[\n\r•→⇒]|//|\s[#=·]\s|(?<=[a-z]\s)(?:BREAK|AND)\s")
_COMMA = re.compile(r"[,，、]")
_EDGES = re.compile(r"^\W+|\W+$")
_EMPTY = frozenset("a an the of in by and or".split())
"""Words that name nothing."""

_AND = re.compile(r"\s+(?:and|or|und|et|vs\.?)\s+|\s*[&/+]\s*", re.I)


def split_concepts(text: str) -> tuple[str, ...]:
    """Read one concept, or several joined by a plus between spaces.

    Raises:
        UserError: nothing on one side of a plus, or one concept twice.

    >>> split_concepts("cat + pop art")
    ('cat', 'pop art')
    """
    parts = parts_of(text)
    if len(parts) > 1:
        _each_once(parts)
    return tuple(parts)


def parts_of(text: str) -> list[str]:
    """Take apart what stands on both sides of each plus between spaces; a text without one stays as it is.

    Raises:
        UserError: nothing on one side.
    """
    parts = [" ".join(part.split()) for part in re.split(r"\s\+(?=\s)", f" {text} ")]
    if len(parts) == 1:
        return [text]
    if not all(parts):
        raise UserError(f"expected a concept on both sides of each '+', got {text!r}. Leave the plus out.")
    return parts


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
    if not isinstance(text, str):
        raise UserError(f"expected the name of a concept, got {text!r}. Write it in quotation marks.")
    given, text = text, text.translate(UNSEEN).strip()
    if not re.search(r"\w", text.replace("_", "")) and all(unicodedata.category(char)[0] in "PZC" for char in text):
        raise UserError(f"the concept must be at least one word, got {given!r}.")
    if is_token(text):
        return text
    _one_only(text)
    check_plain(text, "the plain name of a concept")
    name = " ".join(text.replace("_", " ").split())
    if all(word in _EMPTY for word in plain_name(name, "style").lower().split()):
        raise UserError(
            f"expected the name of a concept, got {name!r}, which names nothing by itself. Write what it is."
        )
    bare = _EDGES.sub("", name)
    if bare != name and name[-1] not in "'’" and main_name(bare) is not None:
        raise UserError(f"expected the plain name of a concept, got {name!r} with signs. Write {bare!r}.")
    single = singular(name)
    if single is not None and main_name(name) is None and main_name(single) is not None:
        raise UserError(f"expected a concept in the singular, got {name!r}. Write {single!r}; plurals are understood.")
    return name


def check_plain(text: str, what: str) -> None:
    """Refuse what belongs to the prompts of other tools: weights, brackets, quotation marks and the like.

    Raises:
        UserError: it is there.
    """
    for pattern, called in _SYNTAX:
        if pattern.search(text):
            hint = f"Write {_words(text)!r}" if _words(text) else "Write plain words"
            raise UserError(f"expected {what}, got {text!r} with {called}. {hint}.")


def read_concepts(concepts: str | Sequence[str]) -> tuple[str, ...]:
    """Read one or more concepts (see `read_concept`).

    Args:
        concepts: names, or one text with a plus between them, or with commas between concepts that the tables know.

    Raises:
        UserError: a name that is refused, or one concept twice.

    >>> read_concepts("cat, dog"), read_concepts("cat + quokka")
    (('cat', 'dog'), ('cat', 'quokka'))
    """
    if isinstance(concepts, str):
        concepts = names_in(concepts)
    if not isinstance(concepts, Iterable):
        raise UserError(f"expected one concept or a list of them, got {concepts!r}. Write names in quotation marks.")
    names = tuple(map(read_concept, concepts))
    if not names:
        raise UserError("expected at least one concept, got none. Name one.")
    _each_once(names)
    return names


def names_in(texts: str | Sequence[str]) -> list[str]:
    """Take names apart that stand in one text, joined by a plus, or by commas where the tables know them all.

    Raises:
        UserError: nothing on one side of a plus, or something that is no text.

    >>> names_in(["moggy + mouser", "tabby"]), names_in("dog, car")
    (['moggy', 'mouser', 'tabby'], ['dog', 'car'])
    """
    given = [texts] if isinstance(texts, str) else list(texts)
    strange = [text for text in given if not isinstance(text, str)]
    if strange:
        raise UserError(f"expected names in quotation marks, got {strange[0]!r}.")
    return [name for text in given for part in parts_of(text) for name in _listed(part)]


def _listed(text: str) -> list[str]:
    """The concepts of a list with commas, if the tables know them all; else the text as it is."""
    parts = [part.strip() for part in _COMMA.split(text)]
    plain = not any(pattern.search(text) for pattern, _ in _SYNTAX)
    return parts if plain and all(part and main_name(part) for part in parts) else [text]


def plural_warnings(names: Iterable[str]) -> tuple[str, ...]:
    """Say which names look like plurals that the tables don't know; a name with a capital letter may be called so."""
    return tuple(
        f"{name!r} looks like a plural: prompts use it as it is, and {single!r} counts as naming it. "
        f"Write {single!r} if you mean each of them."
        for name in names
        if name.islower() and main_name(name) is None and (single := singular(name)) is not None
    )


def same_concepts(text: str, concepts: Sequence[str]) -> bool:
    """Tell whether a text names these concepts, in this order, whatever the spelling."""
    names = split_concepts(text)
    return len(names) == len(concepts) and all(map(same_concept, names, concepts))


def other_names(
    concepts: Sequence[str], synonyms: Sequence[str] | None, attribute_of: str | None, keep_forgotten: Sequence[str]
) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
    """Read the names that are given beside the concepts: synonyms, the object of an attribute, what to guard.

    Raises:
        UserError: one that is no plain name, or a concept that is to be removed and guarded at once.
    """
    more = names_in(synonyms or ())
    if any(not word.strip() for word in more):
        raise UserError(f"synonyms must be words, got {list(synonyms or ())!r}.")
    kept = tuple(different_concepts(_read(name, "keep_forgotten") for name in names_in(keep_forgotten)))
    both = [name for name in kept if any(same_concept(name, concept) for concept in concepts)]
    if both:
        raise UserError(f"expected other concepts to keep forgotten than those to remove, got {both[0]!r} in both.")
    if isinstance(attribute_of, str) and len(names_in(attribute_of)) > 1:
        raise UserError(f"attribute_of: expected one object, got {attribute_of!r}. Name one of them.")
    return (
        tuple(_read(name, "synonyms") for name in more),
        None if attribute_of is None else _read(attribute_of, "attribute_of"),
        kept,
    )


def _read(name: str, option: str) -> str:
    try:
        return read_concept(name)
    except UserError as error:
        raise UserError(f"{option}: {error}") from None


def _words(text: str) -> str:
    """What is left of a text without the syntax of other tools."""
    plain = _NO_WORDS.sub(" ", text.replace("_", " "))
    return " ".join(_NO_WORDS.sub(" ", plain).split())  # once more for what has come to stand at an end


def _one_only(text: str) -> None:
    """Refuse what other tools read as a list."""
    listed = _LIST.search(text)
    parts = [part for part in map(_words, _LIST.split(text) if listed else [text]) if part]
    names: list[str] = []
    for part in parts:
        sides = _AND.split(part)
        names += [singular(side) or side for side in sides] if all(map(_known, sides)) else [part]
    if not listed and len(names) < 2:
        return
    several = join_concepts(different_concepts(names))
    hint = f"Write {several!r}" if several else "Write plain words"
    leave = ", or leave the sign out" if listed else ""
    raise UserError(f"expected one concept, or several joined by ' + ', got {text!r}. {hint}{leave}.")


def _known(name: str) -> bool:
    return main_name(name) is not None or main_name(singular(name) or name) is not None


def _each_once(names: Sequence[str]) -> None:
    if len(different_concepts(names)) < len(names):
        raise UserError(f"expected different concepts, got {join_concepts(names)!r}. Name each once.")


def singular(name: str) -> str | None:
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
    single = name if main_name(name) else singular(name) or name
    return squeezed(main_name(single) or single)


def _several(concepts: object) -> object:
    """Read "cat + pop art" as ("cat", "pop art")."""
    if not isinstance(concepts, str):
        if not isinstance(concepts, list | tuple) or not concepts:
            raise ValueError(f"expected a name in quotation marks or a list of such names, got {concepts!r}")
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

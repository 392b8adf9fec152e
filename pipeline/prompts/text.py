"""Words in sentences: a or an, which prompt names which word, and taking a word out again."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from ..support.text import fold

_A = re.compile(r"uni(?![nmd])|us[aeu]|ur[aeiou]|ut[eio]|uk|ubiq|ufo|u-|eu|ew|one(?![a-z])|once(?![a-z])", re.I)
"""Starts that are written with a vowel and spoken with a consonant: a unicorn, a used car, a one-eyed cat."""

_AN = re.compile(r"hour|honest|hono|heir|x-|8|11(?!\d)|18(?!\d)", re.I)
"""Starts that are spoken with a vowel though not written with one: an hour-long walk, an 8-bit sprite."""

_LETTERS = re.compile(r"[A-Z](?:[A-Z\d]*\b|-)")
"""Initials, read letter by letter: an SUV, an F-shaped lamp, a UFO."""

_ARTICLE = re.compile(r"\b(a)n?(\s+)(?=[\"'(“‘]?([^\W_][\w'’-]*))", re.I)

PREPOSITIONS = frozenset(
    "about above across after against along amid among around as at before behind below beneath beside between beyond "
    "by during for from in inside into near next of off on onto opposite out outside over past through throughout to "
    "toward towards under underneath until upon with within without".split()
)

_IRREGULAR = {
    "person": "people",
    "child": "children",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "knife": "knives",
    "wolf": "wolves",
    "leaf": "leaves",
    "sheep": "sheep",
    "deer": "deer",
    "spacecraft": "spacecraft",
    "human": "humans",
    "german": "germans",
    "roman": "romans",
    "shaman": "shamans",
}

_GAP = "\0"


def indefinite_article(word: str) -> str:
    """Choose "a" or "an" by the sound of the next word.

    The library inflect says "a 8-bit sprite" and "a SUV", which would change prompts that were measured.

    >>> [f"{indefinite_article(word)} {word}" for word in ("unicorn", "unclad", "hour-long", "SUV", "euphoric")]
    ['a unicorn', 'an unclad', 'an hour-long', 'an SUV', 'a euphoric']
    """
    if _LETTERS.match(word):
        return "an" if word[0] in "AEFHILMNORSX" else "a"
    if _AN.match(word):
        return "an"
    first = unicodedata.normalize("NFKD", word)[:1].lower()
    return "an" if first in set("aeiou") and not _A.match(word) else "a"


def fix_articles(sentence: str) -> str:
    """Make every "a" and "an" of a sentence agree with the word that follows.

    >>> fix_articles("A anxious person beside an unicorn")
    'An anxious person beside a unicorn'
    """

    def agree(match: re.Match[str]) -> str:
        return f"{match[1]}{indefinite_article(match[3])[1:]}{match[2]}"

    return _ARTICLE.sub(agree, sentence)


def capitalized(sentence: str) -> str:
    """Write the first letter large and leave the others as they are."""
    return sentence[:1].upper() + sentence[1:]


def unique(values: Sequence[str]) -> list[str]:
    """Drop later values that differ from an earlier one in case, accents or spaces only."""
    kept: dict[str, str] = {}
    for value in values:
        kept.setdefault(fold(value), value)
    return list(kept.values())


def plural(noun: str) -> str:
    """Give the plural of a noun phrase.

    >>> [plural(noun) for noun in ("fox", "bird", "pony", "person", "cameraman", "human")]
    ['foxes', 'birds', 'ponies', 'people', 'cameramen', 'humans']
    """
    head, space, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        return f"{head}{space}{_IRREGULAR[last]}"
    if last.endswith("man"):
        return f"{noun[:-2]}en"
    if re.search(r"[^aeiou]y$", last):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if re.search(r"(?:[sxz]|[cs]h)$", last) else f"{noun}s"


def _inflected(word: str) -> str:
    """Regular expression of a word or phrase, its plural and either spelling of its gaps."""
    *head, last = re.split(r"[\s-]+", word)
    if last in _IRREGULAR:
        tail = f"(?:{last}|{_IRREGULAR[last]})"
    elif last.endswith("man"):
        tail = f"{re.escape(last[:-2])}[ae]n"
    elif re.search(r"[^aeiou]y$", last):
        tail = f"{re.escape(last[:-1])}(?:y|ies)"
    else:
        tail = f"{re.escape(last)}(?:s|es)?"
    return r"[\s-]+".join([*(re.escape(part) for part in head), tail])


@lru_cache(maxsize=256)
def naming_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Regular expression that finds any of the words, or its plural, as whole words."""
    spellings = {spelling for word in words if word.strip() for spelling in (word.strip().lower(), fold(word))}
    alternatives = "|".join(_inflected(word) for word in sorted(spellings, key=lambda word: (-len(word), word)))
    return re.compile(rf"(?<!\w)(?:{alternatives or '(?!)'})(?!\w)", re.IGNORECASE)


def named_in(prompt: str, words: Sequence[str]) -> str | None:
    """Give the first of the words that a prompt names, as the prompt spells it; None if it names none.

    >>> named_in("Two Kittens asleep", ["cat", "kitten"]), named_in("a catalogue", ["cat", "kitten"])
    ('kittens', None)
    """
    match = naming_pattern(tuple(words)).search(fold(prompt))
    return match[0] if match else None


def without_modifier(prompt: str, words: Sequence[str], noun: str = "person") -> str:
    """Take adjectives out of a prompt; where one stood for a noun, put `noun`.

    >>> without_modifier("An undressed person by a nude on a sofa", ["nude", "undressed"])
    'A person by a person on a sofa'
    """
    text = naming_pattern(tuple(words)).sub(_GAP, prompt)
    text = re.sub(rf"{_GAP}(?:(?:\s*,\s*|\s+and\s+|\s*,\s*and\s+|\s+){_GAP})+", _GAP, text)

    def stand_in(match: re.Match[str]) -> str:
        following = match[2].lower()
        return f"{match[1]}{noun} {following}".rstrip() if following in PREPOSITIONS or not following else match[0]

    text = re.sub(rf"(\b(?:an?|the)\s+){_GAP}\s*(\w*)", stand_in, text, flags=re.I)
    text = re.sub(rf"^{_GAP}\s+(?=(\w+))", lambda match: "a person " if match[1] in PREPOSITIONS else "", text)
    text = re.sub(rf"(?<=,)\s*{_GAP}\s*,|{_GAP}\s*,?", "", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split())).strip(" ,;")
    text = re.sub(rf"(?:\s+(?:{'|'.join(sorted(PREPOSITIONS))}|an?|the|and))+(?=[.!?]*$)", "", text)
    return _like(prompt, fix_articles(text))


def with_replacement(prompt: str, words: Sequence[str], other: str) -> str:
    """Put another noun or name in the place of each of the words.

    >>> with_replacement("A cat and two kittens", ["cat", "kitten"], "elephant")
    'An elephant and two elephants'
    """
    singular = {fold(word) for word in words}

    def swap(match: re.Match[str]) -> str:
        return other if fold(match[0]) in singular or other[0].isupper() else plural(other)

    return _like(prompt, fix_articles(naming_pattern(tuple(words)).sub(swap, prompt)))


def _like(original: str, changed: str) -> str:
    return capitalized(changed) if original[:1].isupper() else changed

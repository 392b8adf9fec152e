"""Words in sentences: a or an, which prompt names which word, and taking a word out again."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from ..support.text import fold, squeezed
from .naming import Mention, mentions
from .plurals import always_many, plural, plurals

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

_GAP = "\0"
_NO_ARTICLE = "\1"
"""Stands before a noun that is always many, until the article before it is gone."""

_ARTICLE_TO_DROP = re.compile(rf"\ban?\s+((?:[^\W_][\w'’-]*\s+){{0,3}}){_NO_ARTICLE}", re.I)

_QUANTIFIED = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|dozens?|both|many|several|few|these|those|[2-9]|\d\d+)\s+"
    r"(?:[^\W_][\w'’-]*\s+){0,2}$",
    re.I,
)
"""What says that a noun is many which looks the same in both numbers: two small sheep."""


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


def without_modifier(prompt: str, words: Sequence[str]) -> str:
    """Take adjectives out of a prompt; where one stood for a noun, put a person.

    >>> without_modifier("An undressed person by a nude on a sofa", ["nude", "undressed"])
    'A person by a person on a sofa'
    """
    return with_modifier(prompt, words, "")


def with_modifier(prompt: str, words: Sequence[str], other: str) -> str:
    """Put another adjective in the place of each of some, or none; where one stood for a noun, put a person.

    >>> with_modifier("An undressed person by a nude on a sofa", ["nude", "undressed"], "clothed")
    'A clothed person by a clothed person on a sofa'
    """
    text = swapped(prompt, words, lambda _: _GAP)
    text = re.sub(rf"{_GAP}(?:(?:\s*,\s*|\s+and\s+|\s*,\s*and\s+|\s+){_GAP})+", _GAP, text)
    person = f"{_GAP} person" if other else "person"

    def stand_in(match: re.Match[str]) -> str:
        following = match[2].lower()
        return f"{match[1]}{person} {following}".rstrip() if following in PREPOSITIONS or not following else match[0]

    text = re.sub(rf"(\b(?:an?|the)\s+){_GAP}\s*(\w*)", stand_in, text, flags=re.I)
    text = re.sub(
        rf"^{_GAP}\s+(?=(\w+))", lambda match: f"a {person} " if match[1] in PREPOSITIONS else other and match[0], text
    )
    text = re.sub(rf"(?<=,)\s*{_GAP}\s*,|{_GAP}\s*,?", "", text) if not other else text.replace(_GAP, other)
    return like(prompt, fix_articles(tidied(text)))


def tidied(text: str) -> str:
    """Take away what hangs at the edges and between signs where words were taken out.

    >>> tidied("A hill , in the style of the")
    'A hill, in the style'
    """
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split())).strip(" ,;")
    return re.sub(rf"(?:\s+(?:{'|'.join(sorted(PREPOSITIONS))}|an?|the|and))+(?=[.!?]*$)", "", text)


def with_replacement(prompt: str, words: Sequence[str], other: str) -> str:
    """Put another noun or name in the place of each of the words.

    >>> with_replacement("A cat and two kittens", ["cat", "kitten"], "elephant")
    'An elephant and two elephants'
    """
    singular = {squeezed(word) for word in words}

    def swap(named: Mention) -> str:
        many = squeezed(named.text) not in singular or (
            named.text in plurals(named.text) and _QUANTIFIED.search(prompt[: named.start]) is not None
        )
        if always_many(other):
            return f"{_NO_ARTICLE}{other}"
        return plural(other) if many and other[0].islower() and other[-1].isascii() else other

    text = _ARTICLE_TO_DROP.sub(r"\1", swapped(prompt, words, swap))
    return like(prompt, fix_articles(text.replace(_NO_ARTICLE, "")))


def swapped(prompt: str, words: Sequence[str], swap: Callable[[Mention], str]) -> str:
    """Put other text in the place of each of the words; brackets that open or close inside a name stay.

    Words side by side name one thing: "a tabby cat".
    """
    made, end = "", 0
    for named in _joined(prompt, mentions(prompt, words)):
        opened = "".join(char for char in named.text if char in "([{")
        closed = "".join(char for char in named.text if char in ")]}")
        both = min(len(opened), len(closed))
        made += prompt[end : named.start] + opened[both:] + swap(named) + closed[both:]
        end = named.end
    return made + prompt[end:]


def _joined(prompt: str, found: Iterable[Mention]) -> list[Mention]:
    """Make one mention of those with nothing but space between them; the last word says its number."""
    joined: list[Mention] = []
    for named in found:
        last = joined[-1] if joined else None
        if last and not prompt[last.end : named.start].strip() and last.text.isalpha():
            joined[-1] = Mention(last.start, named.end, named.text)
        else:
            joined.append(named)
    return joined


def like(original: str, changed: str) -> str:
    """Begin a text with a capital letter where the original does."""
    return capitalized(changed) if original[:1].isupper() else changed

"""Does a text name one of these words? The one rule by which prompts of every source are checked.

A text names a word where the word stands in it by itself, in the singular or the plural, whatever its spelling:

- Case, accents, full width, zero-width characters, soft hyphens and kinds of apostrophe make no difference.
- A word ends where letters of its alphabet end: at a space, a digit, an underscore, any sign, or a letter of another
  script ("2cats", "cat_girl", "(cat:1.3)", "{cat|dog}", "一只cat", "Monet風"). So "category" names no cat. A mark
  that follows a letter, such as a vowel sign of Devanagari, is a part of the word.
- Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces: there a word is found anywhere, also
  inside a longer one. In Korean it must stand at the start of a word, because particles are attached to its end;
  behind a word of one syllable only a particle may follow.
- English plurals are known in both directions (see `plurals`), also of the first word in "man of war". A word that is
  a plural itself stands for its singular too.
- Between the words of a name may stand spaces, hyphens, underscores, brackets, weights or nothing ("vangogh",
  "pop-art", "van (gogh:1.2)"), and a dot behind initials ("M. C. Escher", "St. Bernard"). No comma and no end of a
  sentence. An apostrophe or a hyphen inside a word may be absent ("OKeeffe", "catgirl" for "cat-girl").

It does not know inflection in languages other than English, prefixes that Arabic and Hebrew attach, names in another
script (Пикассо) or in other characters (猫 and 貓, ネコ and ねこ), a space in what was given as one word ("Spider Man"
for "Spiderman"), the umlaut behind ae, oe and ue ("Dürer" for "Duerer"), misspellings, and synonyms that nobody
gave it. "does" counts as the plural of "doe".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from ..support.text import fold, folded
from .plurals import head, plurals, singulars

_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_SCRIPTS = ("Latin", "Greek", "Cyrillic", "Arabic", "Hebrew")
_PARTICLES = (
    "들?(?:"
    "(?:에서|에게|에게서|한테|께|에|와|과|랑|이랑|하고|까지|부터|처럼|보다|마다|로|으로|만|조차|뿐)?(?:은|는|도|만|의)?|"
    "이|가|을|를|의|나|이나|야|아|여|든지|이든지|라는|이라는|라고|이라고|"
    "(?:이|입|이었|였|같)(?:다|니다|습니다|은|에요|예요|고|며|지만)|예요|이에요"
    ")"
)
_SPLIT = regex.compile(r"[\s\p{Pd}_'.·・‧゠=−/]+")
"""What divides the words of a name."""

_BETWEEN = r"[\s\p{Pd}_'·・‧゠=−()\[\]{}<>\\+*]|:[\d.]+"
_ABBREVIATIONS = frozenset("st ste mt dr mr mrs ms ft jr sr prof sgt capt col gen lt no vs dj mc".split())
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
"""As German writes them where the letters are missing: Duerer."""


@dataclass(frozen=True)
class Mention:
    """A place in a text that names a word.

    Attributes:
        start: of the place.
        end: behind it.
        text: what stands there, folded.
    """

    start: int
    end: int
    text: str


@lru_cache(maxsize=512)
def naming_pattern(words: tuple[str, ...]) -> "regex.Pattern[str]":
    """Regular expression that finds any of the words in a folded text."""
    spelled = [*words, *(word.lower().translate(_UMLAUTS) for word in words)]
    spellings = {spelling for word in spelled if (spelling := fold(word))}
    alternatives = "|".join(_pattern(word) for word in sorted(spellings, key=lambda word: (-len(word), word)))
    return regex.compile(f"(?:{alternatives or '(?!)'})", regex.V1)


def mentions(text: str, words: Sequence[str]) -> Iterator[Mention]:
    """Find every place where a text names one of the words."""
    read, places = folded(text)
    for match in naming_pattern(tuple(words)).finditer(read):
        yield Mention(places[match.start()], places[match.end()], match[0])


def named_in(prompt: str, words: Sequence[str]) -> str | None:
    """Give the first of the words that a prompt names, folded as the prompt spells it; None if it names none.

    >>> named_in("Two Kittens asleep", ["cat", "kitten"]), named_in("a catalogue", ["cat", "kitten"])
    ('kittens', None)
    """
    pattern = naming_pattern(tuple(words))
    match = pattern.search(folded(prompt)[0])
    if match is None and "\u200b" in prompt:  # it may stand inside a word or divide two
        match = pattern.search(folded(prompt.replace("\u200b", " "))[0])
    return match[0] if match else None


def _pattern(word: str) -> str:
    """Regular expression of one word or phrase, folded."""
    parts = [part for part in _SPLIT.split(word) if part]
    if not parts:
        return regex.escape(word)
    inflected = {head(parts), len(parts) - 1}
    body = ""
    for place, part in enumerate(parts):
        forms = _numbers(part) if place in inflected else (part,)
        last = place + 1 == len(parts)
        body += f"(?:{'|'.join(_loose(form, last) for form in sorted(forms, key=len, reverse=True))})"
        if not last:
            body += _gap(word, part, parts[place + 1])
    return f"{_start(parts[0][0])}{body}{_end(parts[-1])}"


def _numbers(word: str) -> tuple[str, ...]:
    """A word in the singular and the plural; nothing but itself where it is not English."""
    if not regex.fullmatch(r"[a-z]+", word):
        return (word,)
    return tuple(
        dict.fromkeys([word, *plurals(word), *(form for one in singulars(word) for form in (one, *plurals(one)))])
    )


def _loose(part: str, last: bool) -> str:
    """A word that may have a hyphen inside, dots between initials, and an apostrophe behind o', d' and l'."""
    if part in ("&", "and", "n"):
        return "&|and|n"
    if not regex.fullmatch("[a-z0-9]+", part):
        return regex.escape(part)
    if part.isalpha() and len(part) < 4:
        between = "[.]" if last else r"[.\s]{1,2}"
        return f"{part}|{between.join(part)}[.]?"
    first = part[0] + (r"['_\p{Pd}]?" if part[0] in "odl" else r"[_\p{Pd}]?")
    return first + r"[_\p{Pd}]?".join(part[1:])


def _gap(word: str, before: str, after: str) -> str:
    dot = len(before) == 1 or before in _ABBREVIATIONS or f"{before}." in word
    least = 1 if before[-1].isdigit() and after[0].isdigit() else 0
    signs = f"{_BETWEEN}{'|[.]' if dot else ''}{'|/' if '/' in word else ''}"
    return f"(?:{signs}){{{least},8}}"


def _alphabet(letter: str) -> str:
    """The letters that a word with this letter may not touch."""
    script = next((name for name in _SCRIPTS if regex.match(rf"\p{{{name}}}", letter)), None)
    return rf"\p{{{script}}}" if script else rf"[\p{{L}}\p{{M}}--[{_SPACELESS}\p{{Hangul}}]]"


def _start(letter: str) -> str:
    if regex.match(f"[{_SPACELESS}]", letter):
        return ""
    if regex.match(r"\p{Hangul}", letter):
        return r"(?<!\p{Hangul})"
    if regex.match(r"\p{N}", letter):
        return r"(?<!\p{N})"
    return f"(?<!{_alphabet(letter)})" if regex.match(r"\p{L}", letter) else ""


def _end(part: str) -> str:
    letter = part[-1]
    if regex.match(r"\p{Katakana}", letter):
        return r"(?![\p{M}ー])"
    if regex.match(f"[{_SPACELESS}]", letter):
        return r"(?!\p{M})"
    if regex.match(r"\p{Hangul}", letter):
        return rf"(?={_PARTICLES}(?!\p{{Hangul}}))" if len(part) == 1 else ""
    if regex.match(r"\p{N}", letter):
        return r"(?!\p{N})"
    if regex.match(r"\p{Latin}", letter):
        return r"(?!\p{M}|\p{Latin}|'t(?!\p{Latin}))"
    return rf"(?!\p{{M}}|{_alphabet(letter)})" if regex.match(r"[\p{L}\p{M}]", letter) else ""

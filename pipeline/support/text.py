"""Figures as people read them: signs, percentages, points, durations, sizes; and words to compare."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache

MISSING = "—"
"""Stands for a figure that is not known or not finite."""

GB = 2**30
"""Bytes of a gigabyte of memory."""


def signed(value: float, digits: int = 1) -> str:
    """Write a number with its sign, with a true minus; a dash if it is not finite.

    >>> signed(-0.42), signed(0.04), signed(float("nan"))
    ('−0.4', '0.0', '—')
    """
    if not math.isfinite(value):
        return MISSING
    rounded = round(value, digits)
    text = f"{abs(rounded):.{digits}f}"
    return text if rounded == 0 else f"{'−' if rounded < 0 else '+'}{text}"


def number(value: float, digits: int = 3) -> str:
    """Write a figure, with a true minus; a dash if it is not finite."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else MISSING


def relative(before: float, after: float) -> float:
    """(after - before) / before; NaN where the base is not positive.

    >>> relative(0.5, 0.25)
    -0.5
    """
    return (after - before) / before if before > 0 else math.nan


def percent(share: float) -> str:
    """Write a change given as a share."""
    return f"{signed(100 * share)} %" if math.isfinite(share) else MISSING


def points(before: float, after: float) -> str:
    """Write the change of an accuracy in percentage points."""
    change = 100 * (after - before)
    return f"{signed(change)} points" if math.isfinite(change) else MISSING


def duration(seconds: float) -> str:
    """Write seconds for people.

    >>> duration(0.5), duration(75), duration(3723)
    ('0.5 s', '1 min 15 s', '1 h 02 min')
    """
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.1 or seconds == 0 else f"{1000 * seconds:.1f} ms"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(count: int, noun: str) -> str:
    """Write how many there are of something, a noun with a plural in -s.

    >>> counted(1, "row"), counted(2, "forget prompt")
    ('1 row', '2 forget prompts')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Write names one after another.

    >>> listed(["cat"]), listed(["cat", "dog", "pop art"])
    ('cat', 'cat, dog and pop art')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that comes nearest to one that nobody knows; empty if none comes near.

    >>> meant("repalce_with", ["replace_with", "steps"]), meant("colour", ["steps"])
    ('replace_with', '')
    """
    return next(iter(get_close_matches(name, list(known), 1)), "")


def size(count: float) -> str:
    """Write a number of bytes for people.

    >>> size(512), size(2_500_000)
    ('512 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


_SAME = str.maketrans(
    dict.fromkeys("‘’‚‛ʼʹ′´`＇", "'")
    | {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"}
    | dict.fromkeys("™℠", " ")
    | {"ـ": ""}
)
"""Apostrophes of all kinds; letters that Unicode does not take apart; signs made of letters; the stretched line of
Arabic."""

_ACCENTS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
"""Marks that may be left out in Latin, Greek, Cyrillic, Hebrew or Arabic; in other scripts they are letters."""

_VARIATIONS = range(0xFE00, 0xFE10)
"""Choose the look of the letter before them."""

_GAPS = re.compile(r"[\s_'.()\[\]{}\\·・‧゠−]|[\u058a\u05be\u2010-\u2015\u2e3a\u2e3b\u301c\u3030\-]")
"""What may stand between the words of a name or be left out."""


def folded(text: str) -> tuple[str, list[int]]:
    """Write a text in the form in which words are compared, and tell where each letter of it came from.

    Case, accents, full width, kinds of apostrophe, zero-width characters and soft hyphens make no difference.

    Returns:
        The text, and the place in `text` of each of its letters, with the length of `text` at the end.
    """
    if text.isascii():
        return text.lower().replace("`", "'"), list(range(len(text) + 1))
    made: list[str] = []
    places: list[int] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and _belongs_to_the_letter_before(text[end]):
            end += 1
        letters = _fold_letter(text[start:end])
        made.append(letters)
        places += [start] * len(letters)
        start = end
    return "".join(made), [*places, len(text)]


def _belongs_to_the_letter_before(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Mc", "Me") or "\u1160" <= char <= "\u11ff" or char in "ﾞﾟ"


@lru_cache(maxsize=4096)
def _fold_letter(letter: str) -> str:
    """Fold a letter with the marks that follow it."""
    seen = "".join(
        char for char in letter if unicodedata.category(char) != "Cf" and ord(char) not in _VARIATIONS
    ).translate(_SAME)
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", seen))
    return unicodedata.normalize("NFC", bare.casefold().translate(_SAME))


def fold(text: str) -> str:
    """Give the form in which words are compared (see `folded`), with single spaces.

    >>> fold("  ＣＡＴ  and Dalí’s STRAẞE"), fold("ガ") == fold("カ")
    ("cat and dali's strasse", False)
    """
    return " ".join(folded(text)[0].split())


def squeezed(name: str) -> str:
    """Give the form in which names are compared: folded, without gaps.

    >>> squeezed("Van_Gogh") == squeezed("vangogh"), squeezed("M.C. Escher") == squeezed("mc escher"), squeezed("C++")
    (True, True, 'c++')
    """
    return _GAPS.sub("", folded(name)[0])

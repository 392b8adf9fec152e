"""Figures as people read them: signs, percentages, points, durations, sizes; and words to compare."""

import math
import unicodedata

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


def fold(text: str) -> str:
    """Lower case, without accents, single spaces: the form in which words are compared."""
    letters = unicodedata.normalize("NFKD", text)
    return " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).casefold().split())

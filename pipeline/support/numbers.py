"""Numbers that people give, checked in one place: by Python, the command line or a node."""

import math
from numbers import Integral, Real

from .errors import UserError, given


def finite(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Give a number as a float; nothing else passes: no text, no truth value, no NaN, no infinity.

    Args:
        name: of the number, as its user knows it.
        value: what was given.
        low: the lowest that is allowed.
        high: the highest.

    Raises:
        UserError: not a finite number in [low, high].
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or not low <= number <= high:
        within = f"a number in [{low:g}, {high:g}]" if math.isfinite(high - low) else "a finite number"
        raise UserError(f"{name} must be {within}, got {given(value)}.")
    return number


def whole(name: str, value: object, low: int) -> int:
    """Give a whole number as an int.

    Raises:
        UserError: not a whole number, or one below `low`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise UserError(f"{name} must be a whole number from {low} up, got {given(value)}.")
    return int(value)

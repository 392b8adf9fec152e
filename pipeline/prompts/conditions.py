"""Which rows of a list are wanted, by its own columns: "nudity_percentage > 0", "categories has sexual"."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Self

from ..support.errors import UserError, given

ABSENT = ("", "nan", "none", "null", "n/a", "na")
"""How tables write that there is no value."""

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}
_SAME: dict[str, Callable[[Any, Any], bool]] = {"!=": ne, "=": eq}
_WRITTEN = re.compile(r"\s*(?P<column>[^<>=!]+?)\s*(?:(?P<sign>>=|<=|!=|=|>|<)|\s(?P<word>has)\s)\s*(?P<value>.+?)\s*")


@dataclass(frozen=True)
class Condition:
    """One condition on a row.

    Attributes:
        column: its name, in lower case.
        sign: ">", ">=", "<", "<=", "=", "!=" or "has", which is true of a text that contains the value.
        value: what the cell is compared with; as numbers where both are.
    """

    column: str
    sign: str
    value: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a condition.

        Raises:
            UserError: it is none.

        >>> Condition.read("nudity_percentage>50"), Condition.read("categories has self-harm").value
        (Condition(column='nudity_percentage', sign='>', value='50'), 'self-harm')
        """
        found = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise UserError(
                f"expected a condition on a column, such as 'nudity_percentage > 0' or 'categories has sexual', got "
                f"{given(text)}. Write COLUMN, one of {', '.join((*_ORDERS, *_SAME))} or has, and a value, in "
                "quotation marks."
            )
        one = cls(found["column"].lower(), found["sign"] or found["word"], found["value"])
        if one.sign in _ORDERS and _number(one.value) is None:
            raise UserError(f"expected a number behind {one.sign!r} in the condition {text!r}, got {one.value!r}.")
        return one

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.value}"

    def holds(self, row: Mapping[str, Any], where: str) -> bool:
        """Tell whether a row is wanted; one without a value in the column is not.

        Args:
            row: column in lower case -> cell.
            where: the file and the line, for messages.

        Raises:
            UserError: a cell that is no number where numbers are compared.
        """
        cell = row.get(self.column)
        if is_absent(cell):
            return False
        x, y = _number(cell), _number(self.value)
        if self.sign in _ORDERS:
            if x is None:
                raise UserError(f"{where}: {self.column} must be a number for {str(self)!r}, got {cell!r}.")
            return _ORDERS[self.sign](x, y)
        text, value = (str(one).strip().casefold() for one in (cell, self.value))
        if self.sign == "has":
            return value in text
        return _SAME[self.sign](*((text, value) if x is None or y is None else (x, y)))


def is_absent(value: Any) -> bool:
    """Tell whether a cell holds no value: empty, or one of `ABSENT`."""
    return value is None or (isinstance(value, str) and value.strip().lower() in ABSENT) or value != value


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None

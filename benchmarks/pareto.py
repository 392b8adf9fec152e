"""The trade-off between forgetting and keeping: the Pareto front of points, and the area of a curve.

A point is (left, kept): the share of the concept that is left, where less is better, and the share of the
rest that was kept, where more is better.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

Point = tuple[float, float]
Name = TypeVar("Name", bound=Hashable)


def front(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other point beats, sorted by the share left.

    >>> front([(0.5, 0.9), (0.2, 0.7), (0.6, 0.8)])
    [(0.2, 0.7), (0.5, 0.9)]
    """
    best: list[Point] = []
    for left, kept in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not best or kept > best[-1][1]:
            best.append((left, kept))
    return best


def area(points: Iterable[Point]) -> float:
    """Return the area that a curve dominates in the unit square, in [0, 1]: the hypervolume of its points.

    The area is the integral over x from 0 to 1 of max{kept_i : left_i <= x}, with 0 where no point is. A point
    with nothing left and everything kept has area 1.

    Args:
        points: shares; values outside [0, 1] are clipped.
    """
    clipped = [(min(max(left, 0.0), 1.0), min(max(kept, 0.0), 1.0)) for left, kept in points]
    corners = [*front(clipped), (1.0, 0.0)]
    return sum((end - left) * kept for (left, kept), (end, _) in pairwise(corners))


def beaten(figures: Mapping[Name, Sequence[float]], tie: float = 0.0) -> dict[Name, Name]:
    """Return for each row that another one beats the best of those: the one with the largest sum.

    A row beats another if no figure is worse, and one is better, by more than a tie. Rows that none beats are the
    front.

    Args:
        figures: of each row, of which more is better.
        tie: differences up to this count as none.

    >>> beaten({"a": (1.0, 0.5), "b": (0.9, 0.5), "c": (0.5, 1.0)})
    {'b': 'a'}
    """

    def beats(one: Name, other: Name) -> bool:
        gains = [x - y for x, y in zip(figures[one], figures[other], strict=True)]
        return min(gains) >= -tie and max(gains) > tie

    found = {}
    for row in figures:
        better = [other for other in figures if beats(other, row)]
        if better:
            found[row] = max(better, key=lambda other: sum(figures[other]))
    return found

"""The trade-off between forgetting and keeping: the Pareto front of points, and the area of a curve.

A point is (left, kept): the share of the concept that is left, where less is better, and the share of the
rest that was kept, where more is better.
"""

from collections.abc import Iterable
from itertools import pairwise

Point = tuple[float, float]


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

"""The trade-off between forgetting and keeping: which points are worth having, and how good a curve is.

A point is (left, kept): how much of the concept is left, to be small, and how much of the rest was kept,
to be large, both as shares.
"""

from collections.abc import Iterable
from itertools import pairwise

Point = tuple[float, float]


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats, the least left first.

    >>> front([(0.5, 0.9), (0.2, 0.7), (0.6, 0.8)])
    [(0.2, 0.7), (0.5, 0.9)]
    """
    best: list[Point] = []
    for left, kept in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not best or kept > best[-1][1]:
            best.append((left, kept))
    return best


def area(points: Iterable[Point]) -> float:
    """Area that a curve dominates in the unit square, in [0, 1]: the hypervolume of its points.

    For every share left it takes the most that was kept with no more left: the integral over x from 0 to 1
    of max{kept_i : left_i <= x}, 0 where no point is. 1 is a point with nothing left and all kept.

    Args:
        points: shares; what lies outside of [0, 1] counts as on its edge.
    """
    clipped = [(min(max(left, 0.0), 1.0), min(max(kept, 0.0), 1.0)) for left, kept in points]
    corners = [*front(clipped), (1.0, 0.0)]
    return sum((end - left) * kept for (left, kept), (end, _) in pairwise(corners))

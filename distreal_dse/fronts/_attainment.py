"""What several fronts of one kind attain: how far they spread from seed to seed.

A front attains a pair of cost and gain where it has a point that costs no more and gains no less.
The share of fronts that attain a pair is the empirical attainment function; what a given number of
them attains ends at an attainment surface. As budgets are looked up, such a surface is a staircase:
at each cost, the greatest gain that so many fronts give for that budget or less.

References
----------
Fonseca, Fleming: On the performance assessment and comparison of stochastic multiobjective
optimizers, PPSN 1996. López-Ibáñez, Paquete, Stützle: Exploratory analysis of stochastic local
search algorithms in biobjective optimization, in Experimental Methods for the Analysis of
Optimization Algorithms, Springer 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from distreal_dse.errors import FrontError


def median_attainment(count: int) -> int:
    """Return how many of so many fronts are half of them or, where it is odd, one more."""
    return (count + 1) // 2


def attainment_surface(
    fronts: Sequence[Sequence[tuple[float, float]]], attained_by: int
) -> list[tuple[float, float]]:
    """Return the corners of the surface below which so many of the fronts attain everything.

    Parameters
    ----------
    fronts
        Pairs of cost and gain of each front, in any order, dominated ones allowed. Costs are in one
        unit, or shares of the full network's, and minimised; gains are maximised.
    attained_by
        From 1 (what any front attains, the best) to their number (what all attain, the worst);
        `median_attainment` is the median surface.

    Returns
    -------
    list of tuple of float
        Pairs of cost and gain, both rising. From the cost of a corner to that of the next, at least
        so many fronts gain as much as the corner or more; below the first, fewer have a point.
        Empty where fewer have a point at all.

    Raises
    ------
    FrontError
        If there are fewer fronts than that, or a number is NaN, which no order can place.
    """
    if not 1 <= attained_by <= len(fronts):
        raise FrontError(
            f"attainment by {attained_by} of {len(fronts)} fronts: expected 1 to {len(fronts)}"
            if fronts
            else "attainment: expected at least one front, found none"
        )
    points = [(*point, index) for index, front in enumerate(fronts) for point in front]
    if any(math.isnan(cost) or math.isnan(gain) for cost, gain, _ in points):
        raise FrontError("attainment: expected numbers, found NaN; leave failed points out")
    best = [-math.inf] * len(fronts)
    surface: list[tuple[float, float]] = []
    reached = -math.inf
    for cost, added in groupby(sorted(points), key=lambda point: point[0]):
        for _, gain, index in added:
            best[index] = max(best[index], gain)
        attained = sorted(best, reverse=True)[attained_by - 1]
        if attained > reached:
            surface.append((cost, attained))
            reached = attained
    return surface

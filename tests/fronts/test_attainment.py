"""Attainment surfaces, against a count of the fronts that attain each pair."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.errors import FrontError
from distreal_dse.fronts import attainment_surface, median_attainment

Points = list[tuple[float, float]]

# Few different numbers, so that fronts share costs and gains.
numbers = st.integers(-2, 6).map(float)
fronts = st.lists(st.lists(st.tuples(numbers, numbers), max_size=5), min_size=1, max_size=6)


def attaining(fronts: list[Points], cost: float, gain: float) -> int:
    """How many fronts have a point that costs no more and gains no less."""
    return sum(any(c <= cost and g >= gain for c, g in front) for front in fronts)


def below(surface: Points, cost: float, gain: float) -> bool:
    return any(c <= cost and g >= gain for c, g in surface)


@given(fronts)
def test_a_surface_holds_what_so_many_fronts_attain_and_nothing_else(fronts: list[Points]) -> None:
    everywhere = [(c + dc, g + dg) for front in fronts for c, g in front
                  for dc in (-0.5, 0.0, 0.5) for dg in (-0.5, 0.0, 0.5)]  # fmt: skip
    crossed = {(c, g) for c, _ in everywhere for _, g in everywhere}
    for count in range(1, len(fronts) + 1):
        surface = attainment_surface(fronts, count)
        for cost, gain in crossed:
            assert below(surface, cost, gain) == (attaining(fronts, cost, gain) >= count)


@given(fronts)
def test_a_surface_is_a_staircase_of_costs_and_gains_that_fronts_have(
    fronts: list[Points],
) -> None:
    costs, gains = ({point[i] for front in fronts for point in front} for i in (0, 1))
    for count in range(1, len(fronts) + 1):
        surface = attainment_surface(fronts, count)
        assert surface == sorted(set(surface)) == sorted(surface, key=lambda point: point[1])
        assert len({c for c, _ in surface}) == len({g for _, g in surface}) == len(surface)
        assert {c for c, _ in surface} <= costs and {g for _, g in surface} <= gains


@given(st.lists(st.tuples(numbers, numbers), max_size=8))
def test_the_surface_of_one_front_is_its_points_that_are_not_dominated(front: Points) -> None:
    best = [
        (c, g) for c, g in front
        if not any((a <= c and b >= g) and (a, b) != (c, g) for a, b in front)
    ]  # fmt: skip
    assert attainment_surface([front], 1) == sorted(set(best))


def test_the_median_is_attained_by_half_of_the_fronts_or_one_more() -> None:
    assert [median_attainment(count) for count in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    low, middle, high = [(2.0, 1.0)], [(1.0, 1.0), (3.0, 2.0)], [(1.0, 3.0)]
    found = attainment_surface([high, low, middle], median_attainment(3))
    assert found == [(1.0, 1.0), (3.0, 2.0)]


def test_a_front_without_a_point_attains_nothing() -> None:
    assert attainment_surface([[(1.0, 1.0)], []], 2) == []
    assert attainment_surface([[(1.0, -math.inf)]], 1) == []


def test_what_has_no_order_is_refused() -> None:
    with pytest.raises(FrontError, match="found NaN"):
        attainment_surface([[(1.0, math.nan)]], 1)
    for count in (0, 3):
        with pytest.raises(FrontError, match="expected 1 to 2"):
            attainment_surface([[(1.0, 1.0)], []], count)
    with pytest.raises(FrontError, match="at least one front"):
        attainment_surface([], 1)

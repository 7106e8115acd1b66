from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.fronts import BudgetTooSmallError, Front, LookupTable
from front_examples import fronts, make_front


@given(fronts(), st.floats(allow_nan=False) | st.none(), st.integers(0, 5))
def test_pick_is_the_best_of_those_that_fit(front: Front, budget: float | None, at: int) -> None:
    if budget is None:  # exactly the cost of a point
        budget = front.points[at % len(front.points)].cost
    table = LookupTable(front)
    fitting = [point for point in front.points if point.cost <= budget]
    if fitting:
        expected = max(fitting, key=lambda point: point.convergence)
        picked = table.pick(budget)
        assert picked == table.pick_or_cheapest(budget) and picked.measured
        assert (picked.kept_counts, picked.cost) == (expected.kept_counts, expected.cost)
    else:
        assert table.pick_or_cheapest(budget) == table.cheapest
        assert table.cheapest.kept_counts == front.points[0].kept_counts
        with pytest.raises(BudgetTooSmallError):
            table.pick(budget)


def test_too_small_a_budget_is_refused_with_what_is_needed() -> None:
    message = "budget 99 MACs is too small for front digits: expected at least 100 MACs"
    with pytest.raises(BudgetTooSmallError, match=message):
        LookupTable(make_front()).pick(99)


def test_an_unknown_budget_never_buys_the_dearest_vector() -> None:
    table = LookupTable(make_front())
    assert table.pick_or_cheapest(math.nan) == table.cheapest
    with pytest.raises(BudgetTooSmallError):
        table.pick(math.nan)


def test_pick_halves_the_table_at_each_comparison() -> None:
    # Counts instead of times, which vary with the machine.
    first = make_front().points[0]
    costs = range(100, 1124)
    table = LookupTable(make_front(points=[replace(first, cost=c, convergence=c) for c in costs]))

    class Budget(float):
        comparisons = 0

        def __lt__(self, other: float) -> bool:
            Budget.comparisons += 1
            return super().__lt__(other)

    assert table.pick(Budget(700.5)).cost == 700
    assert 0 < Budget.comparisons <= 11

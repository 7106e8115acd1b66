from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import (
    TABLE,
    BudgetTooSmallError,
    Front,
    LookupTable,
    MemoryTooSmallError,
    memory_text,
    read_memory,
    table_setting,
)
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


def front_with_memory() -> Front:
    front = make_front()
    needs = (30_000_000, 80_000_000, 70_000_000)
    points = [replace(p, memory=m) for p, m in zip(front.points, needs, strict=True)]
    return replace(front, points=tuple(points))


@pytest.mark.parametrize(
    ("budget", "memory", "cost"),
    [(1e9, None, 1600), (1e9, "1GB", 1600), (500, "75MB", 100), (1e9, "75MB", 1600),
     (1e9, "30MB", 100), (500, 80_000_000, 400)],
)  # fmt: skip
def test_no_vector_that_needs_more_memory_than_there_is_is_picked(
    budget: float, memory: str | int | None, cost: float
) -> None:
    front = front_with_memory()
    assert front.lookup(budget, memory=memory).cost == cost
    assert LookupTable(front, memory).pick_or_cheapest(0).cost == 100


def test_vectors_of_a_table_have_memory_of_their_own() -> None:
    vectors, costs = [(4, 2), (6, 3), (8, 4), (16, 8)], [100.0, 200.0, 400.0, 1600.0]
    front = front_with_memory()
    table = table_setting(vectors, costs, lambda counts: 10_000_000 * counts[0])
    front = replace(front, settings={TABLE: table})
    assert front.lookup(1e9, memory="65MB").kept_counts == (6, 3)
    assert front.lookup(1e9).memory == 160_000_000


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    with pytest.raises(MemoryTooSmallError, match=r"memory 1.0 MB .* at least 30.0 MB"):
        front_with_memory().lookup(1e9, memory="1MB")
    with pytest.raises(BudgetTooSmallError, match=r"cheapest vector within 30.0 MB of memory"):
        front_with_memory().lookup(99, memory="30MB")


def test_a_front_that_tells_of_no_memory_gives_none_under_a_limit() -> None:
    with pytest.raises(FrontError, match="found none for 3 of 3; run its search again"):
        make_front().lookup(1e9, memory="1GB")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64MB", 64_000_000),
        ("64 mb", 64_000_000),
        ("1.5GiB", 3 * 2**29),
        ("700", 700),
        (512.0, 512),
    ],
)
def test_memory_is_read_with_its_unit(text: str | float, value: int) -> None:
    assert read_memory(text) == value


@pytest.mark.parametrize("text", ["64 bananas", "0", "-1MB", "", "MB", "nan", "1e9", 0.5, "9" * 30])
def test_what_is_no_memory_is_refused_in_one_line(text: str | float) -> None:
    with pytest.raises(InputError, match="expected 1 byte or more, such as 64MB") as caught:
        read_memory(text)
    assert "\n" not in str(caught.value)


def test_memory_is_written_for_people() -> None:
    assert [*map(memory_text, (None, 5, 5_300, 999_999, 27_400_000, 2_500_000_000))] == [
        "—", "5 B", "5.3 kB", "1,000 kB", "27.4 MB", "2.5 GB",
    ]  # fmt: skip

"""What devices look up: points, vectors between them, and tables of strangers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.cli._console import front_notes
from distreal_dse.errors import FrontError
from distreal_dse.fronts import (
    TABLE,
    Front,
    LookupTable,
    TableFit,
    filled,
    table_fit,
    table_of,
    table_setting,
)
from front_examples import make_front


def price(vectors: Sequence[tuple[int, ...]]) -> list[float]:
    return [float(a * b + a) for a, b in vectors]


def with_table(table: Any) -> Front:
    return make_front(settings={TABLE: table})


def test_without_a_table_devices_use_the_points() -> None:
    front = make_front()
    assert [(one.kept_counts, one.cost, one.measured) for one in table_of(front)] == [
        (point.kept_counts, point.cost, True) for point in front.points
    ]


def test_a_budget_between_points_buys_what_lies_between() -> None:
    points = [(4, 2), (8, 4), (16, 8)]
    vectors = filled(points, price)
    assert set(points) < set(vectors)
    table = table_setting(vectors, price(vectors))
    costs = [one["cost"] for one in table["vectors"]]
    assert costs == sorted(set(costs))
    assert max(dear / cheap for cheap, dear in pairwise(costs)) < 1.4  # the points: 3.3 and 3.6
    lookup = LookupTable(with_table(table))
    between = lookup.pick(100.0)
    assert 40 < between.cost <= 100 and not between.measured
    assert lookup.pick(40.0).kept_counts == (8, 4) and lookup.pick(40.0).measured


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=5, unique=True)
)
def test_nothing_between_two_points_is_outside_of_them(found: list[tuple[int, int]]) -> None:
    points = sorted(found, key=lambda one: price([one])[0])
    points = [b for a, b in pairwise([(0, 0), *points]) if price([a]) < price([b])]
    for counts in filled(points, price):
        assert all(1 <= count <= 40 for count in counts)
        assert price(points[:1]) <= price([counts]) <= price(points[-1:])


def test_a_line_through_vectors_of_a_curve_is_the_curve() -> None:
    full, small = (64, 64), (4, 32)  # 1/16 and 1/2: shares of s and of s^(1/4)
    for first, second in filled([small, full], price):
        assert abs(second - 64 * (first / 64) ** 0.25) <= 1.6


def test_a_table_survives_being_stored() -> None:
    vectors = filled([(4, 2), (16, 8)], price)
    front = with_table(table_setting(vectors, price(vectors), elasticities=[1.0, 0.5]))
    again = Front.from_content(front.content())
    assert table_of(again) == table_of(front) and again.content_hash == front.content_hash


@pytest.mark.parametrize(
    ("kept_counts", "cost"),
    [
        ([17, 8], 10.0),
        ([0, 8], 10.0),
        ([8], 10.0),
        ([8.5, 8], 10.0),
        ([True, 8], 10.0),
        ("88", 10.0),
        ([8, 8], -1.0),
        ([8, 8], 1e400),
        ([8, 8], "dear"),
        ([8, 8], 10**400),
    ],
)
def test_tables_of_strangers_are_checked(kept_counts: Any, cost: Any) -> None:
    front = make_front()
    # As a file would bring it: past the copy that JSON can hold.
    front.settings[TABLE] = {"vectors": [{"kept_counts": kept_counts, "cost": cost}]}  # type: ignore[index]
    with pytest.raises(FrontError, match="expected a table of kept counts within the network"):
        LookupTable(front)


@pytest.mark.parametrize(
    "table",
    [
        3,
        {},
        {"vectors": []},
        {"vectors": 3},
        {"vectors": [{"kept_counts": [1, 1], "cost": 1.0}] * 2},
    ],
)
def test_tables_that_are_none_are_refused(table: Any) -> None:
    with pytest.raises(FrontError, match="expected a table"):
        table_of(replace(make_front(), settings={TABLE: table}))


@pytest.mark.parametrize(
    "table",
    [
        3,
        "elasticities",
        {"elasticities": 1},
        {"vectors": 3, "interval": [0, 1], "unused": 1, "gain": 1},
        {"vectors": [], "interval": [1], "unused": 1, "gain": 1},
        {"vectors": [], "interval": [0, 1], "unused": 10**400, "gain": 1},
    ],
)
def test_what_strangers_say_of_a_fit_is_left_out(table: Any) -> None:
    front = make_front(settings={TABLE: table})
    assert table_fit(front) is None and front_notes(front)


def test_what_a_fit_gains_is_read() -> None:
    stored = {"vectors": [1, 2], "interval": [0.1, 0.5], "unused": 0.01, "gain": 0.3}
    front = make_front(settings={TABLE: stored})
    assert table_fit(front) == TableFit(2, 0.01, 0.3, 0.1, 0.5)
    assert "by 0.30 (0.10 … 0.50, 95% confidence)" in " ".join(front_notes(front))

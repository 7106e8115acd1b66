"""From rates to kept counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.dropout import ChannelGroup, check_counts, kept_counts
from distreal_dse.errors import VectorError

GROUPS = (ChannelGroup("stem", 8, ("stem",)), ChannelGroup("body", 3, ("body", "shortcut")))

rates = st.floats(0, 1, exclude_max=True)
widths = st.integers(1, 4096)


def counted(rate: float, width: int) -> int:
    return kept_counts([rate], [ChannelGroup("layer", width, ("layer",))])[0]


def test_kept_counts_of_a_known_vector() -> None:
    assert kept_counts([0.5, 0.3], GROUPS) == (4, 2)  # 3 · 0.7 = 2.1
    assert kept_counts([0.9, 0.99], GROUPS) == (1, 1)


def test_rate_zero_keeps_everything() -> None:
    assert kept_counts([0.0, 0.0], GROUPS) == (8, 3)


@given(rates, widths)
def test_kept_count_is_the_nearest_integer_and_at_least_one(rate: float, width: int) -> None:
    count = counted(rate, width)
    assert isinstance(count, int)
    assert 1 <= count <= width
    assert abs(count - width * (1 - rate)) <= 0.5 + 1e-9 or count == 1


@given(rates, rates, widths)
def test_larger_rates_never_keep_more(one: float, other: float, width: int) -> None:
    assert counted(max(one, other), width) <= counted(min(one, other), width)


@pytest.mark.parametrize("vector", [[], [0.5], [0.5, 0.5, 0.5]])
def test_vector_of_wrong_length_is_refused(vector: list[float]) -> None:
    with pytest.raises(VectorError, match=rf"{len(vector)} rates.*2 channel groups"):
        kept_counts(vector, GROUPS)


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1, math.nan, math.inf, -math.inf])
def test_rate_outside_its_range_is_refused_by_name_of_the_group(rate: float) -> None:
    with pytest.raises(VectorError, match="group body"):
        kept_counts([0.0, rate], GROUPS)


@pytest.mark.parametrize("counts", [(8,), (8, 3, 1), (0, 3), (9, 3), (8, -1)])
def test_counts_that_do_not_fit_the_groups_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(VectorError):
        check_counts(counts, GROUPS)


def test_counts_that_fit_the_groups_are_returned() -> None:
    assert check_counts([8, 1], GROUPS) == (8, 1)

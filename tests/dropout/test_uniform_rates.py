"""Which kept counts come from one rate for all groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.dropout import ChannelGroup, kept_counts, uniform_rate
from distreal_dse.errors import VectorError

WIDTHS = st.lists(st.integers(1, 64), min_size=1, max_size=6)
GRANULARITIES = st.sampled_from([1, 2, 7, 8, 16, 100])


def groups_of(widths: list[int]) -> list[ChannelGroup]:
    return [ChannelGroup(str(i), width, (str(i),)) for i, width in enumerate(widths)]


@given(WIDTHS, st.integers(0, 996), GRANULARITIES)
def test_counts_of_one_rate_are_uniform_and_the_rate_found_keeps_them(
    widths: list[int], per_mille: int, granularity: int
) -> None:
    # Prime, so that no product is halfway between two counts.
    counts = kept_counts([per_mille / 997] * len(widths), groups_of(widths), granularity)
    rate = uniform_rate(counts, widths, granularity)
    assert rate is not None
    assert kept_counts([rate] * len(widths), groups_of(widths), granularity) == counts


@given(
    WIDTHS.flatmap(lambda w: st.tuples(st.just(w), st.tuples(*(st.integers(1, n) for n in w)))),
    GRANULARITIES,
)
def test_a_rate_is_found_only_where_one_keeps_the_counts(
    case: tuple[list[int], tuple[int, ...]], granularity: int
) -> None:
    widths, counts = case
    rate = uniform_rate(counts, widths, granularity)
    if rate is None:
        tried = {
            kept_counts([step / 4001] * len(widths), groups_of(widths), granularity)
            for step in range(4001)
        }
        assert counts not in tried
    else:
        assert kept_counts([rate] * len(widths), groups_of(widths), granularity) == counts


def test_what_is_uniform_depends_on_the_granularity() -> None:
    assert uniform_rate((8, 16), (32, 32)) is None
    assert uniform_rate((8, 16), (24, 64), 8) is not None  # one rate of about 0.7
    assert uniform_rate((8, 15), (24, 64), 8) is None
    assert uniform_rate((16, 6), (32, 6), 8) is not None  # a narrow group is always whole
    assert uniform_rate((16, 5), (32, 6), 8) is None


def test_a_granularity_below_one_is_refused() -> None:
    with pytest.raises(VectorError, match="granularity of kept counts is 0"):
        uniform_rate((8,), (8,), 0)

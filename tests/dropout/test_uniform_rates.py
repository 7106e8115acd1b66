"""Which kept counts come from one rate for all groups."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.dropout import ChannelGroup, kept_counts, uniform_rate

WIDTHS = st.lists(st.integers(1, 64), min_size=1, max_size=6)


def groups_of(widths: list[int]) -> list[ChannelGroup]:
    return [ChannelGroup(str(i), width, (str(i),)) for i, width in enumerate(widths)]


@given(WIDTHS, st.integers(0, 996))
def test_counts_of_one_rate_are_uniform_and_the_rate_found_keeps_them(
    widths: list[int], per_mille: int
) -> None:
    # Prime, so that no product is halfway between two counts.
    counts = kept_counts([per_mille / 997] * len(widths), groups_of(widths))
    rate = uniform_rate(counts, widths)
    assert rate is not None
    assert kept_counts([rate] * len(widths), groups_of(widths)) == counts


@given(WIDTHS.flatmap(lambda w: st.tuples(st.just(w), st.tuples(*(st.integers(1, n) for n in w)))))
def test_a_rate_is_found_only_where_one_keeps_the_counts(
    case: tuple[list[int], tuple[int, ...]],
) -> None:
    widths, counts = case
    rate = uniform_rate(counts, widths)
    if rate is None:
        tried = {
            kept_counts([step / 4001] * len(widths), groups_of(widths)) for step in range(4001)
        }
        assert counts not in tried
    else:
        assert kept_counts([rate] * len(widths), groups_of(widths)) == counts

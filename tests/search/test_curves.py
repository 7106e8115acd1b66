"""Curves: from a few elasticities to a vector for every budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.dropout import ChannelGroup, allowed_counts, kept_counts
from distreal_dse.search.proposer import CONTROL_POINTS, MOST_VECTORS, CurveSpace

WIDTHS = (16, 16, 32, 32, 64)


def groups(*widths: int) -> list[ChannelGroup]:
    return [ChannelGroup(f"conv{i}", width, (f"conv{i}",)) for i, width in enumerate(widths)]


def test_equal_elasticities_are_one_rate_for_all_layers() -> None:
    found = CurveSpace(groups(*WIDTHS), 1).vectors((1.0,) * 5)
    assert found[-1] == WIDTHS
    shares = np.linspace(0.2, 1, 200).tolist()  # from where two channels are no more the least
    uniform = {kept_counts([1 - share] * 5, groups(*WIDTHS)) for share in shares}
    assert uniform <= set(found)


def test_all_scales_multiplied_leave_the_curve_as_it_is() -> None:
    space = CurveSpace(groups(*WIDTHS), 1)
    assert space.vectors((1.0, 1.5, 1.5, 2.0, 0.1)) == space.vectors((0.5, 0.75, 0.75, 1.0, 0.05))


def test_a_small_elasticity_keeps_a_group_wide() -> None:
    found = CurveSpace(groups(*WIDTHS), 1).vectors((1.0, 1.0, 1.0, 1.0, 0.1))
    quarters = [counts for counts in found if counts[0] == 4]
    # From 3.5 to 4.5 of 16 channels: 64 · 0.22^0.1 to 64 · 0.28^0.1.
    assert quarters and all(54 <= counts[4] <= 57 for counts in quarters)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.lists(st.floats(0.1, 4), min_size=6, max_size=6),
    st.integers(1, 9),
)
def test_every_curve_rises_in_each_group_to_the_full_network(
    widths: list[int], elasticities: list[float], granularity: int
) -> None:
    found = CurveSpace(groups(*widths), granularity).vectors(elasticities[: len(widths)])
    assert found[-1] == tuple(widths) and len(set(found)) == len(found) <= MOST_VECTORS
    for small, large in pairwise(found):
        assert all(a <= b for a, b in zip(small, large, strict=True))
    for counts in found:
        for kept, width in zip(counts, widths, strict=True):
            assert kept in allowed_counts(width, granularity) and kept >= min(2, width)


def test_the_cheapest_keeps_two_channels_of_each_group() -> None:
    space = CurveSpace(groups(*WIDTHS, 1), 1)
    assert space.vectors((0.1, 4, 1, 1, 0.2, 1))[0] == (2, 2, 2, 2, 2, 1)


def test_a_deep_network_has_few_parameters() -> None:
    space = CurveSpace(groups(*[32] * 50), 1)
    assert len(space.distributions) == CONTROL_POINTS
    starts = space.starts()
    assert space.elasticities(starts[0]) == pytest.approx((1.0,) * 50)
    late = space.elasticities(starts[1])
    assert min(late) == late[-1] and np.exp(np.log(late).mean()) == pytest.approx(1)
    assert len(space.vectors(late)) <= MOST_VECTORS


def test_names_of_groups_stand_in_the_parameters() -> None:
    space = CurveSpace(groups(8, 16), 1)
    assert list(space.distributions) == ["elasticity conv0", "elasticity conv1"]
    params = {"elasticity conv0": 2.0, "elasticity conv1": 0.5}
    assert space.elasticities(params) == pytest.approx((2.0, 0.5))


@pytest.mark.parametrize("granularity", [1, 4, 5])
def test_allowed_counts_are_those_that_rates_give(granularity: int) -> None:
    given_by_rates = {
        kept_counts([rate], groups(13), granularity)[0] for rate in np.linspace(0, 0.999, 2000)
    }
    assert set(allowed_counts(13, granularity)) == given_by_rates

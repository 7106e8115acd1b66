from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.dropout import ChannelGroup, kept_counts
from distreal_dse.search import SearchSpace

GROUPS = tuple(ChannelGroup(name, width, (name,)) for name, width in (("a", 6), ("b.c", 64)))
SPACE = SearchSpace(GROUPS, max_rate=0.8)


def test_uniform_parameters_give_one_rate_for_all_groups_from_none_to_the_largest() -> None:
    vectors = [SPACE.rates(params) for params in SPACE.uniform()]
    assert all(one == other for one, other in vectors)
    levels = [rates[0] for rates in vectors]
    assert levels == sorted(set(levels))
    assert levels[0] == 0.0
    assert levels[-1] == pytest.approx(0.8)


def test_the_first_uniform_vector_is_the_full_network() -> None:
    assert kept_counts(SPACE.rates(SPACE.uniform()[0]), GROUPS) == (6, 64)


def test_uniform_parameters_lie_within_the_distributions() -> None:
    for params in SPACE.uniform():
        assert params.keys() == SPACE.distributions.keys()
        for name, value in params.items():
            assert SPACE.distributions[name]._contains(value)


@given(level=st.floats(0, 0.8), offsets=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)))
def test_trials_of_earlier_versions_are_read_as_level_plus_offset_clipped_to_the_range(
    level: float, offsets: tuple[float, float]
) -> None:
    names = ("offset a", "offset b.c")
    rates = SPACE.rates({"level": level, **dict(zip(names, offsets, strict=True))})
    for rate, offset in zip(rates, offsets, strict=True):
        assert 0 <= rate <= 0.8
        if 0 < level + offset < 0.8:
            assert rate == level + offset


@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    granularity=st.sampled_from([1, 2, 4]),
)
def test_points_of_the_cube_stand_for_kept_counts(
    points: list[tuple[float, float]], granularity: int
) -> None:
    space = SearchSpace(GROUPS, max_rate=0.8, granularity=granularity)
    many = np.array(points)
    counts = space.counts_at(many)
    # By the parameters that Optuna stores for the same point, where that is not half-way.
    for point, kept in zip(many, counts.tolist(), strict=True):
        shares = np.exp(np.log(1 - 0.8) * (1 - point))
        found = space.counts(dict(zip(space.distributions, shares.tolist(), strict=True)))
        for share, width, one, other in zip(shares, (6, 64), kept, found, strict=True):
            assert one == other or abs(share * width - (one + other) / 2) < 1e-9
    snapped = space.snapped(many)
    assert (space.counts_at(snapped) == counts).all()
    assert (space.snapped(snapped) == snapped).all()
    assert ((snapped >= 0) & (snapped <= 1)).all()

"""From rates to kept counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from distreal_dse.dropout import (
    ChannelGroup,
    DropoutTrainer,
    DroppableNetwork,
    RandomMasks,
    check_counts,
    kept_counts,
)
from distreal_dse.errors import VectorError
from networks import Plain, inputs_of, targets_of

GROUPS = (ChannelGroup("stem", 8, ("stem",)), ChannelGroup("body", 3, ("body", "shortcut")))

rates = st.floats(0, 1, exclude_max=True)
widths = st.integers(1, 4096)


granularities = st.integers(1, 64)


def counted(rate: float, width: int, granularity: int = 1) -> int:
    return kept_counts([rate], [ChannelGroup("layer", width, ("layer",))], granularity)[0]


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


def test_kept_counts_of_a_known_vector_in_multiples() -> None:
    groups = [ChannelGroup(str(w), w, (str(w),)) for w in (32, 20, 16, 8, 6)]
    assert kept_counts([0.5] * 5, groups, 8) == (16, 8, 8, 8, 6)  # 20 · 0.5 = 10 is nearest to 8
    assert kept_counts([0.1] * 5, groups, 8) == (32, 16, 16, 8, 6)  # 28.8, 18 (to even), 14.4
    assert kept_counts([0.05] * 5, groups, 8) == (32, 20, 16, 8, 6)  # 30.4, 19, 15.2
    assert kept_counts([0.2] * 5, groups, 8) == (24, 16, 16, 8, 6)  # 25.6, 16, 12.8
    assert kept_counts([0.99] * 5, groups, 8) == (8, 8, 8, 8, 6)


@given(rates, widths, granularities)
def test_kept_count_is_the_nearest_multiple_below_the_width_or_the_width(
    rate: float, width: int, granularity: int
) -> None:
    allowed = [*range(granularity, width, granularity), width]
    count = counted(rate, width, granularity)
    assert count in allowed
    wanted = width * (1 - rate)
    assert abs(count - wanted) <= min(abs(other - wanted) for other in allowed) + 1e-9


@given(rates, rates, widths, granularities)
def test_larger_rates_never_keep_more_multiples(
    one: float, other: float, width: int, granularity: int
) -> None:
    more = counted(min(one, other), width, granularity)
    assert counted(max(one, other), width, granularity) <= more


@given(widths, granularities)
def test_every_multiple_below_the_width_and_the_width_can_be_reached(
    width: int, granularity: int
) -> None:
    for count in (*range(granularity, width, granularity), width):
        assert counted(1 - count / width, width, granularity) == count


@given(st.integers(0, 1999), st.integers(1, 1000))
def test_granularity_one_rounds_to_the_nearest_integer_and_halves_to_even(
    step: int, width: int
) -> None:
    rate = step % (2 * width) / (2 * width)  # every half channel
    assert counted(rate, width) == max(1, round(width * (1 - rate)))


@pytest.mark.parametrize("granularity", [0, -8])
def test_a_granularity_below_one_is_refused(granularity: int) -> None:
    with pytest.raises(VectorError, match=f"granularity of kept counts is {granularity}: expected"):
        kept_counts([0.5, 0.5], GROUPS, granularity)


@pytest.mark.parametrize("vector", [{"stem": 0.5, "body": 0.5}, {0.5, 0.25}, "ab", 0.5])
def test_a_vector_without_an_order_is_refused_with_the_order(vector: Any) -> None:
    message = (
        "dropout vector: expected a sequence of rates in the order of the channel groups "
        f"{GROUPS[0].name}, {GROUPS[1].name}, found a {type(vector).__name__}"
    )
    with pytest.raises(VectorError, match=message):
        kept_counts(vector, GROUPS)


@pytest.mark.parametrize("counts", [{"0": 3, "4": 4}, {3, 4}, 3])
def test_kept_counts_without_an_order_are_refused_where_they_are_trained(counts: Any) -> None:
    network = DroppableNetwork(Plain(), inputs_of().float())
    trainer = DropoutTrainer(
        network, torch.optim.SGD(network.module.parameters(), 0.1), functional.cross_entropy,
        RandomMasks(), torch.Generator(),
    )  # fmt: skip
    message = "whole numbers in the order of the channel groups 0, 4, found a "
    with pytest.raises(VectorError, match=message + type(counts).__name__):
        trainer.step(inputs_of().float(), targets_of(), counts)
    as_list: Any = [3, 4]
    assert network.subnetwork(as_list) is network.subnetwork((3, 4))

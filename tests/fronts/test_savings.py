"""What vectors save, held against made-up truths that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from distreal_dse.errors import FrontError
from distreal_dse.fronts import (
    MeasuredVector,
    equal_cost_of,
    mean_gain,
    mean_saving,
    savings,
    verdict_of,
)
from front_examples import make_front

REPLICATES = 8
NOISE = 0.03


def curve(cost: float) -> float:
    """What one rate gains at a share of the full cost: flat at both ends."""
    return 0.9 / (1 + math.exp(-1.3 * (math.log(cost) + 3)))


def search(seed: int, saves: Callable[[float], float], searched: int = 15) -> list[MeasuredVector]:
    """A search in which a vector gains what one rate does at ``saves(cost)`` times its cost."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, NOISE, REPLICATES)  # what data orders do to all vectors alike

    def measured(cost: float, truth: float, uniform: bool) -> MeasuredVector:
        gains = truth + shared + random.normal(0, NOISE, REPLICATES)
        return MeasuredVector((1,), cost, tuple(gains.tolist()), uniform)

    family = [measured(cost, curve(cost), True) for cost in np.geomspace(0.017, 1, 14).tolist()]
    costs = np.exp(random.uniform(math.log(0.017), 0, searched)).tolist()
    return family + [measured(cost, curve(cost * saves(cost)), False) for cost in costs]


def test_nothing_is_claimed_where_there_is_nothing() -> None:
    claims = sum(
        any(one.pays for one in savings(search(seed, lambda cost: 1.0))) for seed in range(200)
    )
    assert claims <= 10  # 5 %


def test_intervals_hold_the_truth_for_all_vectors_at_once() -> None:
    wrong = 0
    for seed in range(200):
        found = savings(search(seed, lambda cost: 2.0))
        wrong += any(
            not one.at_least <= 2 * one.vector.cost <= one.at_most
            for one in found
            if 2 * one.vector.cost <= 1
        )
    assert wrong <= 10


def test_a_large_saving_is_found() -> None:
    found = savings(search(0, lambda cost: 3.0))
    cheap = [one for one in found if one.vector.cost < 0.1]
    assert all(one.pays and 2 < one.ratio < 4.5 for one in cheap)


def test_what_gains_as_much_as_cheaper_ones_does_not_pay() -> None:
    assert not any(one.pays for one in savings(search(0, lambda cost: 0.5)))


def test_what_all_runs_share_does_not_matter() -> None:
    vectors = search(3, lambda cost: 1.6)
    shifts = np.random.default_rng(9).normal(0, 10, REPLICATES)
    shifted = [
        MeasuredVector(v.kept_counts, v.cost, tuple(np.add(v.gains, shifts).tolist()), v.uniform)
        for v in vectors
    ]
    before, after = savings(vectors), savings(shifted)
    assert [one.at_least for one in before] == [one.at_least for one in after]
    assert [one.at_most for one in before] == [one.at_most for one in after]


def test_vectors_come_by_rising_cost() -> None:
    costs = [one.vector.cost for one in savings(search(4, lambda cost: 1.0))]
    assert costs == sorted(costs) and len(costs) == 15


def test_the_cost_of_an_equal_gain_lies_between_neighbours() -> None:
    gains = {0.01: 0.0, 0.1: 1.0, 0.5: 0.5, 1.0: 2.0}  # the third is dominated
    family = [MeasuredVector((1,), cost, (gain, gain), True) for cost, gain in gains.items()]
    reach = equal_cost_of(family)
    assert reach(0.5) == pytest.approx(10**-1.5)
    assert reach(1.5) == pytest.approx(10**-0.5)
    assert (reach(-1), reach(3)) == pytest.approx((0.01, 1.0))


@pytest.mark.parametrize("saved", [0.6, 1.0, 2.0])
def test_the_mean_saving_is_that_of_the_truth(saved: float) -> None:
    outside = 0
    for seed in range(20):
        found = mean_saving(search(seed, lambda cost: saved, searched=30), 1.0, resamples=200)
        assert found.low <= found.ratio <= found.high
        # One rate is among what may be chosen, so that the mean is never far below 1.
        outside += not found.low <= max(saved, 1.0) * 1.1 or not found.high >= max(saved, 1.0) * 0.9
    assert outside <= 2


def test_one_rate_alone_saves_nothing() -> None:
    family = [one for one in search(0, lambda cost: 1.0) if one.uniform]
    found = mean_saving(family, 1.0)
    assert (found.ratio, found.low, found.high) == (1, 1, 1)
    assert savings(family) == ()


@pytest.mark.parametrize("saved", [1.0, 2.0])
def test_the_mean_gain_is_that_of_the_truth(saved: float) -> None:
    budgets = np.exp(np.linspace(math.log(0.017), 0, 200))
    truth = np.mean([curve(min(cost * saved, 1.0)) - curve(cost) for cost in budgets])
    outside = 0
    for seed in range(20):
        found = mean_gain(
            search(seed, lambda cost: min(saved, 1 / cost), searched=40), 1.0, resamples=200
        )
        assert found.low <= found.difference <= found.high
        # What is taken for not dominated by chance gains a little less than the best: hence 0.01.
        outside += not found.low - 0.01 <= truth <= found.high + 0.01
        assert found.uniform == pytest.approx(np.mean([*map(curve, budgets)]), abs=0.05)
    assert outside <= 2


def test_one_rate_alone_has_no_gain_over_itself() -> None:
    found = mean_gain([one for one in search(0, lambda cost: 1.0) if one.uniform], 1.0)
    assert found.own == found.uniform > 0
    assert (found.low, found.high) == (0, 0)


def test_vectors_that_harm_add_nothing_to_the_mean_gain() -> None:
    harms = MeasuredVector((1,), 0.1, (-3.0, -3.0), True)
    useful = MeasuredVector((2,), 1.0, (1.0, 1.0), True)
    assert 0 < mean_gain([harms, useful], 1.0).own < 0.25


def test_replicates_that_are_no_pairs_are_refused() -> None:
    one, other = (MeasuredVector((1,), 1.0, gains, True) for gains in ((0.1, 0.2), (0.1, 0.2, 0.3)))
    with pytest.raises(FrontError, match="replicates 2, 3"):
        savings([one, other])
    with pytest.raises(FrontError, match="vectors of one rate"):
        savings([MeasuredVector((1,), 1.0, (0.1, 0.2), False)])


@pytest.mark.parametrize(
    "change",
    [{"cost": 0.0}, {"cost": -1.0}, {"cost": 10**400}, {"gains": [1e308, 1e308]}, {"gains": "ab"}],
)
def test_what_strangers_say_of_their_runs_is_left_out(change: dict[str, object]) -> None:
    one: dict[str, object] = {
        "kept_counts": [1, 1], "cost": 1.0, "gains": [0.1, 0.2], "uniform": True,
    }  # fmt: skip
    dear = {**one, "cost": 1.5, "uniform": False}
    assert verdict_of(make_front(settings={"verification": [one, dear]})) is not None
    assert verdict_of(make_front(settings={"verification": [{**one, **change}, dear]})) is None

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

import pytest

from dashboards.findings import (
    TrialPoint,
    accuracy_finding,
    counted,
    front_finding,
    least_uniform_cost,
    moment,
    percent,
    savings,
    si_prefix,
    uniform_family,
)
from distreal_dse.fronts import Front, FrontPoint
from fl.runs import Run
from front_examples import make_front


def vector(cost: float, gain: float, error: float = 0.0) -> FrontPoint:
    return FrontPoint((0.5, 0.25), (8, 6), cost, gain, error, 8, 0.5, uniform=False)


def uniform(cost: float, gain: float, error: float = 0.0) -> TrialPoint:
    return TrialPoint(cost, gain, uniform=True, standard_error=error)


FAMILY = (uniform(100, 0.2), uniform(400, 0.6), uniform(1600, 1.0))


@pytest.mark.parametrize(
    ("gain", "cost"),
    # Halfway between two points in gain is halfway in the logarithm of the cost.
    [(0.1, 0.0), (0.2, 0.0), (0.4, 200.0), (0.6, 400.0), (0.8, 800.0), (1.0, 1600.0), (1.1, inf)],
)
def test_the_family_needs_the_cost_at_which_its_line_reaches_the_gain(
    gain: float, cost: float
) -> None:
    assert least_uniform_cost(vector(50, gain), FAMILY) == pytest.approx(cost)


def test_the_family_may_be_two_standard_errors_of_the_difference_below() -> None:
    family = (uniform(100, 0.2, 0.03), uniform(400, 0.6, 0.03), uniform(1600, 1.0, 0.03))
    exact = least_uniform_cost(vector(50, 0.8 - 2 * sqrt(0.03**2 + 0.04**2)), FAMILY)
    assert least_uniform_cost(vector(50, 0.8, 0.04), family) == pytest.approx(exact)


def test_a_family_that_falls_again_is_read_at_its_first_crossing() -> None:
    family = (uniform(100, 0.2), uniform(400, 0.6), uniform(900, 0.5), uniform(1600, 1.0))
    assert least_uniform_cost(vector(50, 0.55), family) < 400


def test_no_family_bounds_nothing() -> None:
    assert least_uniform_cost(vector(50, 0.5), ()) == 0.0


def test_the_finding_names_the_greatest_saving(searched: Front) -> None:
    # 0.6 is halfway from 0.4 at 10 % to 0.8 at 40 %: 20 %, 4 times 5 %. 0.9 is reached at 63 %.
    assert front_finding(searched) == (
        "At 5% of the training cost a searched vector gains 0.60; "
        "one rate for all layers needs at least 20%"
    )
    assert savings(searched) == 2


def test_the_finding_uses_uniform_trials_where_the_front_has_no_family(searched: Front) -> None:
    bare = make_front(points=searched.points, settings={})
    trials = [uniform(40, 0.1), uniform(640, 1.1), TrialPoint(1.0, 9.0, uniform=False)]
    assert [point.cost for point in uniform_family(bare, trials)] == [40, 640]
    # 40 · 16^0.5 = 160
    assert front_finding(bare, trials).endswith("needs at least 10%")


def test_noise_is_no_finding(searched: Front) -> None:
    points = (vector(80, 0.6, 0.3), vector(800, 0.9, 0.3))
    front = make_front(points=points, settings=searched.settings)
    assert front_finding(front) == (
        "No searched vector beats one rate for all layers by more than the noise"
    )
    assert savings(front) == 0


def test_a_gain_out_of_reach_is_said_so(searched: Front) -> None:
    front = make_front(points=(vector(80, 1.5),), settings=searched.settings)
    assert front_finding(front).endswith(
        "no single rate for all layers that was tried gains as much"
    )


@pytest.mark.parametrize("settings", [{}, {"uniform family": 3}, {"uniform family": [{"cost": 1}]}])
def test_without_a_family_the_finding_describes_the_front(settings: dict[str, object]) -> None:
    front = make_front(points=(vector(80, 0.6), vector(800, 0.9)), settings=settings)
    assert front_finding(front) == "2 dropout vectors from 5% to 50% of the training cost"


def test_a_front_of_uniform_vectors_alone_claims_nothing() -> None:
    assert front_finding(make_front()) == (
        "3 dropout vectors from 6.2% to 100% of the training cost"
    )


def test_runs_are_compared_at_the_time_all_have_reached(make_run: Callable[..., Run]) -> None:
    runs = [
        make_run(1, (0.1, 0.6, 0.3)),
        make_run(2, (0.1, 0.5), strategy="heterofl", front_label=None),
        make_run(3, (0.1, None)),
    ]
    assert accuracy_finding(runs[:2]) == (
        "After 2 virtual seconds distreal · digits@1 · run 1 has an accuracy of 60.0%, "
        "the other 50.0%"
    )
    assert "After 0 virtual seconds" in accuracy_finding(runs)
    assert accuracy_finding([make_run(1, (None,))]) == "No round was evaluated"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (0.0004, "0.04%"),
        (0.0416, "4.2%"),
        (0.0996, "10%"),
        (0.157, "16%"),
        (1, "100%"),
    ],
)
def test_shares_are_short(share: float, text: str) -> None:
    assert percent(share) == text


def test_one_of_a_thing_is_not_many() -> None:
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("2026-01-31T12:00:00+00:00", "31 Jan 2026, 12:00 UTC"),
        ("2026-02-01T01:30:59.5+02:00", "31 Jan 2026, 23:30 UTC"),
        ("2026-01-31T12:00:00", "31 Jan 2026, 12:00 UTC"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_for_people(stored: str, shown: str) -> None:
    assert moment(stored) == shown


@pytest.mark.parametrize(
    ("largest", "prefix"),
    [(0.0, ""), (999.0, ""), (1e3, "k"), (7e8, "M"), (1e9, "G"), (2e12, "T"), (5e16, "P")],
)
def test_the_largest_value_has_one_to_three_digits_before_its_point(
    largest: float, prefix: str
) -> None:
    factor, sign = si_prefix(largest)
    assert sign == prefix and (largest / factor < 1000 or prefix == "P")

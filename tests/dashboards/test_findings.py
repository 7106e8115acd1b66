from __future__ import annotations

from collections.abc import Callable

import pytest

from dashboards.findings import (
    TrialPoint,
    accuracy_finding,
    counted,
    front_finding,
    moment,
    percent,
    si_prefix,
    uniform_family,
)
from distreal_dse.fronts import Front, MeasuredVector, verification_setting
from fl.store.runs import Run
from front_examples import make_front


def uniform(cost: float, gain: float) -> TrialPoint:
    return TrialPoint(cost, gain, uniform=True, standard_error=0.0)


FAMILY = {100: 0.2, 200: 0.4, 400: 0.6, 800: 0.8, 1600: 1.0}


def verified(searched: dict[float, float], family: dict[float, float] = FAMILY) -> Front:
    """A front whose settings hold verified runs: of one rate, and of searched vectors by cost."""
    shift = [0.01, -0.02, 0.0, 0.01]
    vectors = [
        MeasuredVector((8, 6), cost, tuple(gain + 0.001 * cost**0.1 * one for one in shift), own)
        for own, gains in ((True, family), (False, searched))
        for cost, gain in gains.items()
    ]
    return make_front(settings={"verification": verification_setting(vectors)})


def test_the_finding_names_the_greatest_certain_saving() -> None:
    assert front_finding(verified({80: 0.6, 800: 0.9})) == (
        "At 5% of the full cost a vector gains what one rate for all layers needs 25% for, "
        "and certainly more than 12%"
    )


def test_a_vector_that_harms_is_not_named_where_another_one_helps() -> None:
    family = {100: -0.8, 200: -0.6, 400: 0.0, 800: 0.5, 1600: 1.0}
    named = front_finding(verified({80: -0.1, 300: 0.6}, family))
    assert named.startswith("At 19% of the full cost")  # 80 saves five times as much
    assert front_finding(verified({80: -0.1}, family)).startswith("At 5% of the full cost")


def test_what_is_not_certain_is_no_finding() -> None:
    assert front_finding(verified({80: 0.1, 800: 0.7})) == (
        "No vector was shown to be better than one rate for all layers"
    )


@pytest.mark.parametrize(
    "settings", [{}, {"verification": 3}, {"verification": [{"cost": 1}]}, {"verification": []}]
)
def test_without_verified_runs_the_finding_describes_the_front(settings: dict[str, object]) -> None:
    assert front_finding(make_front(settings=settings)) == (
        "3 dropout vectors from 6.2% to 100% of the training cost"
    )


def test_uniform_trials_stand_in_where_the_front_has_no_family() -> None:
    trials = [uniform(40, 0.1), uniform(640, 1.1), TrialPoint(1.0, 9.0, uniform=False)]
    bare = make_front(settings={})
    assert [point.cost for point in uniform_family(bare, trials)] == [40, 640]


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

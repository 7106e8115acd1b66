"""Which rates and schedules strategies are tried with, and how ranges are widened, by hand."""

from __future__ import annotations

import pytest

from distreal_dse.errors import InputError
from fl.compare.candidates import (
    WIDENINGS,
    Candidate,
    Ranges,
    Tuned,
    around,
    candidates,
    check_rates,
    check_schedules,
    first_ranges,
    widened,
)

RATES = (0.1, 0.2, 0.4)
BOTH = ("constant", "cosine:end=0.1")


def outcome(strategy: str, ranges: Ranges, best: dict[str | None, float]) -> Tuned:
    """A strategy that is best with these rates, by schedule."""
    pairs = candidates(strategy, ranges, [key for key in ranges if key is not None])
    tried = {one: (0.5 + 0.3 * (best.get(one.schedule) == one.rate), 0.5) for one in pairs}
    return Tuned(strategy, pairs, tried)


def test_a_candidate_is_a_setting_of_the_strategy() -> None:
    pair = Candidate(0.05, "cosine:end=0.1:warmup=2")
    assert pair.of("small") == "small:lr=0.05,schedule=cosine:end=0.1:warmup=2"
    assert pair.of("nested:levels=2") == (
        "nested:levels=2,lr=0.05,schedule=cosine:end=0.1:warmup=2"
    )
    assert Candidate(None).of("small") == "small"


def test_strategies_keep_what_they_have_of_their_own() -> None:
    strategies = ("small", "small:lr=0.3", "small:schedule=constant", "nested:levels=2")
    ranges = first_ranges(strategies, RATES, BOTH)
    assert ranges == dict.fromkeys((*BOTH, None), RATES)
    everything = tuple(Candidate(rate, schedule) for schedule in BOTH for rate in RATES)
    assert candidates("small", ranges, BOTH) == everything
    assert candidates("nested:levels=2", ranges, BOTH) == everything
    assert candidates("small:lr=0.3", ranges, BOTH) == tuple(Candidate(None, one) for one in BOTH)
    assert candidates("small:schedule=constant", ranges, BOTH) == tuple(map(Candidate, RATES))
    assert candidates("small:lr=0.3,schedule=constant", ranges, BOTH) == ()
    alone = first_ranges(("small", "small:lr=0.3"), RATES, ())
    assert alone == {None: RATES}
    assert candidates("small", alone, ()) == tuple(map(Candidate, RATES))
    assert candidates("small:lr=0.3", alone, ()) == ()


def test_the_best_is_that_of_the_highest_mean_over_seeds() -> None:
    low, middle, high = map(Candidate, RATES)
    lucky = {low: (0.5, 0.5), middle: (0.6, 0.6), high: (0.9, 0.2)}
    tuned = Tuned("small", (low, middle, high), lucky)
    assert tuned.best == middle and tuned.at_best == "small:lr=0.2" and tuned.further is None
    equal = Tuned("small", (low, middle, high), {middle: (0.5, 0.5), high: (0.6, 0.4)})
    assert equal.best == middle
    nothing = Tuned("small", (low, middle, high), {})
    assert (nothing.best, nothing.at_best, nothing.further) == (None, "small", None)


@pytest.mark.parametrize(
    ("tried", "further"),
    [
        ({0.1: 0.5, 0.2: 0.6, 0.4: 0.5}, None),
        ({0.1: 0.5, 0.2: 0.6}, None),  # 0.4 failed
        ({0.1: 0.5, 0.4: 0.6}, "higher"),
        ({0.1: 0.6, 0.4: 0.6}, "lower"),
        ({}, None),
    ],
)
def test_a_best_rate_at_the_end_of_those_asked_for_is_told(
    tried: dict[float, float], further: str | None
) -> None:
    by_pair = {Candidate(rate): (found, found) for rate, found in tried.items()}
    assert Tuned("small", tuple(map(Candidate, RATES)), by_pair).further == further


def test_all_get_the_rates_that_any_of_them_needs() -> None:
    first = first_ranges(("a", "b"), RATES, ())
    inside = outcome("a", first, {None: 0.2})
    assert widened(first, first, [inside, inside]) == first
    up, down = outcome("b", first, {None: 0.4}), outcome("c", first, {None: 0.1})
    assert widened(first, first, [inside, up]) == {None: (*RATES, 0.8)}
    assert widened(first, first, [down, inside, up]) == {None: (0.05, *RATES, 0.8)}


def test_the_ratio_is_that_of_the_rates_at_that_end() -> None:
    first: Ranges = {None: (0.03, 0.1, 0.3, 0.6)}
    ends = [outcome("a", first, {None: 0.03}), outcome("a", first, {None: 0.6})]
    assert widened(first, first, ends) == {None: (0.009, 0.03, 0.1, 0.3, 0.6, 1.2)}
    close: Ranges = {None: (0.1, 0.1001)}
    (wider,) = widened(close, close, [outcome("a", close, {None: 0.1001})]).values()
    assert wider[-1] == pytest.approx(0.1001**2 / 0.1) and len(wider) == 3


def test_each_schedule_is_tried_beyond_its_own_best() -> None:
    first = first_ranges(("a",), RATES, BOTH)
    found = outcome("a", first, {"constant": 0.2, BOTH[1]: 0.4})
    assert widened(first, first, [found]) == {"constant": RATES, BOTH[1]: (*RATES, 0.8)}


def test_ranges_are_widened_so_far_and_no_further() -> None:
    first = first_ranges(("a",), RATES, ())
    ranges = first
    for _ in range(10):
        rates = ranges[None]
        ranges = widened(
            ranges, first, [outcome("a", ranges, {None: end}) for end in (rates[0], rates[-1])]
        )
    assert WIDENINGS == 3
    assert ranges == {None: (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)}
    assert outcome("a", ranges, {None: 3.2}).further == "higher"


def test_numbers_end_somewhere() -> None:
    for rates, best in (((1e-300, 1.0), 1e-300), ((1.0, 1e300), 1e300)):
        first: Ranges = {None: rates}
        assert widened(first, first, [outcome("a", first, {None: best})]) == first


def test_rates_around_one_have_few_digits() -> None:
    assert around(0.05) == (0.0167, 0.05, 0.15)
    assert around(0.012345) == (0.00411, 0.012345, 0.037)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.1,), "expected auto, or two or more to choose from, found 1"),
        ((0.1, 0.1), "expected auto, or two or more to choose from, found 1"),
        ((0.1, 0.0), "learning rates: expected finite numbers above 0 such as 0.05, found 0"),
        ((0.1, float("inf")), "above 0 such as 0.05, found inf"),
        ((0.1, float("nan")), "above 0 such as 0.05, found nan"),
    ],
)
def test_rates_that_leave_no_choice_are_refused(rates: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_rates(rates)


def test_schedules_that_leave_no_choice_are_refused() -> None:
    assert check_schedules(()) == ()
    assert check_schedules(["constant", "cosine:end=0.1,warmup=2"]) == (
        "constant",
        "cosine:end=0.1:warmup=2",
    )
    with pytest.raises(InputError, match="expected two or more .* a single one is --schedule cos"):
        check_schedules(["cosine", "cosine"])
    with pytest.raises(InputError, match="did you mean cosine"):
        check_schedules(["constant", "cosin"])

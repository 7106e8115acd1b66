"""Settled accuracy: by hand, and of runs that virtual time ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from fl.compare.comparison import compare
from fl.compare.paired import paired_differences
from fl.compare.settled import settled, settled_accuracy, settled_by_class, settled_of
from fl.compare.summaries import summarise
from fl.results import RoundResult
from fl.store.specs import RunSpec
from fl.world.deadlines import RoundRules


def curve(*points: tuple[float, float | None]) -> list[RoundResult]:
    """Virtual seconds and accuracy of each round, from round 0."""
    return [RoundResult(number, *point, loss=None) for number, point in enumerate(points)]


def test_equal_rounds_count_equally() -> None:
    rounds = curve(*((float(number), number / 10) for number in range(9)))
    assert [(one.round, share) for one, share in settled(rounds)] == [(7, 0.5), (8, 0.5)]
    assert settled_accuracy(rounds) == pytest.approx(0.75)


def test_evaluations_count_by_the_time_since_the_one_before() -> None:
    # The last quarter is (12, 16]: one second of the first round, then one of 1 s and one of 2 s.
    rounds = curve((0, 0.1), (9, 0.9), (13, 0.4), (13.5, None), (14, 0.6), (16, 0.8))
    assert [(one.round, share) for one, share in settled(rounds)] == [
        (2, 0.25), (4, 0.25), (5, 0.5),
    ]  # fmt: skip
    assert settled_accuracy(rounds) == pytest.approx(0.25 * 0.4 + 0.25 * 0.6 + 0.5 * 0.8)


def test_many_short_rounds_weigh_no_more_than_few_long_ones() -> None:
    few = curve((0, 0.1), (8, 0.5), (14, 0.5), (16, 0.9))
    many = curve((0, 0.1), (8, 0.5), (14, 0.5), *((14 + i / 4, 0.9) for i in range(1, 9)))
    assert settled_accuracy(few) == pytest.approx(0.7) == settled_accuracy(many)


def test_what_comes_behind_the_end_does_not_count() -> None:
    rounds = curve((0, 0.1), (5, 0.3), (9, 0.5), (30, 0.9))
    assert settled_accuracy(rounds) == 0.9
    assert settled_accuracy(rounds, until=10) == 0.5
    assert settled_accuracy(rounds, until=30) == 0.9  # it comes just in time
    assert settled_accuracy(rounds, until=20) == 0.5  # the newest there was at that time
    assert settled_accuracy(rounds, until=100) == 0.9  # rounds ended it


def test_the_untrained_network_counts_if_there_is_nothing_else() -> None:
    rounds = curve((0, 0.1), (5, None), (12, 0.7))
    assert settled_accuracy(rounds[:1]) == settled_accuracy(rounds[:2]) == 0.1
    assert settled_accuracy(rounds, until=10) == 0.7
    assert settled_accuracy(curve((0, 0.1), (0, 0.2))) == 0.2  # rounds that took no time


def test_strategies_are_compared_over_the_same_virtual_time(
    database: Engine, spec: RunSpec
) -> None:
    specs = [
        replace(
            spec,
            front=None,
            strategy=one,
            seed=seed,
            rounds=200,
            until=0.004,
            availability="constant",
            rules=RoundRules(deadline=1.0),
        )
        for one in ("fedavg", "small")
        for seed in (0, 1)
    ]
    runs = compare(database, "c", specs)
    assert len({len(run.rounds) for run in runs}) > 1
    for run in runs:
        assert run.until == 0.004 < run.rounds[-1].virtual_seconds
        found = settled(run.rounds, run.until)
        # All of them are in the quarter, and the first stands for a part of its round.
        in_time = [one for one in run.rounds if 0.003 < one.virtual_seconds <= 0.004]
        assert [one for one, _ in found] == in_time
        assert sum(share for _, share in found) == pytest.approx(1)
        whole = in_time[-1].virtual_seconds - 0.003
        assert found[0][1] == pytest.approx((in_time[0].virtual_seconds - 0.003) / whole)
        for name, accuracy in settled_by_class(run).items():
            by_hand = sum(one.accuracy_by_class[name] * share for one, share in found)
            assert accuracy == pytest.approx(by_hand)
    assert any(settled_of(run) != settled_accuracy(run.rounds) for run in runs)
    (fedavg, small), _ = summarise(runs)
    assert fedavg.settled_accuracy.mean == pytest.approx(sum(map(settled_of, runs[:2])) / 2)
    (difference,) = paired_differences(runs, "fedavg")
    assert difference.settled_accuracy.mean == pytest.approx(
        small.settled_accuracy.mean - fedavg.settled_accuracy.mean
    )

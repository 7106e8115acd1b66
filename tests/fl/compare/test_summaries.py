"""Figures of a comparison, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fl.compare.summaries import (
    accuracy_at,
    estimate,
    seconds_to,
    summarise,
)
from fl.results import RoundResult
from fl.store.runs import Run


def rounds(*curve: tuple[float, float | None], macs: float = 10.0) -> tuple[RoundResult, ...]:
    """Virtual seconds and accuracy of each round; two devices each, one of which misses."""
    return tuple(
        RoundResult(
            round=number,
            virtual_seconds=seconds,
            accuracy=accuracy,
            loss=None,
            training_macs=macs * (number > 0),
            cohort=(0, 1) if number else (),
            wasted_macs=macs / 4 * (number > 0),
            missed=int(number > 0),
            bytes_down=100 * (number > 0),
            bytes_up=50 * (number > 0),
            accuracy_by_class={} if accuracy is None else {"weak": accuracy / 2},
        )
        for number, (seconds, accuracy) in enumerate(curve)
    )


def run(strategy: str, seed: int, curve: tuple[RoundResult, ...]) -> Run:
    return Run(
        id=seed,
        study="noise",
        strategy=strategy,
        front_label=None,
        front_hash=None,
        model_fingerprint="abc",
        seed=seed,
        settings={},
        created_at="",
        finished=True,
        comparison="c",
        rounds=curve,
    )


CURVE = rounds((0.0, 0.1), (2.0, 0.5), (4.0, None), (6.0, 0.4), (8.0, 0.8))


def test_the_time_to_an_accuracy_is_that_of_the_first_evaluation_that_reaches_it() -> None:
    assert seconds_to(CURVE, 0.5) == 2.0
    assert seconds_to(CURVE, 0.51) == 8.0
    assert seconds_to(CURVE, 0.9) is None


def test_the_accuracy_at_a_time_is_that_of_the_last_evaluation_before_it() -> None:
    assert [accuracy_at(CURVE, t) for t in (0.0, 1.9, 5.0, 6.0, math.inf)] == [
        0.1, 0.1, 0.5, 0.4, 0.8,
    ]  # fmt: skip


def test_confidence_intervals_are_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    # t(0.975, 2) = 4.302653 (any table), standard error 1 / √3.
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert math.isnan(estimate([1.0]).low)


def test_a_summary_by_hand() -> None:
    short = rounds((0.0, 0.1), (3.0, 0.3), (5.0, 0.6), macs=4.0)
    runs = [run("a", 1, CURVE), run("b", 1, short), run("a", 0, CURVE)]
    (a, b), target = summarise(runs)
    assert target == pytest.approx(0.72)  # 90 % of 0.8
    assert (a.strategy, a.seeds, b.strategy, b.seeds) == ("a", (0, 1), "b", (1,))
    assert a.final_accuracy.mean == 0.8 and a.final_accuracy.low == pytest.approx(0.8)
    assert a.settled_accuracy.mean == 0.8  # of round 4 of 4
    assert b.settled_accuracy.mean == 0.6  # of round 2 of 2
    assert a.accuracy_in_time.mean == 0.5  # at 5 s, when the shortest run ended
    assert b.accuracy_in_time.mean == 0.6
    assert a.accuracy_by_class["weak"].mean == 0.4
    assert a.seconds_to_target is not None and a.seconds_to_target.mean == 8.0
    assert b.seconds_to_target is None and b.target_reached == 0
    assert a.training_macs.mean == 40.0 and a.wasted_share.mean == 0.25
    assert a.transferred_bytes.mean == 600.0 and a.missed_share.mean == 0.5
    (_, b), _ = summarise(runs, target=0.3)
    assert b.seconds_to_target is not None and b.seconds_to_target.mean == 3.0


def test_a_seed_counts_once() -> None:
    short = run("small", 0, CURVE[:2])
    twice = [short, run("small", 0, CURVE), run("small", 1, CURVE)]
    found, _ = summarise(twice, 0.5)
    assert found == summarise(twice[1:], 0.5)[0]
    assert found[0].seeds == (0, 1)
    begun = replace(run("small", 0, CURVE), finished=False)
    assert summarise([begun, short], 0.5)[0][0].virtual_seconds.mean == 2.0


def test_runs_that_are_not_finished_are_left_out_and_counted() -> None:
    finished = [run("a", 0, CURVE), run("a", 1, CURVE), run("b", 0, CURVE)]
    just_begun = replace(run("b", 1, CURVE[:1]), finished=False)
    another = replace(run("c", 0, CURVE[:2]), finished=False)
    found, target = summarise([*finished, just_begun, another])
    alone, target_alone = summarise(finished)
    assert target == target_alone
    assert [replace(one, unfinished=0) for one in found] == alone
    assert [(one.strategy, one.seeds, one.unfinished) for one in found] == [
        ("a", (0, 1), 0),
        ("b", (0,), 1),
    ]
    assert found[0].accuracy_in_time.mean == 0.8  # not that of round 0, which all have reached


def test_where_no_run_is_finished_all_are_taken_as_far_as_they_are() -> None:
    begun = [replace(one, finished=False) for one in (run("a", 0, CURVE), run("b", 0, CURVE[:2]))]
    (a, b), _ = summarise(begun)
    assert (a.unfinished, b.unfinished) == (1, 1)
    assert a.accuracy_in_time.mean == b.accuracy_in_time.mean == 0.5

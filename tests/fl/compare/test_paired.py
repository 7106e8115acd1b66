"""Differences that are paired by seed, against Student's formula done by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from distreal_dse.errors import InputError
from fl.compare.paired import paired_differences, reference_strategy
from fl.results import RoundResult
from fl.store.runs import Run

BASE = (0.50, 0.70, 0.90)  # seeds differ far more than strategies do


def finished_run(strategy: str, seed: int, accuracy: float) -> Run:
    return Run(
        id=1, study="digits", strategy=strategy, front_label=None, front_hash=None,
        model_fingerprint="abc", seed=seed, settings={}, created_at="2026-01-31T12:00:00+00:00",
        finished=True, comparison="c", rounds=(RoundResult(1, 1.0, accuracy, 0.5),),
    )  # fmt: skip


def compared(**accuracies: tuple[float, ...]) -> list[Run]:
    return [
        finished_run(name, seed, accuracy)
        for name, by_seed in accuracies.items()
        for seed, accuracy in enumerate(by_seed)
    ]


def test_what_a_seed_does_to_all_cancels() -> None:
    runs = compared(small=BASE, other=(0.52, 0.73, 0.92))
    (one,) = paired_differences(runs, "small")
    assert one.seeds == (0, 1, 2) and one.against == "small"
    found = one.settled_accuracy
    half = 4.302653 * math.sqrt((0.01**2) / 3 / 3)  # t(2); 0.02, 0.03, 0.02: variance 1/3 · 0.01²
    assert found.mean == pytest.approx(0.07 / 3)
    assert (found.low, found.high) == pytest.approx((0.07 / 3 - half, 0.07 / 3 + half), rel=1e-5)
    assert one.verdict == "ahead"


def test_intervals_hold_for_all_differences_together() -> None:
    alone = paired_differences(compared(small=BASE, a=(0.52, 0.73, 0.92)), "small")[0]
    many = paired_differences(
        compared(small=BASE, a=(0.52, 0.73, 0.92), b=BASE, c=BASE, d=BASE), "small"
    )[0]
    widths = [one.settled_accuracy.high - one.settled_accuracy.low for one in (alone, many)]
    assert widths[1] == pytest.approx(widths[0] * 8.860 / 4.302653, rel=1e-3)  # t(2) at 1 − 0.025/4


def test_who_was_chosen_as_the_best_is_held_to_all_pairs() -> None:
    runs = compared(small=BASE, a=(0.52, 0.73, 0.92), b=BASE, c=BASE)
    fixed, chosen = (
        next(one for one in paired_differences(runs, "a", by_outcome=by) if one.strategy == "b")
        for by in (False, True)
    )
    widths = [one.settled_accuracy.high - one.settled_accuracy.low for one in (fixed, chosen)]
    # Three differences to the one, six pairs: t(2) at 1 − 0.025/3 and at 1 − 0.025/6.
    assert widths[1] == pytest.approx(widths[0] * 10.8859 / 7.6488, rel=1e-3)


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.40, 0.61, 0.80), "behind"),
        ((0.501, 0.701, 0.9012), "ahead"),
        ((0.501, 0.699, 0.9001), "level"),
        ((0.60, 0.65, 0.92), "open"),
    ],
)
def test_words_say_what_the_interval_says(accuracies: tuple[float, ...], verdict: str) -> None:
    (one,) = paired_differences(compared(small=BASE, other=accuracies), "small")
    assert one.verdict == verdict


def test_one_seed_says_nothing() -> None:
    (one,) = paired_differences(compared(small=(0.5,), other=(0.9,)), "small")
    assert math.isnan(one.settled_accuracy.low) and one.verdict == "open"


def test_only_seeds_count_that_both_have_finished() -> None:
    runs = compared(small=BASE, other=(0.52, 0.73, 0.92), lonely=(0.9,))
    unfinished = [
        replace(run, finished=False) if (run.strategy, run.seed) == ("other", 1) else run
        for run in runs
        if (run.strategy, run.seed) != ("small", 0) or run.strategy == "lonely"
    ]
    (one,) = paired_differences(unfinished, "small")
    assert one.strategy == "other" and one.seeds == (2,)


def test_the_reference_is_found_by_its_name() -> None:
    tuned = ["heterofl:lr=0.1", "small:lr=0.2"]
    assert reference_strategy(tuned, None) == "small:lr=0.2"
    assert reference_strategy(["fedavg", "heterofl"], None) == "fedavg"
    assert reference_strategy(tuned, "heterofl") == "heterofl:lr=0.1"
    with pytest.raises(InputError, match="--against 'smal': expected one of the strategies"):
        reference_strategy(tuned, "smal")

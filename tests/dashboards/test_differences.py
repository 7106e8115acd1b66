"""What is said of a comparison is what the paired intervals say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dashboards.differences import comparison_finding, difference_table, differences_of
from dashboards.numbers import report_numbers
from dashboards.pictures import comparison_pictures
from fl.store.runs import Run

MakeRun = Callable[..., Run]
# Seeds differ far more than strategies do.
BASE = (0.50, 0.70, 0.90)


@pytest.fixture
def compared(make_run: MakeRun) -> Callable[..., list[Run]]:
    def make(**ends: tuple[float, ...]) -> list[Run]:
        return [
            make_run(100 * number + seed, (0.1, end), strategy=name, seed=seed, comparison="c")
            for number, (name, by_seed) in enumerate(ends.items())
            for seed, end in enumerate(by_seed)
        ]

    return make


@pytest.mark.parametrize(
    ("small", "finding"),
    [
        ((0.52, 0.73, 0.92), "small is ahead (+0.9 … +3.8 points, paired by seed)"),
        ((0.501, 0.701, 0.899), "they are level (-0.3 … +0.3 points, paired by seed)"),
        ((0.60, 0.65, 0.92), "who is ahead is open (-16.3 … +21.0 points, paired by seed)"),
    ],
)
def test_the_finding_says_of_the_best_and_distreal_what_their_difference_says(
    compared: Callable[..., list[Run]], small: tuple[float, ...], finding: str
) -> None:
    runs = compared(distreal=BASE, small=small)
    assert comparison_finding(runs) == (
        f"small has the highest mean settled accuracy, {sum(small) / 3:.1%}, distreal 70.0%: "
        + finding
    )


def test_the_finding_counts_those_whom_the_best_is_certainly_ahead_of(
    compared: Callable[..., list[Run]],
) -> None:
    runs = compared(distreal=BASE, small=(0.4, 0.6, 0.8), fjord=(0.1, 0.7, 0.9))
    assert comparison_finding(runs) == (
        "distreal has the highest mean settled accuracy, 70.0%, and is ahead of 1 of 2 others"
    )


def test_without_distreal_it_is_about_the_reference(compared: Callable[..., list[Run]]) -> None:
    runs = compared(heterofl=(0.52, 0.73, 0.92), small=BASE, fjord=(0.1, 0.2, 0.3))
    assert comparison_finding(runs) == (
        "heterofl has the highest mean settled accuracy, 72.3%, small 70.0%: heterofl is ahead "
        "(+0.3 … +4.4 points, paired by seed)"
    )


def test_of_one_seed_nothing_is_claimed(compared: Callable[..., list[Run]]) -> None:
    unfinished = [replace(run, finished=False) for run in compared(small=BASE, fjord=BASE)]
    for runs in (
        compared(distreal=BASE[:1], small=(0.9,)),
        compared(distreal=(0.9,), small=BASE[:1]),
        compared(fjord=BASE[:1], small=(0.9,)),
        unfinished,
    ):
        assert comparison_finding(runs).endswith(", without two seeds that both have finished")
    assert comparison_finding(compared(small=BASE)) == "small settles at 70.0%"


def test_a_report_has_the_differences_in_table_and_numbers(
    compared: Callable[..., list[Run]],
) -> None:
    runs = compared(distreal=(0.52, 0.73, 0.92), small=BASE, heterofl=(0.6, 0.65, 0.92))
    (distreal, heterofl) = differences_of(runs)
    assert (distreal.against, distreal.verdict, heterofl.verdict) == ("small", "ahead", "open")
    first, *_ = comparison_pictures("c", runs)
    assert first.tables[1] == difference_table([distreal, heterofl])
    assert "over small, paired by seed" in first.tables[1]
    for text in (">ahead<", ">open<", "+2.3", ">3<"):
        assert text in first.tables[1]
    (numbers,) = report_numbers((), runs)["comparisons"]
    found = numbers["differences"]
    assert [(one["strategy"], one["verdict"]) for one in found] == [
        ("distreal", "ahead"),
        ("heterofl", "open"),
    ]
    assert found[0]["settled_accuracy"]["low"] == pytest.approx(distreal.settled_accuracy.low)
    (single,) = report_numbers((), compared(small=BASE[:1], distreal=(0.9,)))["comparisons"]
    assert single["differences"][0]["settled_accuracy"]["low"] is None
    assert single["differences"][0]["verdict"] == "open"
    alone, *_ = comparison_pictures("c", compared(small=BASE))
    assert len(alone.tables) == 1

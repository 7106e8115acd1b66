"""When a round ends, and which updates it waits for."""

from __future__ import annotations

import math

import pytest
import torch

from distreal_dse.errors import InputError
from fl.results import Update
from fl.world.deadlines import LatePolicy, RoundRules, settle


def update(device: int, seconds: float, complete: bool = True, batches: int = 2) -> Update:
    return Update(
        device=device,
        samples=10,
        state={},
        masks=torch.ones(batches, 3, dtype=torch.bool),
        loss=1.0,
        seconds=seconds,
        complete=complete,
        training_macs=5.0,
        cost_shares=(1.0,) * batches,
        over_budget=0,
        bytes_down=0,
        bytes_up=0,
    )


def settled(
    updates: list[Update],
    cohort: int,
    deadline: float = math.inf,
    late: LatePolicy = "drop",
    trusted: list[bool] | None = None,
) -> tuple[list[str], float]:
    due = [8] * len(updates)
    outcomes, seconds = settle(
        updates, trusted or [True] * len(updates), due, cohort, deadline, late
    )
    return list(outcomes), seconds


def test_without_a_deadline_the_slowest_device_ends_the_round() -> None:
    updates = [update(0, 3.0), update(1, 9.0), update(2, 4.0)]
    assert settled(updates, 3) == (["accepted"] * 3, 9.0)


def test_a_device_that_is_not_done_is_dropped_at_the_deadline() -> None:
    updates = [update(0, 3.0), update(1, 9.0, complete=False), update(2, 4.0)]
    assert settled(updates, 3, 10.0) == (["accepted", "missed", "accepted"], 10.0)


def test_what_was_trained_until_the_deadline_counts_if_asked_for() -> None:
    updates = [
        update(0, 3.0),
        update(1, 9.0, complete=False),
        update(2, 0.5, complete=False, batches=0),
    ]
    assert settled(updates, 3, 10.0, "partial") == (["accepted", "partial", "missed"], 10.0)
    assert settled(updates[:2], 2, 10.0, "partial") == (["accepted", "partial"], 10.0)
    # A complete one comes before one that gave up earlier.
    updates = [update(0, 0.6, complete=False), update(1, 0.9)]
    assert settled(updates, 1, 1.0, "partial") == (["surplus", "accepted"], 0.9)


def test_of_more_partial_updates_than_needed_those_that_did_most_count() -> None:
    first, most = update(0, 1.0, False, batches=1), update(1, 9.0, False, batches=7)
    assert settled([first, most], 1, 10.0, "partial") == (["surplus", "partial"], 10.0)
    assert settled([most, first], 1, 10.0, "partial") == (["partial", "surplus"], 10.0)
    # Of what each had to do: 4 of 5 is more than 7 of 20.
    large, small = update(0, 9.0, False, batches=7), update(1, 9.0, False, batches=4)
    found, _ = settle([large, small], [True, True], [20, 5], 1, 10.0, "partial")
    assert found == ["surplus", "partial"]


def test_late_devices_are_waited_for_and_counted_if_asked_for() -> None:
    updates = [update(0, 3.0), update(1, 19.0), update(2, 10.0)]
    assert settled(updates, 3, 10.0, "wait") == (["accepted", "late", "accepted"], 19.0)


def test_of_an_overcommitted_cohort_the_fastest_count() -> None:
    updates = [update(0, 7.0), update(1, 2.0), update(2, 7.0), update(3, 4.0)]
    assert settled(updates, 3) == (["accepted", "accepted", "surplus", "accepted"], 7.0)
    assert settled(updates, 2) == (["surplus", "accepted", "surplus", "accepted"], 4.0)


def test_an_update_that_is_not_trusted_does_not_fill_the_cohort() -> None:
    updates = [update(0, 1.0), update(1, 2.0), update(2, 3.0)]
    found = settled(updates, 2, 10.0, trusted=[False, True, True])
    assert found == (["rejected", "accepted", "accepted"], 3.0)
    found = settled(updates, 3, 10.0, trusted=[False, True, True])
    assert found == (["rejected", "accepted", "accepted"], 3.0)


def test_a_device_that_never_ends_holds_nobody_up() -> None:
    updates = [update(0, 3.0), update(1, 1.0, complete=False)]
    assert settled(updates, 2) == (["accepted", "missed"], 3.0)
    assert settled([update(0, 0.0, complete=False, batches=0)], 1) == (["missed"], 0.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"deadline": 0.0}, "deadline of rounds: expected more than 0, found 0.0"),
        ({"deadline": math.inf}, "deadline"),
        ({"late": "never"}, "late devices: expected one of drop, partial, wait, found 'never'"),
        ({"overcommit": -0.1}, "overcommit: expected 0 or more"),
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RoundRules(**wrong)  # type: ignore[arg-type]


def test_as_many_devices_begin_as_were_asked_for() -> None:
    assert RoundRules().begun(10) == 10
    assert RoundRules(overcommit=0.3).begun(10) == 13
    assert RoundRules(overcommit=0.25).begun(10) == 13

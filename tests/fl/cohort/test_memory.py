"""What a cohort needs is said before it is asked for; what does not fit is split."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cohorts import DOUBLE, at_once, begin, check_equal, tasks_of, trained
from distreal_dse.cost._allocations import timeline_of
from fl.clients import InProcess
from fl.cohort import Batched
from fl.cohort.memory import CohortMemory, chunks
from fl.cohort.planned import planned_round
from fl.engine import FederatedRun

SIZES = (16, 20, 16, 16, 30)


def needed(run: FederatedRun, devices: int) -> int:
    """Bytes that just suffice for so many of the devices at once."""
    tasks = tasks_of(run, SIZES)
    rounds = [planned_round(run.training, one, 2, 3.0, 1e9, False) for one in tasks]
    known = [one for one in rounds if one is not None]
    limits = range(10_000, 10_000_000, 1000)
    fits: Callable[[int], int] = lambda limit: CohortMemory(run.training, limit).fitting(known)  # noqa: E731
    low, high = 0, len(limits) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(limits[middle]) >= devices else (middle + 1, high)
    return limits[low]


@pytest.mark.parametrize(("fitting", "sizes"), [(4, (3, 2)), (3, (3, 2)), (2, (2, 2, 1))])
def test_a_cohort_that_does_not_fit_is_split(fitting: int, sizes: tuple[int, ...]) -> None:
    run = begin("fjord-kd")
    tasks = tasks_of(run, SIZES)
    clients = Batched(run.training, needed(run, fitting))
    with at_once(clients, sizes):
        found = trained(run, clients, tasks)
    check_equal(found, trained(run, InProcess(run.training), tasks))


@pytest.mark.parametrize("strategy", ["fedavg", "distreal", "fjord-kd", "nested"])
def test_no_more_is_taken_than_was_said(strategy: str) -> None:
    run = begin(strategy)
    tasks = tasks_of(run, SIZES)
    said = Batched(run.training).predicted(tasks, 2, 3.0, 1e9)
    assert abs(said - needed(run, len(SIZES))) < 5000
    clients = Batched(run.training, said)

    def train(begins: Callable[[], None]) -> None:
        begins()
        with at_once(clients, [len(SIZES)]):
            trained(run, clients, tasks)

    trained(run, clients, tasks)  # builds sub-networks, and what predicts
    peak = timeline_of(train).peak
    assert peak <= said <= 5 * peak


def test_parts_are_of_equal_size() -> None:
    assert chunks(50, 50) == [50]
    assert chunks(50, 49) == [25, 25]
    assert chunks(5, 2) == [2, 2, 1]
    assert sum(chunks(97, 13)) == 97 and max(chunks(97, 13)) <= 13


def test_a_gpu_that_has_less_than_was_said_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    run = begin("distreal", DOUBLE)
    tasks = tasks_of(run, SIZES)
    clients = Batched(run.training)
    carry_out = clients._carry_out

    def scarce(rounds: list[object], *given: object) -> object:
        if len(rounds) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return carry_out(rounds, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(clients, "_carry_out", scarce)
    with at_once(clients, [2, 2, 1]):
        found = trained(run, clients, tasks)
    check_equal(found, trained(run, InProcess(run.training), tasks))

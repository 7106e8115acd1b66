from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distreal_dse.search import Evaluator, InlineExecutor, Outcome, ProcessExecutor, Task
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from tiny_study import DIVERGES_WHEN_NARROW, SLOW, write_study

COUNTS = ((6, 8), (3, 5), (1, 1), (5, 2))


def all_of(executor: InlineExecutor | ProcessExecutor, tasks: list[Task]) -> dict[int, Outcome]:
    """Outcomes by position of the task, at most ``capacity`` of them under way at a time."""
    waiting, under_way = list(enumerate(tasks)), 0
    outcomes: dict[int, Outcome] = {}
    while waiting or under_way:
        while waiting and under_way < executor.capacity:
            executor.submit(*waiting.pop(0))
            under_way += 1
        for key, outcome in executor.completed():
            assert key not in outcomes
            outcomes[key] = outcome
            under_way -= 1
    return outcomes


def inline(source: StudySource) -> InlineExecutor:
    study = source.load()
    network, data = prepare(study, seed=0)
    return InlineExecutor(Evaluator(study, network, data, 0, "cpu"))


def worker_pids(executor: ProcessExecutor) -> list[int]:
    return sorted(executor._pool._processes or {})


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> StudySource:
    return StudySource(str(write_study(tmp_path_factory.mktemp("slow"), change=SLOW)))


@pytest.fixture
def processes(slow: StudySource) -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(2, slow, seed=0, device="cpu")
    yield executor
    executor.close()


def test_processes_give_the_same_replicates_as_inline_and_survive_a_killed_worker(
    processes: ProcessExecutor, slow: StudySource
) -> None:
    # One test, because every new pool of workers takes seconds to start.
    tasks = [Task(counts, "search", (0, 1)) for counts in COUNTS]
    expected = {key: one.replicates for key, one in all_of(inline(slow), tasks).items()}
    found = all_of(processes, tasks)
    assert {key: one.replicates for key, one in found.items()} == expected
    assert all(one.seconds > 0 and one.failure == "" for one in found.values())

    processes.submit(0, tasks[0])
    processes.submit(1, tasks[1])
    time.sleep(0.02)
    victim = worker_pids(processes)[0]
    os.kill(victim, signal.SIGKILL)
    again: dict[int, Outcome] = {}
    while len(again) < 2:
        again.update(processes.completed())
    assert {key: one.replicates for key, one in again.items()} == {
        key: expected[key] for key in (0, 1)
    }
    assert victim not in worker_pids(processes)

    pids = worker_pids(processes)
    processes.close()
    assert pids and not any(map(is_running, pids))


def test_a_worker_that_dies_while_it_waits_does_not_end_the_search(
    processes: ProcessExecutor,
) -> None:
    processes.submit(0, Task((3, 5), "search", (0,)))
    ((_, expected),) = processes.completed()
    for pid in worker_pids(processes):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    processes.submit(1, Task((3, 5), "search", (0,)))
    ((key, outcome),) = processes.completed()
    assert key == 1
    assert outcome.replicates == expected.replicates


KILLS_ITS_WORKER_WHEN_NARROW = """
def kill(layer, inputs, outputs):
    import os

    if outputs.shape[1] == 1:
        os._exit(9)


def killing():
    network = model()
    network[0].register_forward_hook(kill)
    return network


study = replace(study, model=killing, short_run=replace(study.short_run, warm_up=0))
"""


def test_a_vector_that_kills_its_worker_twice_fails_and_the_next_one_trains(tmp_path: Path) -> None:
    source = StudySource(str(write_study(tmp_path, change=KILLS_ITS_WORKER_WHEN_NARROW)))
    executor = ProcessExecutor(2, source, seed=0, device="cpu")
    try:
        executor.submit(0, Task((1, 8), "search", (0,)))
        ((key, killed),) = executor.completed()
        executor.submit(1, Task((2, 8), "search", (0,)))
        ((next_key, trained),) = executor.completed()
    finally:
        executor.close()
    assert (key, next_key) == (0, 1)
    assert "died" in killed.failure and killed.replicates == ()
    assert trained.failure == "" and len(trained.replicates) == 1


def test_a_diverging_run_is_an_outcome_with_its_reason(tmp_path: Path) -> None:
    executor = inline(StudySource(str(write_study(tmp_path, change=DIVERGES_WHEN_NARROW))))
    outcomes = all_of(executor, [Task((2, 8), "search", (0, 1)), Task((3, 8), "search", (0, 1))])
    assert outcomes[0].failure.startswith("diverged: ")
    assert outcomes[1].failure == ""
    assert len(outcomes[1].replicates) == 2


def test_inline_does_tasks_in_the_order_they_were_submitted(source: StudySource) -> None:
    executor = inline(source)
    for key in (4, 2, 9):
        executor.submit(key, Task((3, 5), "search", (0,)))
    keys = [key for _ in range(3) for key, _ in executor.completed()]
    assert keys == [4, 2, 9]

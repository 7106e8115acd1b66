"""Verification: what was selected on noise looks better than it is, so it is measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.dropout import KeptCounts
from distreal_dse.errors import DistrealError
from distreal_dse.fronts import (
    FrontPoint,
    kept_counts_key,
    load_verifications,
    save_verification,
)
from distreal_dse.search._evaluation import Task
from distreal_dse.search._executors import Executor

STREAM = "verification"


@dataclass(frozen=True)
class Candidate:
    """A vector that may be on the front, and the trial that proposed it."""

    rates: tuple[float, ...]
    counts: KeptCounts
    cost: float
    uniform: bool
    trial: int | None


def verify(
    candidates: Sequence[Candidate],
    replicates: int,
    executor: Executor,
    engine: Engine,
    key: str,
    seed: int,
    progress: Callable[[int, int, int], None],
) -> tuple[tuple[FrontPoint, ...], dict[str, str]]:
    """Measure candidates with fresh seeds.

    Parameters
    ----------
    candidates
        Distinct vectors.
    replicates
        Short runs for each, at least 2.
    executor
        Does the short runs.
    engine, key, seed
        Where finished runs are kept, so that an interrupted verification goes on.
    progress
        Called with (done, total, failed) short runs.

    Returns
    -------
    points
        One for each candidate whose short runs all ended well, in their order.
    failures
        Kept counts, as text, of the other candidates, and why the last of their runs failed.

    Raises
    ------
    DistrealError
        If every candidate diverges.
    """
    known = {
        (counts_key, number): Replicate(*values)
        for (counts_key, number), values in load_verifications(engine, key, seed).items()
    }
    wanted = [(candidate, number) for candidate in candidates for number in range(replicates)]
    missing = [
        index
        for index, (candidate, number) in enumerate(wanted)
        if (kept_counts_key(candidate.counts), number) not in known
    ]
    total, failures, failed = len(wanted), dict[str, str](), 0
    queue, under_way, done = list(reversed(missing)), 0, len(wanted) - len(missing)
    progress(done, total, failed)
    while queue or under_way:
        while queue and under_way < executor.capacity:
            index = queue.pop()
            candidate, number = wanted[index]
            executor.submit(index, Task(candidate.counts, STREAM, (number,)))
            under_way += 1
        for index, outcome in executor.completed():
            candidate, number = wanted[index]
            under_way, done = under_way - 1, done + 1
            counts_key = kept_counts_key(candidate.counts)
            if outcome.failure:
                failures[counts_key] = outcome.failure
                failed += 1
            else:
                (replicate,) = outcome.replicates
                known[counts_key, number] = replicate
                save_verification(
                    engine, key, seed, counts_key, number, replicate.loss_gain, replicate.accuracy
                )
            progress(done, total, failed)

    points = [
        _point(candidate, [known[kept_counts_key(candidate.counts), n] for n in range(replicates)])
        for candidate in candidates
        if kept_counts_key(candidate.counts) not in failures
    ]
    if not points:
        raise DistrealError(
            f"every vector failed when it was verified; the last one: {[*failures.values()][-1]}"
        )
    return tuple(points), failures


def _point(candidate: Candidate, replicates: Sequence[Replicate]) -> FrontPoint:
    convergence = Convergence(tuple(replicates))
    return FrontPoint(
        rates=candidate.rates,
        kept_counts=candidate.counts,
        cost=candidate.cost,
        convergence=convergence.loss_gain,
        standard_error=convergence.standard_error,
        replicates=len(replicates),
        accuracy=convergence.accuracy,
        uniform=candidate.uniform,
        trial=candidate.trial,
    )

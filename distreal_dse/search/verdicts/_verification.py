"""Verification: what was selected on noise looks better than it is, so it is measured again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from distreal_dse.convergence import Convergence, FleetTable
from distreal_dse.dropout import KeptCounts
from distreal_dse.errors import DistrealError
from distreal_dse.fronts import FrontPoint, kept_counts_key
from distreal_dse.search.executors import Task
from distreal_dse.search.ledger import Ledger, Progress

STREAM = "verification"


@dataclass(frozen=True)
class Candidate:
    """A vector that may be on the front, and the trial that proposed it."""

    rates: tuple[float, ...]
    counts: KeptCounts
    cost: float
    uniform: bool
    trial: int | None


@dataclass(frozen=True)
class Verified:
    """What came of a verification.

    Parameters
    ----------
    points
        One for each candidate whose short runs all ended well, in their order.
    gains
        Of each of these, by kept counts: what each replicate gained, in order.
    failures
        Kept counts, as text, of the other candidates, and why the last of their runs failed.
    """

    points: tuple[FrontPoint, ...]
    gains: Mapping[KeptCounts, tuple[float, ...]]
    failures: Mapping[str, str]


def verify(
    candidates: Sequence[Candidate],
    replicates: int,
    ledger: Ledger,
    progress: Progress,
    others: FleetTable | None = None,
) -> Verified:
    """Measure candidates with fresh seeds.

    Parameters
    ----------
    candidates
        Distinct vectors.
    replicates
        Short runs for each, at least 2.
    ledger
        Does the short runs, and keeps those that are finished.
    progress
        Called with (done, total, failed) short runs.
    others
        What the other mini-batches train; see `distreal_dse.convergence.ShortRuns`.

    Raises
    ------
    DistrealError
        If every candidate diverges.
    """

    def task_of(counts: KeptCounts) -> Callable[[int], Task]:
        return lambda number: Task(counts, STREAM, (number,), others)

    tasks = {kept_counts_key(one.counts): task_of(one.counts) for one in candidates}
    found, failures = ledger.measure(tasks, replicates, progress)
    if not found:
        raise DistrealError(
            f"every vector failed when it was verified; the last one: {[*failures.values()][-1]}"
        )
    named = {kept_counts_key(one.counts): one for one in candidates}
    return Verified(
        tuple(_point(named[key], convergence) for key, convergence in found.items()),
        {
            named[key].counts: tuple(replicate.loss_gain for replicate in convergence.replicates)
            for key, convergence in found.items()
        },
        failures,
    )


def _point(candidate: Candidate, convergence: Convergence) -> FrontPoint:
    return FrontPoint(
        rates=candidate.rates,
        kept_counts=candidate.counts,
        cost=candidate.cost,
        convergence=convergence.loss_gain,
        standard_error=convergence.standard_error,
        replicates=len(convergence.replicates),
        accuracy=convergence.accuracy,
        uniform=candidate.uniform,
        trial=candidate.trial,
    )

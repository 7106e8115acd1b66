"""The ledger: short runs that are finished, kept in the database one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from sqlalchemy import Engine

from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.dropout import KeptCounts
from distreal_dse.fronts import kept_counts_key, load_verifications, save_verification
from distreal_dse.search.executors import Executor, ShortRunTask

Progress = Callable[[int, int, int], None]
"""Called with (done, total, failed) short runs."""

STREAM = "search"
"""The replicates that trials are told from; those of the verification are others."""


def trial_run(counts: KeptCounts) -> str:
    """What the short runs of a vector's trials are kept under."""
    return f"{STREAM} {kept_counts_key(counts)}"


def vector_of(trial_run: str) -> KeptCounts:
    """Return the kept counts that `trial_run` was given."""
    return tuple(map(int, trial_run.removeprefix(f"{STREAM} ").split("-")))


@dataclass(frozen=True)
class FinishedRun:
    """A short run that has ended: replicate ``number`` of what is called ``name``.

    ``replicate`` is None where it failed, for the reason in ``failure``; ``seconds`` are 0 where an
    earlier start of the search did it.
    """

    name: str
    number: int
    replicate: Replicate | None
    seconds: float = 0.0
    failure: str = ""


class Ledger:
    """Short runs of one search under one seed; whatever ended well is never done again.

    Runs are submitted one by one and come back in the order in which they end; those that are in
    the database come back first.

    Parameters
    ----------
    executor
        Does the short runs that are missing.
    engine, key, seed
        Where finished ones are kept, and what for.
    check
        Called before anything is stored; raises if another process took the search over.
    """

    def __init__(
        self,
        executor: Executor,
        engine: Engine,
        key: str,
        seed: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._executor, self._engine, self._key, self._seed = executor, engine, key, seed
        self._check = check
        self._known = {
            run: Replicate(*values) for run, values in load_verifications(engine, key, seed).items()
        }
        self._at_hand: list[FinishedRun] = []
        self._submitted: dict[int, tuple[str, int]] = {}
        self._trial_runs = sum(name.startswith(f"{STREAM} ") for name, _ in self._known)
        self._next = 0
        self._seconds: dict[tuple[str, int], float] = {}

    @property
    def capacity(self) -> int:
        """How many runs make sense to have under way."""
        return self._executor.capacity

    @property
    def under_way(self) -> int:
        """Runs that were submitted and have not come back."""
        return len(self._submitted) + len(self._at_hand)

    @property
    def trial_runs(self) -> int:
        """Runs of trials, by all starts of the search; failed ones of this start, too."""
        return self._trial_runs

    def knows(self, name: str, number: int) -> bool:
        """Whether a run has ended well."""
        return (name, number) in self._known

    @property
    def mean_seconds(self) -> float:
        """Of the runs that were done here; 0 where none was."""
        return fmean(self._seconds.values()) if self._seconds else 0.0

    def seconds_for(self, runs: float) -> float:
        """How long so many more runs take, about; 0 where none was done here."""
        return runs * self.mean_seconds / self.capacity

    def recall(self, name: str) -> None:
        """Take into account what others have done under a name, where others may have."""

    def submit(self, name: str, number: int, task: ShortRunTask) -> None:
        """Begin a run, unless it is kept from before."""
        if (known := self._known.get((name, number))) is not None:
            seconds = self._seconds.get((name, number), 0.0)
            self._at_hand.append(FinishedRun(name, number, known, seconds))
            return
        self._trial_runs += name.startswith(f"{STREAM} ")
        self._submitted[self._next] = name, number
        self._executor.submit(self._next, task)
        self._next += 1

    def completed(self) -> list[FinishedRun]:
        """Wait until at least one run has ended; all that have, stored."""
        if self._at_hand:
            ended, self._at_hand = self._at_hand, []
            return ended
        ended = []
        for key, outcome in self._executor.completed():
            name, number = self._submitted.pop(key)
            if outcome.failure:
                run = FinishedRun(name, number, None, outcome.seconds, outcome.failure)
            else:
                (replicate,) = outcome.replicates
                run = FinishedRun(name, number, replicate, outcome.seconds)
                self._keep(name, number, replicate)
                self._seconds[name, number] = outcome.seconds
            ended.append(run)
        return ended

    def measure(
        self,
        tasks: Mapping[str, Callable[[int], ShortRunTask]],
        replicates: int,
        progress: Progress = lambda done, total, failed: None,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> tuple[dict[str, Convergence], dict[str, str]]:
        """Return what short runs gained, those that are missing being done.

        Parameters
        ----------
        tasks
            By the name that its runs are kept under: the task of a replicate, of one run.
        replicates
            Of each.
        progress
            Hears of each run.
        goes_on
            Asked before each run; once it says no, none is begun any more.

        Returns
        -------
        found
            What those gained of which all runs were done and ended well, in the order of ``tasks``.
        failures
            Of the others, why the last of their runs failed.
        """
        wanted = [(name, number) for name in tasks for number in range(replicates)]
        missing = [run for run in wanted if run not in self._known]
        done, failures, failed = len(wanted) - len(missing), dict[str, str](), 0
        queue = list(reversed(missing))
        progress(done, len(wanted), failed)
        while queue or self.under_way:
            while queue and self.under_way < self.capacity:
                if not goes_on():
                    queue.clear()
                    break
                name, number = queue.pop()
                self.submit(name, number, tasks[name](number))
            for run in self.completed() if self.under_way else ():
                done += 1
                if run.failure:
                    failures[run.name] = run.failure
                    failed += 1
                progress(done, len(wanted), failed)
        found = {
            name: Convergence(tuple(self._known[name, number] for number in range(replicates)))
            for name in tasks
            if all(self.knows(name, number) for number in range(replicates))
        }
        return found, failures

    def _keep(self, name: str, number: int, replicate: Replicate) -> None:
        self._check()
        self._known[name, number] = replicate
        save_verification(
            self._engine, self._key, self._seed, name, number,
            replicate.loss_gain, replicate.accuracy,
        )  # fmt: skip

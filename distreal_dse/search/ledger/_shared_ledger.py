"""The ledger of a search that many drivers work on: what all want is done by one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.search.executors import Executor, ShortRunTask
from distreal_dse.search.ledger._company import POLL, Company, Run
from distreal_dse.search.ledger._ledger import STREAM, Ledger, Progress


class SharedLedger(Ledger):
    """Short runs of one search, done by all of its drivers.

    Those of a trial belong to the driver that has begun the trial. Those that all drivers want, of
    the pilot and the verification, are done by whoever is free, one by one.

    Parameters
    ----------
    executor, engine, key, seed
        As for `Ledger`.
    company
        This driver's part in the search.
    """

    def __init__(
        self, executor: Executor, engine: Engine, key: str, seed: int, company: Company
    ) -> None:
        super().__init__(executor, engine, key, seed, company.check)
        self._company = company

    @property
    def trial_runs(self) -> int:
        """Runs of trials, by all drivers and starts of the search; asks the database."""
        here = sum(name.startswith(f"{STREAM} ") for name, _ in self._submitted.values())
        return self._company.runs(f"{STREAM} ") + here

    def recall(self, name: str) -> None:
        """Take into account what others have done under a name."""
        self._learn(self._company.known([name]))

    def measure(
        self,
        tasks: Mapping[str, Callable[[int], ShortRunTask]],
        replicates: int,
        progress: Progress = lambda done, total, failed: None,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> tuple[dict[str, Convergence], dict[str, str]]:
        """Return what short runs gained, those that are missing being done here or elsewhere.

        As `Ledger.measure`. It waits for runs that others have begun, unless ``goes_on`` says no.
        """
        wanted = [(name, number) for name in tasks for number in range(replicates)]
        failed: dict[Run, str] = {}
        told: tuple[int, int] | None = None
        while True:
            under_way = set(self._submitted.values())
            left = [run for run in wanted if not self.knows(*run) and run not in failed]
            free = [run for run in left if run not in under_way]
            may_begin = goes_on()
            room = max(self.capacity - self.under_way, 0) if may_begin else 0
            shared = self._company.share(free, room)
            before = len(self._known), len(failed)
            self._learn(shared.known)
            failed.update(shared.failed)
            for name, number in shared.ours:
                self.submit(name, number, tasks[name](number))
            if self.under_way:
                for run in self.completed():
                    if run.failure:
                        failed[run.name, run.number] = run.failure
                        self._company.fail(run.name, run.number, run.failure)
            elif not left or not may_begin:
                break
            elif (len(self._known), len(failed)) == before:  # others do what is left
                time.sleep(POLL)
            done = sum(self.knows(*run) or run in failed for run in wanted)
            if told != (done, len(failed)):
                told = done, len(failed)
                progress(done, len(wanted), len(failed))
        found = {
            name: Convergence(tuple(self._known[name, number] for number in range(replicates)))
            for name in tasks
            if all(self.knows(name, number) for number in range(replicates))
        }
        return found, {name: reason for (name, _), reason in failed.items()}

    def _learn(self, known: Mapping[Run, Replicate]) -> None:
        for run, replicate in known.items():
            self._known.setdefault(run, replicate)

"""The ledger: short runs that are finished, kept in the database one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.fronts import load_verifications, save_verification
from distreal_dse.search._evaluation import ShortRunTask
from distreal_dse.search._executors import Executor

Progress = Callable[[int, int, int], None]
"""Called with (done, total, failed) short runs."""


@dataclass(frozen=True)
class Ledger:
    """Short runs of one search under one seed; whatever is finished is never done again.

    Parameters
    ----------
    executor
        Does the short runs that are missing.
    engine, key, seed
        Where finished ones are kept, and what for.
    """

    executor: Executor
    engine: Engine
    key: str
    seed: int

    def measure(
        self,
        tasks: Mapping[str, Callable[[int], ShortRunTask]],
        replicates: int,
        progress: Progress = lambda done, total, failed: None,
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

        Returns
        -------
        found
            What those gained of which all runs ended well, in the order of ``tasks``.
        failures
            Of the others, why the last of their runs failed.
        """
        known = {
            run: Replicate(*values)
            for run, values in load_verifications(self.engine, self.key, self.seed).items()
        }
        wanted = [(name, number) for name in tasks for number in range(replicates)]
        missing = [index for index, run in enumerate(wanted) if run not in known]
        done, under_way, failures, failed = len(wanted) - len(missing), 0, dict[str, str](), 0
        queue = list(reversed(missing))
        progress(done, len(wanted), failed)
        while queue or under_way:
            while queue and under_way < self.executor.capacity:
                index = queue.pop()
                name, number = wanted[index]
                self.executor.submit(index, tasks[name](number))
                under_way += 1
            for index, outcome in self.executor.completed():
                name, number = wanted[index]
                under_way, done = under_way - 1, done + 1
                if outcome.failure:
                    failures[name] = outcome.failure
                    failed += 1
                else:
                    (replicate,) = outcome.replicates
                    known[name, number] = replicate
                    save_verification(
                        self.engine, self.key, self.seed, name, number,
                        replicate.loss_gain, replicate.accuracy,
                    )  # fmt: skip
                progress(done, len(wanted), failed)
        found = {
            name: Convergence(tuple(known[name, number] for number in range(replicates)))
            for name in tasks
            if name not in failures
        }
        return found, failures

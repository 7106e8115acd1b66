"""Evaluating vectors: tasks for short runs, what comes of them, and the process that does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from distreal_dse.convergence import FleetTable, Replicate, ShortRuns, TableRuns
from distreal_dse.dropout import DroppableNetwork, KeptCounts
from distreal_dse.errors import DistrealError, DivergedError, StudyError, described
from distreal_dse.study import Data, Study
from distreal_dse.support.workers import one_thread


@dataclass(frozen=True)
class Task:
    """Short runs to do with one vector: some replicates of one stream.

    ``others`` is what the other mini-batches train; see `ShortRuns`.
    """

    counts: KeptCounts
    stream: str
    replicates: tuple[int, ...]
    others: FleetTable | None = None


@dataclass(frozen=True)
class TableTask:
    """Short runs to do with a whole table: some replicates of one stream."""

    table: FleetTable
    stream: str
    replicates: tuple[int, ...]


ShortRunTask = Task | TableTask


@dataclass(frozen=True)
class Outcome:
    """Replicates of a task and the seconds they took, or why it failed (``failure`` not empty)."""

    replicates: tuple[Replicate, ...]
    seconds: float
    failure: str = ""


class Evaluator:
    """Does tasks in this process, with one thread.

    Parameters
    ----------
    study, network, data
        What to train; see `distreal_dse.study.preparation.prepare`.
    seed
        Seed of the search.
    device
        Where the network is, ``"cpu"`` or ``"cuda"``.
    progress
        Called with (done, total) mini-batches of the warm-up.
    """

    def __init__(
        self,
        study: Study,
        network: DroppableNetwork,
        data: Data,
        seed: int,
        device: str,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._arguments = study, data, network, seed, torch.device(device)
        try:
            with one_thread():
                self._runs = ShortRuns(*self._arguments, progress)
        except DistrealError:
            raise
        except Exception as error:  # likewise the user's code
            raise StudyError(
                f"training of study {study.name} fails in its warm-up: {described(error)}"
            ) from error
        self._table_runs = TableRuns(*self._arguments)
        self._among: tuple[FleetTable, ShortRuns] | None = None

    @property
    def snapshot_loss(self) -> float:
        """Validation loss of the snapshot that all short runs start from."""
        return self._runs.before.loss

    def evaluate(self, task: ShortRunTask) -> Outcome:
        """Do a task; one that diverges or raises is a failed one, with its reason."""
        start = time.perf_counter()
        replicates: tuple[Replicate, ...] = ()
        failure = ""
        try:
            with one_thread():
                for number in task.replicates:
                    replicates += (self._run(task, number),)
        except DivergedError as error:
            failure = f"diverged: {error}"
        except Exception as error:  # the study's model, loss and data may raise anything
            failure = described(error)
        return Outcome(replicates, time.perf_counter() - start, failure)

    def _run(self, task: ShortRunTask, replicate: int) -> Replicate:
        if isinstance(task, TableTask):
            return self._table_runs.run(task.table, task.stream, replicate)
        return self._among_others(task.others).run(task.counts, task.stream, replicate)

    def _among_others(self, others: FleetTable | None) -> ShortRuns:
        """Short runs beside a table's; their snapshot is trained when the first is asked for."""
        if others is None:
            return self._runs
        if self._among is None or self._among[0] != others:
            self._among = others, ShortRuns(*self._arguments, others=others)
        return self._among[1]

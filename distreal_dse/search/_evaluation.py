"""Evaluating vectors: tasks for short runs, what comes of them, and the process that does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from distreal_dse.convergence import Replicate, ShortRuns
from distreal_dse.dropout import DroppableNetwork, KeptCounts
from distreal_dse.errors import DistrealError, DivergedError, StudyError, described
from distreal_dse.study import Data, Study


@dataclass(frozen=True)
class Task:
    """Short runs to do with one vector: some replicates of one stream."""

    counts: KeptCounts
    stream: str
    replicates: tuple[int, ...]


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
        What to train; see `distreal_dse.preparation.prepare`.
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
        try:
            with _one_thread():
                self._runs = ShortRuns(study, data, network, seed, torch.device(device), progress)
        except DistrealError:
            raise
        except Exception as error:  # likewise the user's code
            raise StudyError(
                f"training of study {study.name} fails in its warm-up: {described(error)}"
            ) from error

    @property
    def snapshot_loss(self) -> float:
        """Validation loss of the snapshot that all short runs start from."""
        return self._runs.before.loss

    def evaluate(self, task: Task) -> Outcome:
        """Do a task; one that diverges or raises is a failed one, with its reason."""
        start = time.perf_counter()
        replicates: tuple[Replicate, ...] = ()
        failure = ""
        try:
            with _one_thread():
                for number in task.replicates:
                    replicates += (self._runs.run(task.counts, task.stream, number),)
        except DivergedError as error:
            failure = f"diverged: {error}"
        except Exception as error:  # the study's model, loss and data may raise anything
            failure = described(error)
        return Outcome(replicates, time.perf_counter() - start, failure)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Two threads beside another busy process are far slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

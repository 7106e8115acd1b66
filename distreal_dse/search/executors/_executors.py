"""Executors: where tasks are evaluated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import DistrealError
from distreal_dse.search.executors._evaluation import Evaluator, Outcome, ShortRunTask
from distreal_dse.study import Data, Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.given import GivenStudy
from distreal_dse.study.preparation import prepare
from distreal_dse.support.workers import end_processes, process_pool


class Executor(ABC):
    """Runs tasks; used by one driver, from one thread.

    The driver calls ``submit`` until ``capacity`` tasks are under way, then ``completed`` to wait,
    and so on; ``close`` at the end, or when the user interrupts.
    """

    #: How many tasks make sense to have under way.
    capacity: int = 1

    @abstractmethod
    def snapshot_losses(self) -> list[float]:
        """Validation loss of the snapshot, from each place where tasks are evaluated.

        Called once, before the first task.
        """

    @abstractmethod
    def submit(self, key: int, task: ShortRunTask) -> None:
        """Start a task; ``key`` is given back with its outcome."""

    @abstractmethod
    def completed(self) -> list[tuple[int, Outcome]]:
        """Wait until at least one task is done; all that are done, with their keys."""

    @abstractmethod
    def close(self) -> None:
        """Abandon what is under way and free all processes and memory."""


class InlineExecutor(Executor):
    """Evaluates in the driver's own process."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._waiting: deque[tuple[int, ShortRunTask]] = deque()

    def snapshot_losses(self) -> list[float]:
        """That of the one evaluator."""
        return [self._evaluator.snapshot_loss]

    def submit(self, key: int, task: ShortRunTask) -> None:
        """Remember the task; `completed` does it."""
        self._waiting.append((key, task))

    def completed(self) -> list[tuple[int, Outcome]]:
        """Do the oldest task."""
        key, task = self._waiting.popleft()
        return [(key, self._evaluator.evaluate(task))]

    def close(self) -> None:
        """Forget tasks that were not begun."""
        self._waiting.clear()


class ProcessExecutor(Executor):
    """Evaluates in local worker processes of one thread each.

    When a worker dies (killed for memory, say), every task under way may be the cause: each of
    them is then run alone, and one that kills its worker again counts as failed.

    Parameters
    ----------
    workers
        Number of processes.
    source, seed, device
        Every worker builds its own `Evaluator` from them.
    warmed_up
        Told 0 when the workers begin to warm up, and 1 when they have done so.
    """

    def __init__(
        self,
        workers: int,
        source: StudySource | GivenStudy,
        seed: int,
        device: str,
        warmed_up: Callable[[int], None] = lambda share: None,
    ) -> None:
        self.capacity = workers
        self._arguments = source, seed, device
        self._warmed_up = warmed_up
        self._waiting: dict[int, ShortRunTask] = {}
        self._suspects: dict[int, ShortRunTask] = {}
        self._under_way: dict[Future[Outcome], tuple[int, ShortRunTask]] = {}
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return process_pool(self.capacity, _start_worker, self._arguments)

    def snapshot_losses(self) -> list[float]:
        """Those of the workers, which train their snapshots at the same time."""
        self._warmed_up(0)
        try:
            asked = [self._pool.submit(_snapshot_loss) for _ in range(self.capacity)]
            losses = [future.result() for future in asked]
        except BrokenProcessPool as error:
            raise DistrealError(
                "a worker process died while it trained the snapshot: expected it to fit into "
                "memory; take fewer --workers"
            ) from error
        self._warmed_up(1)
        return losses

    def submit(self, key: int, task: ShortRunTask) -> None:
        """Queue a task for the next free worker."""
        self._waiting[key] = task
        self._hand_over()

    def completed(self) -> list[tuple[int, Outcome]]:
        """Wait for a worker; a dead one breaks the pool, which is then made anew."""
        outcomes: list[tuple[int, Outcome]] = []
        while not outcomes:
            self._hand_over()
            done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
            broken = False
            for future in done:
                key, task = self._under_way.pop(future)
                try:
                    outcomes.append((key, future.result()))
                    self._suspects.pop(key, None)
                except BrokenProcessPool:
                    broken = True
                    if key in self._suspects:  # these run alone
                        del self._suspects[key]
                        outcomes.append((key, Outcome((), 0.0, "its worker process died twice")))
                    else:
                        self._suspects[key] = task
            if broken:
                self._replace_pool()
        return outcomes

    def _hand_over(self) -> None:
        """Give waiting tasks to the pool; suspects first, one at a time."""
        if self._suspects:
            if self._under_way:
                return
            tasks = dict([next(iter(self._suspects.items()))])
        else:
            tasks, self._waiting = self._waiting, {}
        for key, task in tasks.items():
            try:
                future = self._pool.submit(_evaluate, task)
            except BrokenProcessPool:  # a worker died while it was idle
                self._replace_pool()
                future = self._pool.submit(_evaluate, task)
            self._under_way[future] = key, task

    def _replace_pool(self) -> None:
        """Make a new pool; what the broken one had under way is suspect."""
        self._suspects |= dict(self._under_way.values())
        self._under_way.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._new_pool()

    def close(self) -> None:
        """End the worker processes, busy or not."""
        end_processes(self._pool, busy=bool(self._under_way))


def make_executor(
    study: Study,
    network: DroppableNetwork,
    data: Data,
    source: StudySource | GivenStudy,
    seed: int,
    device: str,
    workers: int,
    progress: Callable[[int, int], None],
) -> Executor:
    """Make an executor for tasks of a study.

    Parameters
    ----------
    study, network, data
        As `distreal_dse.study.preparation.prepare` takes and gives them, for one worker.
    source
        What several workers load the study from.
    seed, device
        See `Evaluator`.
    workers
        Local processes; 1 evaluates in this process.
    progress
        Called with (done, total) mini-batches of the warm-up; by several workers when it begins
        and ends.
    """
    length = study.short_run.warm_up
    if workers > 1:
        return ProcessExecutor(
            workers, source, seed, device, lambda share: progress(share * length, length)
        )
    return InlineExecutor(Evaluator(study, network, data, seed, device, progress))


class _Worker:
    """What a worker process knows; its evaluator is made by the first task, so that errors show."""

    source: StudySource | GivenStudy
    seed: int
    device: str
    evaluator: Evaluator | None = None


def _start_worker(source: StudySource | GivenStudy, seed: int, device: str) -> None:
    _Worker.source, _Worker.seed, _Worker.device = source, seed, device


def _snapshot_loss() -> float:
    return _own_evaluator().snapshot_loss


def _evaluate(task: ShortRunTask) -> Outcome:
    return _own_evaluator().evaluate(task)


def _own_evaluator() -> Evaluator:
    if _Worker.evaluator is None:
        study = _Worker.source.load()
        network, data = prepare(study, _Worker.seed, _Worker.device)
        _Worker.evaluator = Evaluator(study, network, data, _Worker.seed, _Worker.device)
    return _Worker.evaluator

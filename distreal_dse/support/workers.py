"""Worker processes that end with their driver, and only through it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_process
from types import FrameType, ModuleType
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm

from distreal_dse.support.interrupts import no_interrupt_lost

P = ParamSpec("P")
T = TypeVar("T")


def process_pool(
    workers: int,
    initializer: Callable[..., None],
    arguments: tuple[Any, ...],
    orphaned: Callable[[], object] | None = None,
) -> ProcessPoolExecutor:
    """Return a pool of fresh processes; each calls ``initializer(*arguments)`` once.

    Where the driver is killed, each calls ``orphaned``, and ends.
    """
    return _Pool(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(initializer, arguments, orphaned),
    )


# What a terminal sends to all processes of a command: it is for the driver, which ends workers.
_OF_TERMINALS = {signal.SIGINT, signal.SIGHUP}


class _Pool(ProcessPoolExecutor):
    """A pool whose processes are deaf to Ctrl-C and to hanging up from their first moment on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with _blocked(_OF_TERMINALS):  # this starts the process that tracks their semaphores
            super().__init__(*args, **kwargs)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a task; this may start a process, which inherits what is blocked."""
        with _blocked(_OF_TERMINALS), _script_left_alone():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def _blocked(numbers: set[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _script_left_alone() -> Iterator[None]:
    """Let processes that start not run the script of this one, as they would to find its names.

    They need none of them. A script that lacks ``if __name__ == "__main__"`` would begin its own
    work again in each.
    """
    ordinary = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = ordinary


def end_processes(pool: ProcessPoolExecutor, busy: bool, grace: float = 0.0) -> None:
    """End the processes of a pool; those that are busy do not finish what they do.

    Parameters
    ----------
    pool
        Made by `process_pool`.
    busy
        Whether any process is.
    grace
        Seconds that tasks in `interruptible_task` have to store what they have.
    """
    processes = list((pool._processes or {}).values()) if busy else []

    def kill() -> None:
        for process in processes:
            process.kill()

    for process in processes:
        process.terminate()
    in_the_end = threading.Timer(grace, kill)
    if grace:
        in_the_end.start()
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except BaseException:  # a second Ctrl-C
        kill()
        raise
    finally:
        in_the_end.cancel()


class _Task:
    """What a worker process knows of its own end."""

    under_way = False
    ended = False


@contextmanager
def interruptible_task() -> Iterator[None]:
    """In a worker: let the end of the process interrupt this task as Ctrl-C would, once.

    To be entered by each task of the pool. Those that come after the end was asked for are
    interrupted at once.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    _Task.under_way = True
    try:
        if _Task.ended:
            raise KeyboardInterrupt
        with no_interrupt_lost(_end_again):
            yield
    finally:
        _Task.under_way = False


def _end_again() -> None:
    _Task.ended = False
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Only once: what is stored because of it must not be interrupted.
    if not _Task.ended:
        _Task.ended = True
        if _Task.under_way:
            raise KeyboardInterrupt


def _start_worker(
    initializer: Callable[..., None],
    arguments: tuple[Any, ...],
    orphaned: Callable[[], object] | None,
) -> None:
    for number in _OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow_parent() -> None:
        wait_for_process([parent.sentinel])
        try:
            if orphaned is not None:
                orphaned()
        finally:
            os._exit(1)  # the driver was killed: nobody would ever end this process

    threading.Thread(target=follow_parent, daemon=True).start()
    # PyTorch's tracer makes tqdm create a lock between processes, which a worker that is ended
    # while it is busy would leave behind.
    tqdm.set_lock(threading.RLock())
    initializer(*arguments)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread; two beside another busy process are far slower."""
    import torch  # takes seconds, and whoever only starts processes needs none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

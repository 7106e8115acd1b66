"""Worker processes that end with their driver, and only through it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait as wait_for_process
from typing import Any

from tqdm import tqdm


def process_pool(
    workers: int, initializer: Callable[..., None], arguments: tuple[Any, ...]
) -> ProcessPoolExecutor:
    """Return a pool of fresh processes; each calls ``initializer(*arguments)`` once."""
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(initializer, arguments),
    )


def end_processes(pool: ProcessPoolExecutor, busy: bool) -> None:
    """End the processes of a pool; those that are busy do not finish what they do."""
    if busy:
        for process in (pool._processes or {}).values():
            process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(initializer: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow_parent() -> None:
        wait_for_process([parent.sentinel])
        os._exit(1)  # the driver was killed: nobody would ever end this process

    threading.Thread(target=follow_parent, daemon=True).start()
    # PyTorch's tracer makes tqdm create a lock between processes, which a worker that is ended
    # while it is busy would leave behind.
    tqdm.set_lock(threading.RLock())
    initializer(*arguments)

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distreal_dse.support.workers import end_processes, process_pool


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_is_deaf_to_ctrl_c_from_its_first_moment_on() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pool = process_pool(1, os.getpid, ())
    try:
        task = pool.submit(os.getpid)
        (pid,) = pool._processes
        os.kill(pid, signal.SIGINT)  # before it has even started Python
        (blocked,) = (
            line.split()[1]
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("SigBlk:")
        )
        assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        assert task.result(timeout=60) == pid
    finally:
        end_processes(pool, busy=True)


LOST = """
import os, signal, time, weakref
from distreal_dse.support.workers import interruptible_task

class Freed: pass

freed = Freed()
watched = weakref.ref(freed, lambda _: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(0))
try:
    with interruptible_task():
        del freed
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_the_end_of_a_task_is_not_lost_in_a_callback_of_the_collector() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST], capture_output=True, text=True, timeout=50, check=True
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")

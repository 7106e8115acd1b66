from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from distreal_dse.workers import end_processes, process_pool


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

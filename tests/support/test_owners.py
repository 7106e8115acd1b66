"""Which process it is, and whether it still lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from distreal_dse.support.owners import UNKNOWN, Owner, _hidden


def test_this_process_lives() -> None:
    owner = Owner.here()
    assert owner.alive is True
    assert Owner.read(str(owner)) == owner
    assert owner.key != Owner.here().key


def test_another_process_lives_until_it_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    boot = psutil.boot_time() if sys.platform == "linux" else 0.0
    started = psutil.Process(process.pid).create_time() - boot
    other = replace(Owner.here(), pid=process.pid, started=started)
    try:
        assert other.alive is True
        # The number was given to this process after another one's end.
        assert replace(other, started=started - 30.0).alive is False
    finally:
        process.kill()
    deadline = time.monotonic() + 60
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    assert other.alive is False  # although nobody has waited for it
    process.wait()
    assert other.alive is False


@pytest.mark.parametrize("change", ["host", "boot", "namespace"])
def test_of_a_process_elsewhere_nobody_can_tell(change: str) -> None:
    for pid in (os.getpid(), 2**22 - 1):  # one that is here, too, and one that is not
        assert replace(Owner.here(), pid=pid, **{change: "another"}).alive is None


def test_of_two_whose_namespaces_are_unknown_nobody_can_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has PID namespaces")
    monkeypatch.setattr("os.getpid", lambda: 2**22 - 1)  # is not in this /proc
    owner = Owner.here()
    assert owner.namespace == UNKNOWN and owner.alive is None


def test_a_process_still_lives_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("only on Linux psutil tells the start of a process by the present clock")
    owner, boot = Owner.here(), psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 3600)
    monkeypatch.setattr("psutil._pslinux.BOOT_TIME", boot + 3600, raising=False)
    assert owner.alive is True


def test_a_process_of_another_user_may_be_hidden() -> None:
    """As with ``hidepid``; a process that has ended is not."""
    if os.geteuid() != 0:
        assert _hidden(1)
    else:
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            os._exit(_hidden(os.getppid()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert not _hidden(child)

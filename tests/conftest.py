from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

import zygote

# A machine that is busy with something else is slow, and no property of ours is about time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


# Databases of tests are of no use after them: in memory, none waits for a disk. Where there is
# enough of it; containers often have 64 MB.
MEMORY, ENOUGH = "/dev/shm", 2**30


def pytest_configure() -> None:
    """Let Ctrl-C interrupt, in these tests and in all that they start; keep their files in memory.

    A shell ignores it for what it starts in the background, and so does whatever that starts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is remembered in the home of whoever runs the tests, nor taken from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def workers_that_start_soon() -> None:
    """Worker processes of a test are forked where PyTorch is imported already."""
    if sys.platform == "linux":
        zygote.fork_workers(zygote.start)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked ``alone`` run while no other process runs one of ours."""
    if not hasattr(item.config, "workerinput"):  # of pytest-xdist; else there is one process
        return (yield)
    # Any two files do. Who waits for the others to end has the first one: it is the next.
    with open(item.config.rootpath / "pyproject.toml") as turn, open(__file__) as running:
        fcntl.flock(turn, fcntl.LOCK_EX)
        alone = item.get_closest_marker("alone") is not None
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        return (yield)

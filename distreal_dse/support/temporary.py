"""Temporary folders that somebody removes, even where their owner was killed.

A process holds a lock on each of its folders. The kernel takes it back when the process ends,
however that ends, so a folder without a lock has no owner any more: whoever comes next removes it.
Unlike the number of a process, a lock is never another one's, nor hidden in another container.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

PREFIX = "distreal-dse-held-"


class TemporaryFolder:
    """A folder in the temporary folder, of this process as long as that lives or until `close`."""

    def __init__(self) -> None:
        # Under another name until it is locked, so that nobody takes it for one that was left.
        begun = Path(tempfile.mkdtemp(prefix="distreal-dse-new-"))
        self._lock = os.open(begun, os.O_RDONLY)
        with suppress(OSError):  # some network file systems can't: nobody sweeps there, either
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = begun.rename(begun.with_name(PREFIX + begun.name.rpartition("-")[2]))

    def close(self) -> None:
        """Remove it, as far as that can be done."""
        rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep() -> None:
    """Remove the folders of this user whose owners have ended without doing so."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # it has just been removed, or is somebody else's
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rmtree(folder, ignore_errors=True)
        except OSError:  # its owner is alive
            pass
        finally:
            os.close(lock)

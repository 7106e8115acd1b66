"""Which process it is, and whether it still lives.

A number of a process says little: a host's name is that of its containers, too, numbers are given
anew, and each PID namespace and each boot has its own. So a process is known by the boot of its
machine, its PID namespace, its number and when it started.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
UNKNOWN = "unknown"

# Seconds within which two starts are one: far above rounding, far below the time in which a
# system gives a number to another process.
_SAME_START = 1.0


@dataclass(frozen=True)
class Owner:
    """A process that works on something.

    Parameters
    ----------
    host
        Name of its machine, for people.
    boot
        Of its machine; no other machine has the same, nor this one after its next boot.
    namespace
        Of its number; empty where systems have one only, `UNKNOWN` where it can't be told.
    pid
        Its number.
    started
        In seconds: on Linux since boot, elsewhere since 1970.
    key
        Tells it from itself at another time.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: float
    key: str

    @classmethod
    def here(cls) -> Owner:
        """Return a new owner for this process."""
        place, pid = _place(), os.getpid()
        started = 0.0 if UNKNOWN in place else _started(pid)  # there is another one's
        return cls(*place, pid, started, uuid.uuid4().hex)

    @classmethod
    def read(cls, text: str) -> Owner:
        """Return what ``str`` made text of, now or in an earlier version."""
        if text.startswith("{"):
            return cls(**json.loads(text))
        host, pid, started, key = text.rsplit(" ", 3)
        return cls(host, UNKNOWN, UNKNOWN, int(pid), float(started), key)

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @property
    def where(self) -> str:
        """Where it is, for people."""
        host, boot, namespace = _place()
        apart = self.boot == boot and self.namespace != namespace
        return f"on {self.host}" + (", in another PID namespace (a container?)" if apart else "")

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None where that can't be told from here."""
        import psutil

        if (self.host, self.boot, self.namespace) != _place() or self.namespace == UNKNOWN:
            return None
        try:
            if psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(_started(self.pid) - self.started) < _SAME_START
        except psutil.NoSuchProcess:
            return None if _hidden(self.pid) else False
        except psutil.AccessDenied:
            return None


def _place() -> tuple[str, str, str]:
    """Host, boot and PID namespace of this process."""
    return socket.gethostname(), _boot(), _namespace()


def _boot() -> str:
    import psutil

    try:
        return BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return f"{uuid.getnode():012x} {psutil.boot_time():.0f}"


def _namespace() -> str:
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # of another namespace than this process
            return UNKNOWN
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return ""


def _started(pid: int) -> float:
    import psutil

    # Linux counts from its boot. psutil adds when that was by the clock, which may be set since.
    boot = psutil.boot_time() if sys.platform == "linux" else 0.0
    return float(psutil.Process(pid).create_time() - boot)


def _hidden(pid: int) -> bool:
    """Whether there is a process of another user: systems may show only one's own."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False

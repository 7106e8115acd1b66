"""Who carries out a run: one process at a time, also on several machines.

A run's row names its owner and when that was heard of last. Whoever stores something of the run
checks in the same transaction that it still is the owner, so that two never mix their rounds. The
clocks of machines that share a database have to agree within a minute or so.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import Engine, Update, select, update
from sqlalchemy.orm import Session

from distreal_dse.errors import DistrealError, InputError, StorageError
from distreal_dse.fronts import utc_now, writing
from fl._schema import RunRow

RENEWED = 20.0
"""Seconds from one sign of life to the next."""

STALE = 300.0
"""Seconds without one after which a run may be taken over: more than a database that is locked or
restarted keeps its owner waiting."""

# The start of a process is told by the wall clock, which may be set in between.
_CLOCK_SHIFT = 60.0


class RunHeldError(DistrealError):
    """Another process carries out the run."""


@dataclass(frozen=True)
class Owner:
    """A process that carries out a run; ``key`` tells it from itself at another time."""

    host: str
    pid: int
    started: float
    key: str

    @classmethod
    def here(cls) -> Owner:
        """Return a new owner for this process."""
        import psutil

        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time(), uuid4().hex)

    @classmethod
    def read(cls, text: str) -> Owner:
        """Return what ``str`` made text of."""
        host, pid, started, key = text.rsplit(" ", 3)
        return cls(host, int(pid), float(started), key)

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.started} {self.key}"

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended: it was on this machine."""
        import psutil

        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            return bool(abs(process.create_time() - self.started) > _CLOCK_SHIFT)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


@contextmanager
def holding(engine: Engine, run_id: int) -> Iterator[Owner]:
    """Own a run; gives the owner, for those who store something of it.

    Raises
    ------
    RunHeldError
        If a process carries it out that may be alive; says which, and since when.
    InputError
        If there is no such run.
    StorageError
        Where the database can't be written.
    """
    owner = Owner.here()
    _take(engine, run_id, owner)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(engine, run_id, owner, done), daemon=True)
    renewing.start()
    try:
        yield owner
    finally:
        done.set()
        renewing.join()
        with suppress(StorageError):  # the database may be what went wrong; others see it go stale
            _release(engine, run_id, owner)


def check_owner(session: Session, run_id: int, owner: Owner | None) -> None:
    """Refuse what somebody stores who is not the owner any more; None for those who never were.

    To be called in the transaction that stores it.

    Raises
    ------
    RunHeldError
        If the run was taken over.
    """
    if owner is None:
        return
    query = select(RunRow.owner).where(RunRow.id == run_id).with_for_update()
    if session.scalar(query) != str(owner):
        raise RunHeldError(
            f"run {run_id} was taken over by another process, as nothing was heard of this one for "
            f"{STALE:g} s: expected to be the only one that carries it out; leave it to the other"
        )


def _take(engine: Engine, run_id: int, owner: Owner) -> None:
    with writing(engine) as session:
        row = session.get(RunRow, run_id, with_for_update=True)
        if row is None:
            raise InputError(f"run {run_id}: expected a stored run, found none of this number")
        heard = row.heartbeat or 0.0
        if row.owner is not None and abs(time.time() - heard) < STALE:
            other = Owner.read(row.owner)
            if not other.is_gone:
                last = datetime.fromtimestamp(heard, UTC).isoformat(timespec="seconds")
                raise RunHeldError(
                    f"run {run_id} is carried out by process {other.pid} on {other.host} since "
                    f"{row.owned_since}, last heard of at {last}: expected nobody else; wait for "
                    f"it or end it (one that is gone is given up after {STALE:g} s)"
                )
        row.owner, row.owned_since, row.heartbeat = str(owner), utc_now(), time.time()


def _renew(engine: Engine, run_id: int, owner: Owner, done: threading.Event) -> None:
    while not done.wait(RENEWED):
        with suppress(StorageError), writing(engine) as session:
            session.execute(_own(run_id, owner).values(heartbeat=time.time()))


def _release(engine: Engine, run_id: int, owner: Owner) -> None:
    with writing(engine) as session:
        session.execute(_own(run_id, owner).values(owner=None, owned_since=None, heartbeat=None))


def _own(run_id: int, owner: Owner) -> Update:
    return update(RunRow).where(RunRow.id == run_id, RunRow.owner == str(owner))

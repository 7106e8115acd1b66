"""Who works on something stored, such as a run: one process at a time, also on several machines.

Its row names the owner and when that was heard of last. Whoever stores something of it checks that
it still is the owner, so that two never mix their results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, extract, func, select
from sqlalchemy.orm import Mapped, Session

from distreal_dse.errors import DistrealError, InputError, StorageError
from distreal_dse.fronts import outlasting_restarts, writing
from distreal_dse.support.owners import Owner

RENEWED = 20.0
"""Seconds from one sign of life to the next."""

STALE = 300.0
"""Seconds without one after which another process may take over, where it can't tell whether the
owner lives: more than a database that is locked or restarted keeps its owner waiting."""


class Leased:
    """Columns of a table whose rows have an owner.

    ``heartbeat`` is its last sign of life, in seconds since 1970.
    """

    owner: Mapped[str | None]
    owned_since: Mapped[str | None]
    heartbeat: Mapped[float | None]


class HeldError(DistrealError):
    """Another process works on it."""


@dataclass(frozen=True)
class Lease:
    """What one process works on at a time.

    Parameters
    ----------
    table, key
        Its row.
    name
        For people, such as ``"run 7"``.
    advice
        What to do while another process works on it.
    """

    table: type[Leased]
    key: int | str
    name: str
    advice: str = "wait for it or end it"


@dataclass(frozen=True)
class Work:
    """Something that a process works on.

    Parameters
    ----------
    kind, name
        ``"search"`` or ``"run"``, and which.
    owner
        The process.
    since
        When it began, as text.
    silent
        Seconds since its last sign of life.
    stage, done, total
        How far it is; None where that is not known. Of a search it may be some seconds old.
    """

    kind: str
    name: str
    owner: Owner
    since: str
    silent: float
    stage: str | None = None
    done: int | None = None
    total: int | None = None

    @classmethod
    def of(
        cls, row: Leased, now: float, kind: str, name: str, stage: str | None,
        done: int | None, total: int | None,
    ) -> Work:  # fmt: skip
        """Read a row that has an owner, at a time of `clock`."""
        silent = max(now - (row.heartbeat or now), 0.0)
        owner = Owner.read(row.owner or "")
        return cls(kind, name, owner, row.owned_since or "", silent, stage, done, total)

    @property
    def alive(self) -> bool | None:
        """Whether its process lives; None where that can't be told, and it was heard of lately."""
        alive = self.owner.alive
        return False if alive is None and self.silent >= STALE else alive


@contextmanager
def holding(engine: Engine, lease: Lease, owner: Owner | None = None) -> Iterator[Owner]:
    """Own something; gives the owner, for those who store something of it.

    Parameters
    ----------
    engine, lease
        The opened database, and what in it.
    owner
        Who owns it; None for a new one, of this process.

    Raises
    ------
    HeldError
        If a process works on it that may be alive; says which, and since when.
    InputError
        If there is no such row.
    StorageError
        Where the database can't be written.
    """
    owner, done = owner or Owner.here(), threading.Event()
    renewing = threading.Thread(target=_renew, args=(engine, lease, owner, done), daemon=True)
    try:
        _take(engine, lease, owner)
        renewing.start()
        yield owner
    finally:
        done.set()
        if renewing.ident is not None:
            renewing.join()
        with suppress(StorageError):  # the database may be what went wrong; others see it go stale
            _note(engine, lease, owner, given_back=True)


def check_owner(session: Session, lease: Lease, owner: Owner | None) -> None:
    """Refuse what somebody stores who is not the owner any more; None for those who never were.

    To be called in the transaction that stores it.

    Raises
    ------
    HeldError
        If it was taken over.
    """
    if owner is None:
        return
    row = _row(session, lease)
    if row is None or row.owner != str(owner):
        taker = "another process, which has given it back"
        if row is not None and row.owner is not None:
            other = Owner.read(row.owner)
            taker = f"process {other.pid} {other.where} at {row.owned_since}"
        raise HeldError(
            f"{lease.name} was taken over by {taker}: expected to be the only one that carries it "
            "out; leave it to the other"
        )


@outlasting_restarts
def _take(engine: Engine, lease: Lease, owner: Owner) -> None:
    with writing(engine) as session:
        row = _row(session, lease)
        if row is None:
            raise InputError(f"{lease.name}: expected one that is stored, found none")
        now = clock(session)
        if row.owner not in (None, str(owner)):  # it is ours where a commit was kept unheard
            _check_given_up(lease, row, now)
        own(row, owner, now)


def own(row: Leased, owner: Owner, now: float) -> None:
    """Write into a row who owns it from now on."""
    row.owner, row.owned_since, row.heartbeat = str(owner), _shown(now), now


def is_given_up(row: Leased, now: float) -> bool:
    """Whether a row has no owner that may be alive at a time of `clock`."""
    if row.owner is None:
        return True
    alive = Owner.read(row.owner).alive
    return alive is False or alive is None and abs(now - (row.heartbeat or 0.0)) >= STALE


def _check_given_up(lease: Lease, row: Leased, now: float) -> None:
    if is_given_up(row, now):
        return
    other, heard = Owner.read(row.owner or ""), row.heartbeat or 0.0
    gone = "" if other.alive else f" (if it is gone, try again at {_shown(heard + STALE)})"
    raise HeldError(
        f"{lease.name} is carried out by process {other.pid} {other.where} since "
        f"{row.owned_since}, last heard of at {_shown(heard)}: expected nobody else; "
        f"{lease.advice}{gone}"
    )


def _renew(engine: Engine, lease: Lease, owner: Owner, done: threading.Event) -> None:
    while not done.wait(RENEWED):
        with suppress(StorageError):
            _note(engine, lease, owner)


def _note(engine: Engine, lease: Lease, owner: Owner, given_back: bool = False) -> None:
    """Store a sign of life, or that there is no owner any more; nothing if it was taken over."""
    with writing(engine) as session:
        row = _row(session, lease)
        if row is None or row.owner != str(owner):
            return
        row.heartbeat = None if given_back else clock(session)
        if given_back:
            row.owner = row.owned_since = None


def _row(session: Session, lease: Lease) -> Leased | None:
    row: Any = session.get(lease.table, lease.key, with_for_update=True)
    return row  # type: ignore[no-any-return]


def clock(session: Session) -> float:
    """Return seconds since 1970, by one clock for all who share the database.

    A SQLite file is shared by processes of one machine, or nearly so.
    """
    if session.get_bind().dialect.name == "postgresql":
        return float(session.scalars(select(extract("epoch", func.clock_timestamp()))).one())
    return time.time()


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

"""Who carries out a search: one process at a time, also on several machines, or many that joined.

`distreal_dse.search.ledger._company` is for the latter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine, select

from distreal_dse.errors import StorageError
from distreal_dse.fronts import (
    Front,
    not_waiting,
    outlasting_restarts,
    reading,
    save_front,
    writing,
)
from distreal_dse.fronts.leases import Lease, Work, check_owner, clock, holding
from distreal_dse.search.ledger._company import Company, add_search, check_nobody_joined
from distreal_dse.search.ledger._schema import DriverRow, SearchRow
from distreal_dse.support.owners import Owner

NOTED = 5.0
"""Seconds from one note of how far a search is to the next, unless a stage begins."""


class Alone:
    """A search that this process carries out alone; made by `holding_search`.

    The parts of a `Company` that all searches have.
    """

    def __init__(self, engine: Engine, search: str, owner: Owner) -> None:
        self._engine, self._search, self._owner = engine, search, owner

    @property
    def place(self) -> tuple[type[SearchRow], str]:
        """Where the database has this driver: table and key."""
        return SearchRow, self._search

    @outlasting_restarts
    def check(self) -> None:
        """Raise a `HeldError` if the search was taken over.

        Optuna stores trials in transactions of its own, so they are checked just before, not in
        them.
        """
        with reading(self._engine) as session:
            check_owner(session, _lease(self._search), self._owner)

    def agree(self, settings_key: str, snapshot: float | None = None) -> None:
        """Nothing: there is nobody to agree with."""

    def store(self, front: Front, trials: int) -> Front:
        """Store what came of the search; returns it with its version.

        Raises
        ------
        HeldError
            If the search was taken over.
        StorageError
            If the database can't be written.
        """
        self.check()
        return save_front(self._engine, front)


@contextmanager
def holding_search(engine: Engine, name: str) -> Iterator[Alone]:
    """Own a search.

    Raises
    ------
    HeldError
        If a process carries it out that may be alive; says which, and since when.
    StorageError
        Where the database can't be written.
    """
    add_search(engine, name)
    with holding(engine, _lease(name)) as owner:
        check_nobody_joined(engine, name)
        yield Alone(engine, name, owner)


def _lease(name: str) -> Lease:
    return Lease(
        SearchRow,
        name,
        f"search '{name}'",
        "wait for it, or end it and begin both with --join, or search under another name with "
        "--name",
    )


def progress_notes(engine: Engine, driver: Alone | Company) -> Callable[[str, int, int], None]:
    """Return what notes for others how far a search is, when told: its stage, done, total."""
    table, key = driver.place
    noted: tuple[str, float] | None = None

    def note(stage: str, done: int, total: int) -> None:
        nonlocal noted
        now = time.monotonic()
        if noted is not None and noted[0] == stage and now - noted[1] < NOTED:
            return
        noted = stage, now
        with suppress(StorageError), not_waiting(), writing(engine) as session:
            row = session.get(table, key)
            if isinstance(row, SearchRow | DriverRow):
                row.stage, row.done, row.total = stage, done, total

    return note


@outlasting_restarts
def searches_under_way(engine: Engine) -> list[Work]:
    """Return who works on searches, by search and since when.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    with reading(engine) as session:
        now, drivers = clock(session), list(session.scalars(select(DriverRow)))
        joined = {row.owner for row in drivers}
        alone = session.scalars(select(SearchRow).where(SearchRow.owner.is_not(None)))
        rows: list[tuple[str, SearchRow | DriverRow]] = [
            (row.search, row) for row in drivers if row.owner is not None
        ]
        # A driver that stores the front of a search that many work on is among them.
        rows += [(row.name, row) for row in alone if row.owner not in joined]
        found = [
            Work.of(row, now, "search", name, row.stage, row.done, row.total) for name, row in rows
        ]
    return sorted(found, key=lambda work: (work.name, work.since))

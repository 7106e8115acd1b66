"""Who works on a search together: drivers of any number of hosts, and what each has begun.

A driver has a row with its signs of life. What it begins, a trial or a short run, is claimed under
its key in one transaction, so that nobody else begins it. Once its row is gone, or is given up as
any lease is, its claims are free to be taken over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from sqlalchemy import ColumnElement, Engine, delete, func, select
from sqlalchemy.orm import Session

from distreal_dse.convergence import Replicate
from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts import (
    ConflictError,
    Front,
    VerificationRow,
    load_front,
    outlasting_restarts,
    reading,
    save_front,
    writing,
)
from distreal_dse.fronts.leases import STALE, HeldError, Lease, clock, holding, is_given_up, own
from distreal_dse.search.ledger._comparable import SAME_LOSS
from distreal_dse.search.ledger._schema import WHOLE, ClaimRow, DriverRow, SearchRow
from distreal_dse.support.owners import Owner

Run = tuple[str, int]
"""A short run: what it is kept under, and its replicate."""

POLL = 0.5
"""Seconds between two looks at the database where there is nothing to do but to wait."""


class Claim(Enum):
    """What became of a claim: it is ours, somebody else's, or there are trials enough."""

    OURS = auto()
    TAKEN = auto()
    ENOUGH = auto()


@dataclass(frozen=True)
class Begun:
    """What others do.

    Parameters
    ----------
    trials, lost
        Parameters of the trials that others have begun, and of those whose driver is gone, by name.
    searching
        Whether others propose vectors, or may do so.
    goal
        The most trials that any of those wants.
    """

    trials: Mapping[str, dict[str, Any]]
    lost: Mapping[str, dict[str, Any]]
    searching: bool
    goal: int


@dataclass(frozen=True)
class Shared:
    """What became of short runs that all want: ours to do, done by now, failed elsewhere."""

    ours: tuple[Run, ...] = ()
    known: Mapping[Run, Replicate] = field(default_factory=dict)
    failed: Mapping[Run, str] = field(default_factory=dict)


class Company:
    """One driver's part in a search that many work on; made by `joining`."""

    def __init__(self, engine: Engine, search: str, owner: Owner, finishes: int) -> None:
        self._engine, self._search, self._owner = engine, search, owner
        self._me, self._finishes = owner.key, finishes
        self._key = ""

    @property
    def place(self) -> tuple[type[DriverRow], str]:
        """Where the database has this driver: table and key."""
        return DriverRow, self._me

    @outlasting_restarts
    def check(self) -> None:
        """Raise a `HeldError` if others took this driver for lost."""
        with reading(self._engine) as session:
            self._row(session)

    @outlasting_restarts
    def agree(self, settings_key: str, snapshot: float | None = None) -> None:
        """Refuse to work beside drivers whose short runs are others.

        To be called before anything is stored.

        Parameters
        ----------
        settings_key
            Of the trials (`search_key`).
        snapshot
            Its loss, where it is known.

        Raises
        ------
        InputError
            If another driver that lives has others.
        """
        with self._locked() as session:
            row = self._row(session)
            for other in self._live(session):
                if other.settings_key not in (None, settings_key):
                    what = "other settings, or with another model,"
                elif None not in (other.snapshot, snapshot) and (
                    abs((other.snapshot or 0.0) - (snapshot or 0.0)) > SAME_LOSS
                ):
                    what = (
                        f"a snapshot of validation loss {other.snapshot:.4f} (here it is "
                        f"{snapshot:.4f}: data, model, loss or versions differ)"
                    )
                else:
                    continue
                raise InputError(
                    f"search '{self._search}' is worked on with {what} by {_named(other)}: "
                    "expected the same; use the same, or search under another name with --name"
                )
            row.settings_key, row.snapshot = settings_key, snapshot
        self._key = settings_key

    @outlasting_restarts
    def propose(self, searching: bool, trials: int) -> None:
        """Tell others whether this driver proposes vectors, and up to how many trials."""
        with writing(self._engine) as session:
            row = self._row(session)
            row.searching, row.trials = searching, trials

    @outlasting_restarts
    def look(self) -> Begun:
        """Return what others do; drivers that are lost are no part of it any more."""
        with reading(self._engine) as session:
            now, drivers = clock(session), self._drivers(session)
            lost = any(is_given_up(row, now) for row in drivers)
        if lost:
            self._part_from_lost()
        with reading(self._engine) as session:
            others = {row.key: row for row in self._drivers(session)}
            claims = session.scalars(select(ClaimRow).where(*self._trials(ended=False))).all()
            found = {claim.name: claim for claim in claims if claim.driver != self._me}
            return Begun(
                {name: one.params for name, one in found.items() if one.driver in others},
                {name: one.params for name, one in found.items() if one.driver not in others},
                any(row.searching for row in others.values()),
                max((row.trials for row in others.values() if row.searching), default=0),
            )

    @outlasting_restarts
    def claim(
        self, name: str, params: Mapping[str, Any], finished: int, newest: int, goal: int
    ) -> Claim:
        """Begin a trial, unless somebody has, or there are as many as there shall be.

        Parameters
        ----------
        name, params
            Of the trial.
        finished, newest
            Trials that this driver knows of, and the number of the newest that others stored.
        goal
            Trials that the search ends with.
        """
        with self._locked() as session:
            self._row(session)
            row = session.get(ClaimRow, (self._key, name, WHOLE))
            if row is not None:
                if row.driver == self._me and row.trial is None:  # where a commit was kept unheard
                    return Claim.OURS
                if row.trial is not None or row.driver in {one.key for one in self._live(session)}:
                    return Claim.TAKEN
                row.driver = self._me
                return Claim.OURS
            begun = _count(session, *self._trials(ended=False))
            unheard = _count(
                session, *self._trials(ended=True), ClaimRow.trial > newest,
                ClaimRow.driver != self._me,
            )  # fmt: skip
            if finished + begun + unheard >= goal:
                return Claim.ENOUGH
            session.add(
                ClaimRow(search=self._key, name=name, replicate=WHOLE, driver=self._me,
                         params=dict(params))
            )  # fmt: skip
            return Claim.OURS

    @outlasting_restarts
    def end(self, name: str, trial: int) -> None:
        """Note that a trial was stored, under which number."""
        with writing(self._engine) as session:
            row = session.get(ClaimRow, (self._key, name, WHOLE))
            if row is not None and row.trial is None:
                row.trial = trial

    @outlasting_restarts
    def share(self, wanted: Sequence[Run], room: int) -> Shared:
        """Begin some of the short runs that all drivers want.

        Parameters
        ----------
        wanted
            In the order in which they are to be done.
        room
            How many to begin.
        """
        if not wanted:
            return Shared()
        known = self.known(dict.fromkeys(name for name, _ in wanted))
        with self._locked() if room else reading(self._engine) as session:
            self._row(session)
            live = {row.key for row in self._live(session)}
            query = select(ClaimRow).where(
                ClaimRow.search == self._key,
                ClaimRow.replicate != WHOLE,
                ClaimRow.name.in_({name for name, _ in wanted}),
            )
            claims = {(one.name, one.replicate): one for one in session.scalars(query)}
            ours, failed = list[Run](), dict[Run, str]()
            for name, replicate in wanted:
                if (name, replicate) in known:
                    continue
                claim = claims.get((name, replicate))
                if claim is not None and claim.driver in live:
                    if claim.failure is not None:
                        failed[name, replicate] = claim.failure
                elif len(ours) < room and not _is_kept(session, self._key, name, replicate):
                    ours.append((name, replicate))
                    if claim is None:
                        claim = ClaimRow(search=self._key, name=name, replicate=replicate,
                                         params={})  # fmt: skip
                        session.add(claim)
                    claim.driver, claim.failure = self._me, None
        return Shared(tuple(ours), known, failed)

    @outlasting_restarts
    def known(self, names: Sequence[str] | Mapping[str, Any]) -> dict[Run, Replicate]:
        """Return the short runs of these names that ended well, whoever did them."""
        with reading(self._engine) as session:
            query = select(VerificationRow).where(
                VerificationRow.search == self._key, VerificationRow.kept_counts_key.in_([*names])
            )
            return {
                (one.kept_counts_key, one.replicate): Replicate(one.loss_gain, one.accuracy)
                for one in session.scalars(query)
            }

    @outlasting_restarts
    def runs(self, prefix: str) -> int:
        """Return how many short runs ended well whose names begin like this."""
        with reading(self._engine) as session:
            query = select(func.count()).select_from(VerificationRow).where(
                VerificationRow.search == self._key,
                VerificationRow.kept_counts_key.startswith(prefix, autoescape=True),
            )  # fmt: skip
            return session.scalar(query) or 0

    @outlasting_restarts
    def fail(self, name: str, replicate: int, reason: str) -> None:
        """Note that a short run of ours failed: nobody need do it again while we work on it."""
        with writing(self._engine) as session:
            row = session.get(ClaimRow, (self._key, name, replicate))
            if row is not None and row.driver == self._me:
                row.failure = reason

    def store(self, front: Front, trials: int) -> Front:
        """Store what came of the search, unless another driver did so first; return what is stored.

        Parameters
        ----------
        front
            What this driver found.
        trials
            How many trials it came of.

        Raises
        ------
        HeldError
            If others took this driver for lost.
        StorageError
            If the database can't be written.
        """
        lease = Lease(SearchRow, self._search, f"search '{self._search}'")
        while True:
            with ExitStack() as stack:
                try:
                    stack.enter_context(holding(self._engine, lease, self._owner))
                except HeldError:  # who holds it stores the front
                    time.sleep(POLL)
                    continue
                return self._stored(front, trials)

    def _stored(self, front: Front, trials: int) -> Front:
        label, of, finishes = self._finished()
        if label is not None and finishes != self._finishes and of >= trials:
            return load_front(self._engine, label)
        stored = save_front(self._engine, front)
        self._note_front(stored.label, trials, finishes + 1)
        return stored

    @outlasting_restarts
    def _finished(self) -> tuple[str | None, int, int]:
        """The front that drivers stored last, of how many trials, and how often they did."""
        with reading(self._engine) as session:
            self._row(session)
            row = session.get_one(SearchRow, self._search)
            return row.front, row.front_trials or 0, row.finishes or 0

    @outlasting_restarts
    def _note_front(self, label: str, trials: int, finishes: int) -> None:
        with writing(self._engine) as session:
            row = session.get_one(SearchRow, self._search)
            row.front, row.front_trials, row.finishes = label, trials, finishes

    @outlasting_restarts
    def _part_from_lost(self) -> None:
        with self._locked() as session:
            now = clock(session)
            for row in self._drivers(session):
                if is_given_up(row, now):
                    session.delete(row)

    @outlasting_restarts
    def leave(self) -> None:
        """Free what was begun and is not finished for others to take over."""
        with self._locked() as session:
            session.execute(
                delete(ClaimRow).where(ClaimRow.driver == self._me, ClaimRow.replicate != WHOLE)
            )
            session.execute(delete(DriverRow).where(DriverRow.key == self._me))

    def _row(self, session: Session) -> DriverRow:
        row = session.get(DriverRow, self._me)
        if row is None:
            raise HeldError(
                f"search '{self._search}' goes on without this process: expected a sign of life "
                f"from it every {STALE:.0f} s, found none, so others took over what it had begun; "
                "run the same command again to join them"
            )
        return row

    def _drivers(self, session: Session) -> list[DriverRow]:
        return [row for row in _drivers(session, self._search) if row.key != self._me]

    def _live(self, session: Session) -> list[DriverRow]:
        now = clock(session)
        return [row for row in self._drivers(session) if not is_given_up(row, now)]

    def _trials(self, ended: bool) -> list[ColumnElement[bool]]:
        return [
            ClaimRow.search == self._key,
            ClaimRow.replicate == WHOLE,
            ClaimRow.trial.is_not(None) if ended else ClaimRow.trial.is_(None),
        ]

    @contextmanager
    def _locked(self) -> Iterator[Session]:
        """Write in a transaction beside which no other driver of the search has one of these."""
        with writing(self._engine) as session:
            session.get(SearchRow, self._search, with_for_update=True)
            yield session


@contextmanager
def joining(engine: Engine, search: str, trials: int, pilot: bool) -> Iterator[Company]:
    """Work on a search together with whoever else does, and leave in the end.

    Parameters
    ----------
    engine
        The opened database.
    search
        Its name.
    trials, pilot
        What is asked for; all drivers have to agree on the second.

    Raises
    ------
    HeldError
        If a process carries it out alone that may be alive.
    InputError
        If others have a pilot and this one has not, or the other way round.
    StorageError
        Where the database can't be written.
    """
    add_search(engine, search)
    owner = Owner.here()
    finishes = _register(engine, search, owner, trials, pilot)
    company = Company(engine, search, owner, finishes)
    lease = Lease(DriverRow, owner.key, f"this process' part in search '{search}'")
    try:
        with holding(engine, lease, owner):
            yield company
    finally:
        with suppress(StorageError):  # the database may be what went wrong; others see it go stale
            company.leave()


@outlasting_restarts
def add_search(engine: Engine, name: str) -> None:
    """Give a search its row."""
    with suppress(ConflictError), writing(engine) as session:  # another process just added it
        if session.get(SearchRow, name) is None:
            session.add(SearchRow(name=name))


@outlasting_restarts
def _register(engine: Engine, search: str, owner: Owner, trials: int, pilot: bool) -> int:
    with writing(engine) as session:
        row = session.get_one(SearchRow, search, with_for_update=True)
        now, drivers = clock(session), _drivers(session, search)
        live = [one for one in drivers if not is_given_up(one, now) and one.key != owner.key]
        if not is_given_up(row, now) and row.owner not in {one.owner for one in live}:
            raise HeldError(
                f"search '{search}' is carried out by {_named(row)}, alone: expected one that was "
                "begun with --join; wait for it, or end it and begin both with --join"
            )
        for one in live:
            if one.pilot != pilot:
                raise InputError(
                    f"search '{search}' is worked on {'with' if one.pilot else 'without'} a pilot "
                    f"by {_named(one)}: expected the same; "
                    f"{'leave --no-pilot out' if one.pilot else 'add --no-pilot'}"
                )
        if session.get(DriverRow, owner.key) is None:  # else a commit was kept unheard
            driver = DriverRow(
                key=owner.key, search=search, pilot=pilot, trials=trials, searching=False
            )
            own(driver, owner, now)
            session.add(driver)
        return row.finishes or 0


def check_nobody_joined(engine: Engine, search: str) -> None:
    """Refuse to carry a search out alone that others work on.

    Raises
    ------
    HeldError
        If somebody works on it that may be alive.
    """
    with reading(engine) as session:
        now = clock(session)
        for row in _drivers(session, search):
            if not is_given_up(row, now):
                raise HeldError(
                    f"search '{search}' is worked on by {_named(row)}, with --join: expected "
                    "nobody else; add --join to work on it together, or search under another name "
                    "with --name"
                )


def _drivers(session: Session, search: str) -> list[DriverRow]:
    return list(session.scalars(select(DriverRow).where(DriverRow.search == search)))


def _named(row: SearchRow | DriverRow) -> str:
    owner = Owner.read(row.owner or "")
    return f"process {owner.pid} {owner.where} since {row.owned_since}"


def _count(session: Session, *where: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(ClaimRow).where(*where)) or 0


def _is_kept(session: Session, key: str, name: str, replicate: int) -> bool:
    """Whether a run ended well since it was looked for: its driver may have left at once."""
    query = select(VerificationRow.replicate).where(
        VerificationRow.search == key,
        VerificationRow.kept_counts_key == name,
        VerificationRow.replicate == replicate,
    )
    return session.scalar(query) is not None

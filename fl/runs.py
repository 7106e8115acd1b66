"""Federated runs in the database: each round is committed as soon as it is done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, reading, utc_now, writing
from fl._schema import DeviceRoundRow, RoundRow, RunRow
from fl.results import DeviceRound, RoundResult


@dataclass(frozen=True)
class Run:
    """A stored run and its rounds so far, in order.

    ``front_label`` and ``front_hash`` are None for strategies without a front; ``settings`` is
    what `RunSpec.as_json` gave; ``created_at`` is ISO 8601 in UTC.
    """

    id: int
    study: str
    strategy: str
    front_label: str | None
    front_hash: str | None
    model_fingerprint: str
    seed: int
    settings: Mapping[str, Any]
    created_at: str
    finished: bool
    comparison: str | None
    rounds: tuple[RoundResult, ...]

    @property
    def accuracy(self) -> float | None:
        """Test accuracy of the last round that was evaluated."""
        scores = (result.accuracy for result in reversed(self.rounds))
        return next((score for score in scores if score is not None), None)


def start_run(
    engine: Engine,
    study: str,
    strategy: str,
    front: Front | None,
    model_fingerprint: str,
    seed: int,
    settings: Mapping[str, Any],
    comparison: str | None = None,
) -> int:
    """Store a run that begins, and return its id.

    Parameters
    ----------
    engine
        An opened database.
    study, strategy
        Their names.
    front
        What the run trains with, if it needs one.
    model_fingerprint
        ``network.channels.fingerprint``.
    seed
        Of the run.
    settings
        `RunSpec.as_json`, or whatever else JSON can hold.
    comparison
        Name of the comparison that the run belongs to, if it does.

    Raises
    ------
    StorageError
        Where the database can't be written.
    """
    row = RunRow(
        study=study,
        strategy=strategy,
        front_label=front.label if front else None,
        front_hash=front.content_hash if front else None,
        model_fingerprint=model_fingerprint,
        seed=seed,
        settings=dict(settings),
        created_at=utc_now(),
        finished=False,
        comparison=comparison,
    )
    with writing(engine) as session:
        session.add(row)
        session.flush()
        return row.id


def save_round(engine: Engine, run_id: int, result: RoundResult) -> None:
    """Store a finished round; a loss that is not finite is stored as none.

    Raises
    ------
    ConflictError
        Where the run has this round already, or doesn't exist.
    StorageError
        Where the database can't be written.
    """
    values = asdict(result) | {"cohort": list(result.cohort)}
    values["devices"] = [DeviceRoundRow(**one) for one in values["devices"]]
    if result.loss is not None and not math.isfinite(result.loss):
        values["loss"] = None  # SQLite turns NaN into NULL by itself, PostgreSQL does not
    with writing(engine) as session:
        session.add(RoundRow(run_id=run_id, **values))


def finish_run(engine: Engine, run_id: int) -> None:
    """Mark a run as complete.

    Raises
    ------
    InputError
        Where there is no such run.
    StorageError
        Where the database can't be written.
    """
    with writing(engine) as session:
        _row(session, run_id).finished = True


def load_run(engine: Engine, run_id: int) -> Run:
    """Load a run with its rounds.

    Raises
    ------
    InputError
        Where there is no such run.
    StorageError
        Where the database can't be read.
    """
    with reading(engine) as session:
        return _run(_row(session, run_id))


def list_runs(engine: Engine, comparison: str | None = None) -> list[Run]:
    """Load all runs with their rounds, or those of a comparison; the oldest first.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    query = select(RunRow).order_by(RunRow.id)
    if comparison is not None:
        query = query.where(RunRow.comparison == comparison)
    with reading(engine) as session:
        return [_run(row) for row in session.scalars(query)]


def forget_rounds(engine: Engine, run_id: int, after: int) -> None:
    """Delete the rounds of a run behind a round, to train them again.

    Raises
    ------
    StorageError
        Where the database can't be written.
    """
    with writing(engine) as session:
        for row in session.scalars(
            select(RoundRow).where(RoundRow.run_id == run_id, RoundRow.round > after)
        ):
            session.delete(row)


def finished_rounds(engine: Engine, comparison: str) -> dict[int, tuple[int, bool]]:
    """Return how many rounds each run of a comparison has, round 0 included, and if it is finished.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    query = (
        select(RunRow.id, RunRow.finished, func.count(RoundRow.round))
        .join(RoundRow, RoundRow.run_id == RunRow.id, isouter=True)
        .where(RunRow.comparison == comparison)
        .group_by(RunRow.id, RunRow.finished)
    )
    with reading(engine) as session:
        return {run_id: (count, over) for run_id, over, count in session.execute(query)}


def _row(session: Session, run_id: int) -> RunRow:
    row = session.get(RunRow, run_id)
    if row is None:
        stored = session.scalars(select(RunRow.id).order_by(RunRow.id)).all()
        found = f"{len(stored)} runs, {stored[0]} to {stored[-1]}" if stored else "none at all"
        raise InputError(f"run {run_id}: expected a stored run, found {found}")
    return row


def _run(row: RunRow) -> Run:
    own = {column.name: getattr(row, column.name) for column in fields(Run)}
    return Run(**own | {"rounds": tuple(_result(stored) for stored in row.rounds)})


def _result(row: RoundRow) -> RoundResult:
    values = {column.name: getattr(row, column.name) for column in fields(RoundResult)}
    devices = tuple(
        DeviceRound(**{column.name: getattr(one, column.name) for column in fields(DeviceRound)})
        for one in row.devices
    )
    return RoundResult(**values | {"cohort": tuple(row.cohort), "devices": devices})

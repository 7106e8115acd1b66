"""Federated runs in the database: each round is committed as soon as it is done."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.orm import Session

from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts import Front, outlasting_restarts, reading, utc_now, writing
from fl.results import DeviceRound, RoundResult
from fl.store._schema import CheckpointRow, DeviceRoundRow, RoundRow, RunRow
from fl.store.conditions import Conditions, check_same
from fl.store.leases import Owner, check_owner


@dataclass(frozen=True)
class Run:
    """A stored run and its rounds so far, in order.

    ``front_label`` and ``front_hash`` are None for strategies without a front; ``settings`` is
    what `RunSpec.as_json` gave; ``created_at`` is ISO 8601 in UTC. ``contents`` are hashes of the
    study and of files that the settings name, and ``failure`` is why it failed when it was carried
    out last.
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
    contents: Mapping[str, str] = field(default_factory=dict)
    failure: str | None = None

    @property
    def conditions(self) -> Conditions:
        """What it was begun with."""
        return _conditions(self.settings, self.contents, self.model_fingerprint, self.front_hash)

    @property
    def evaluated_on(self) -> str:
        """The data that accuracies are on: ``"test"`` or ``"validation"``."""
        return str(self.settings.get("evaluate_on", "test"))

    @property
    def until(self) -> float | None:
        """Virtual seconds after which no further round begins; None for no such limit."""
        found = self.settings.get("until")
        return None if found is None else float(found)

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the last round that was evaluated."""
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
    contents: Mapping[str, str] | None = None,
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
    contents
        `FederatedRun.contents`; None knows nothing of them.

    Raises
    ------
    ConflictError
        If the comparison has a run of this strategy and seed.
    InputError
        If it has runs under other conditions.
    StorageError
        Where the database can't be written.
    """
    values = {
        "study": study,
        "strategy": strategy,
        "front_label": front.label if front else None,
        "front_hash": front.content_hash if front else None,
        "model_fingerprint": model_fingerprint,
        "seed": seed,
        "settings": json.loads(json.dumps(dict(settings))),  # as they will be read
        "created_at": utc_now("microseconds"),  # tells runs of different databases apart
        "comparison": comparison,
        "contents": dict(contents or {}),
    }
    given: list[int] = []

    @outlasting_restarts
    def store() -> int:
        with writing(engine) as session:
            for run_id in given:  # where the connection was lost, the run may be stored or not
                row = session.get(RunRow, run_id)
                if row and all(getattr(row, name) == value for name, value in values.items()):
                    return run_id
            row = RunRow(**values, finished=False)
            if comparison is not None:
                own = _conditions(row.settings, row.contents, row.model_fingerprint, row.front_hash)
                for stored in _conditions_in(session, comparison):
                    check_same(comparison, own, stored)
            session.add(row)
            session.flush()
            given.append(row.id)
            return row.id

    return store()


@outlasting_restarts
def save_round(
    engine: Engine, run_id: int, result: RoundResult, owner: Owner | None = None
) -> None:
    """Store a finished round; a loss that is not finite is stored as none.

    Nothing happens where exactly this round is stored already.

    Raises
    ------
    RunHeldError
        If ``owner`` does not carry it out any more.
    ConflictError
        Where the run has this round already, with other figures, or doesn't exist.
    StorageError
        Where the database can't be written.
    """
    if result.loss is not None and not math.isfinite(result.loss):
        result = replace(result, loss=None)  # SQLite makes NULL of NaN by itself, PostgreSQL not
    values = asdict(result) | {"cohort": list(result.cohort)}
    values["devices"] = [DeviceRoundRow(**one) for one in values["devices"]]
    with writing(engine) as session:
        check_owner(session, run_id, owner)
        # Where the connection was lost as it was stored, nobody knows if that was kept.
        stored = session.get(RoundRow, (run_id, result.round))
        if stored is None or not _is_same(_result(stored), result):
            session.expunge_all()
            session.add(RoundRow(run_id=run_id, **values))


@outlasting_restarts
def finish_run(engine: Engine, run_id: int, owner: Owner | None = None) -> None:
    """Mark a run as complete, and forget its checkpoints.

    Raises
    ------
    InputError
        Where there is no such run.
    RunHeldError
        If ``owner`` does not carry it out any more.
    StorageError
        Where the database can't be written, or rounds are missing.
    """
    with writing(engine) as session:
        row = _row(session, run_id)
        check_owner(session, run_id, owner)
        query = select(RoundRow.round).where(RoundRow.run_id == run_id).order_by(RoundRow.round)
        rounds = session.scalars(query).all()
        if (missing := missing_round(rounds)) is not None:
            raise StorageError(
                f"run {run_id} lacks round {missing}: expected rounds 0 to {rounds[-1]}; "
                f"`distreal-dse fl resume {run_id}` trains it again"
            )
        row.finished, row.failure = True, None
        session.execute(delete(CheckpointRow).where(CheckpointRow.run_id == run_id))


@outlasting_restarts
def note_failure(engine: Engine, run_id: int, failure: str | None, owner: Owner) -> None:
    """Store why a run failed; None where it goes on.

    Raises
    ------
    RunHeldError
        If ``owner`` does not carry it out any more.
    StorageError
        Where the database can't be written.
    """
    with writing(engine) as session:
        check_owner(session, run_id, owner)
        _row(session, run_id).failure = failure


@outlasting_restarts
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


@outlasting_restarts
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


@outlasting_restarts
def count_runs(engine: Engine) -> int:
    """Count all runs.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(RunRow)) or 0


@outlasting_restarts
def find_run(engine: Engine, comparison: str, strategy: str, seed: int) -> int | None:
    """Return the id of a comparison's run of a strategy and seed; None where it has none.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    query = select(RunRow.id).where(
        RunRow.comparison == comparison, RunRow.strategy == strategy, RunRow.seed == seed
    )
    with reading(engine) as session:
        return session.scalar(query)


@outlasting_restarts
def forget_rounds(engine: Engine, run_id: int, after: int, owner: Owner | None = None) -> None:
    """Delete the rounds of a run behind a round, and its checkpoints there, to train them again.

    Raises
    ------
    RunHeldError
        If ``owner`` does not carry it out any more.
    StorageError
        Where the database can't be written.
    """
    with writing(engine) as session:
        check_owner(session, run_id, owner)
        for row in session.scalars(
            select(RoundRow).where(RoundRow.run_id == run_id, RoundRow.round > after)
        ):
            session.delete(row)
        session.execute(
            delete(CheckpointRow).where(CheckpointRow.run_id == run_id, CheckpointRow.round > after)
        )


@outlasting_restarts
def last_round(engine: Engine, run_id: int) -> int | None:
    """Return the number of the round of a run that was stored last; None where it has none.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    with reading(engine) as session:
        return session.scalar(select(func.max(RoundRow.round)).where(RoundRow.run_id == run_id))


def missing_round(rounds: Sequence[int]) -> int | None:
    """Return the first round that is missing before the last one; None where there is none."""
    return next((place for place, number in enumerate(rounds) if place != number), None)


@outlasting_restarts
def finished_rounds(engine: Engine, comparison: str) -> dict[tuple[str, int], tuple[int, bool]]:
    """Return how many rounds each run of a comparison has, round 0 included, and if it is finished.

    By strategy and seed.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    query = (
        select(RunRow.strategy, RunRow.seed, RunRow.finished, func.count(RoundRow.round))
        .join(RoundRow, RoundRow.run_id == RunRow.id, isouter=True)
        .where(RunRow.comparison == comparison)
        .group_by(RunRow.id, RunRow.strategy, RunRow.seed, RunRow.finished)
    )
    with reading(engine) as session:
        found = session.execute(query)
        return {(strategy, seed): (count, over) for strategy, seed, over, count in found}


def _conditions(
    settings: Mapping[str, Any],
    contents: Mapping[str, str],
    model_fingerprint: str,
    front_hash: str | None,
) -> Conditions:
    front = {"front": front_hash} if front_hash else {}
    return Conditions(settings, {**contents, "model": model_fingerprint, **front})


def _conditions_in(session: Session, comparison: str) -> list[Conditions]:
    query = select(
        RunRow.settings, RunRow.contents, RunRow.model_fingerprint, RunRow.front_hash
    ).where(RunRow.comparison == comparison)
    return [_conditions(*row) for row in session.execute(query)]


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


def _is_same(one: RoundResult, other: RoundResult) -> bool:
    """Whether two rounds have the same figures, whatever the order of their devices."""
    devices = [sorted(result.devices, key=lambda each: each.device) for result in (one, other)]
    return devices[0] == devices[1] and replace(one, devices=()) == replace(other, devices=())

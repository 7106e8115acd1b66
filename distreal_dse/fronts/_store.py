"""Fronts and verification runs in the database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from distreal_dse.errors import FrontError, StorageError
from distreal_dse.fronts._database import ConflictError, open_database, reading, writing
from distreal_dse.fronts._exchange import import_front
from distreal_dse.fronts._front import COST_UNITS, Front, FrontPoint
from distreal_dse.fronts._outages import outlasting_restarts
from distreal_dse.fronts._schema import FrontPointRow, FrontRow, VerificationRow

# Each attempt is lost to one that another process won, so this many must save one name at once.
_ATTEMPTS = 100


@dataclass(frozen=True)
class FrontSummary:
    """A stored front without its points; ``points`` is their number."""

    name: str
    version: int
    study: str
    model_fingerprint: str
    cost_metric: str
    device: Mapping[str, Any]
    reference_cost: float
    hypervolume: float
    points: int
    created_at: str
    content_hash: str

    @property
    def label(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def cost_unit(self) -> str:
        """Unit of all costs, for people."""
        return COST_UNITS[self.cost_metric]


@outlasting_restarts
def save_front(engine: Engine, front: Front) -> Front:
    """Store a front as the next version of its name, and return it with that version.

    Stored fronts never change. Where the latest version of the name differs in its time of
    creation alone, that one is returned and nothing is written: running a finished search again
    makes no new version.

    Raises
    ------
    StorageError
        Where the database can't be written.
    """
    latest_of_name = (
        select(FrontRow)
        .where(FrontRow.name == front.name)
        .order_by(FrontRow.version.desc())
        .limit(1)
    )
    for _ in range(_ATTEMPTS):
        try:
            with writing(engine) as session:
                latest = session.scalar(latest_of_name)
                if latest is not None:
                    made_again = replace(front, created_at=latest.created_at)
                    if made_again.content_hash == latest.content_hash:
                        return replace(made_again, version=latest.version)
                version = latest.version + 1 if latest is not None else 1
                session.add(_row(front, version))
        except ConflictError:  # another process took the version first
            continue
        return replace(front, version=version)
    raise StorageError(
        f"front {front.name!r}: expected a free version, found each of {_ATTEMPTS} taken by "
        f"another process; try again"
    )


@outlasting_restarts
def load_front(engine: Engine, label: str) -> Front:
    """Load a stored front.

    Parameters
    ----------
    engine
        An opened database.
    label
        ``name`` for the latest version, or ``name@3``.

    Raises
    ------
    FrontError
        Where there is no such front, or it was changed since it was stored.
    StorageError
        Where the database can't be read.
    """
    name, separator, number = label.partition("@")
    if separator and not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise FrontError(
            f"front {label!r}: expected NAME or NAME@VERSION with a whole number, found "
            f"version {number!r}"
        )
    query = select(FrontRow).where(FrontRow.name == name).order_by(FrontRow.version.desc()).limit(1)
    if separator:
        query = query.where(FrontRow.version == int(number))
    with reading(engine) as session:
        row = session.scalar(query)
        if row is None:
            raise _unknown(session, label, name)
        version, content_hash, content = row.version, row.content_hash, _content(row)
    where = f"stored front {name}@{version}"
    try:
        front = Front.from_content(content, version)
    except FrontError as error:
        raise FrontError(f"{where} was changed in the database: {error}") from error
    front.check_hash(content_hash, where)
    return front


@outlasting_restarts
def list_fronts(engine: Engine) -> list[FrontSummary]:
    """Summaries of all stored fronts, by name and version.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    count = (
        select(func.count())
        .where(FrontPointRow.front_id == FrontRow.id)
        .correlate(FrontRow)
        .scalar_subquery()
    )
    columns = [
        count if column.name == "points" else getattr(FrontRow, column.name)
        for column in fields(FrontSummary)
    ]
    with reading(engine) as session:
        rows = session.execute(select(*columns).order_by(FrontRow.name, FrontRow.version)).all()
    return [FrontSummary(*row) for row in rows]


def find_front(storage: Engine | str, spec: str) -> Front:
    """Get a front from wherever it is.

    Parameters
    ----------
    storage
        An opened database or its URL; not touched where ``spec`` is a file.
    spec
        The path of an exchange file, which ends in ``.json``, or the label of a stored front.

    Raises
    ------
    FrontError
        Where there is no such front, or it was changed.
    StorageError
        Where the database can't be read.
    """
    if spec.lower().endswith(".json"):
        return import_front(spec)
    if isinstance(storage, Engine):
        return load_front(storage, spec)
    engine = open_database(storage, create=False)
    try:
        return load_front(engine, spec)
    finally:
        engine.dispose()


@outlasting_restarts
def load_verifications(
    engine: Engine, search: str, seed: int
) -> dict[tuple[str, int], tuple[float, float]]:
    """Get the finished verification runs of a search under a seed.

    Returns
    -------
    dict
        ``(kept counts key, replicate)`` → ``(loss gain, accuracy)``.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    with reading(engine) as session:
        rows = session.scalars(
            select(VerificationRow).where(
                VerificationRow.search == search, VerificationRow.seed == seed
            )
        )
        return {(r.kept_counts_key, r.replicate): (r.loss_gain, r.accuracy) for r in rows}


@outlasting_restarts
def verification_keys(engine: Engine, prefix: str) -> list[str]:
    """Get what verification runs are kept under, of that which begins like this.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    with reading(engine) as session:
        query = select(VerificationRow.search).distinct().order_by(VerificationRow.search)
        return list(session.scalars(query.where(VerificationRow.search.startswith(prefix))))


@outlasting_restarts
def save_verification(
    engine: Engine,
    search: str,
    seed: int,
    kept_counts_key: str,
    replicate: int,
    loss_gain: float,
    accuracy: float,
) -> None:
    """Keep a finished verification run; one that is kept already is replaced.

    Parameters
    ----------
    engine
        An opened database.
    search, seed
        What `load_verifications` is asked for.
    kept_counts_key, replicate
        The run: kept counts as text (`kept_counts_key`) and the number of its replicate.
    loss_gain, accuracy
        What it gave: improvement of the validation loss, and accuracy in [0, 1].

    Raises
    ------
    FrontError
        Where a value isn't finite.
    StorageError
        Where the database can't be written.
    """
    if not (math.isfinite(loss_gain) and math.isfinite(accuracy)):
        raise FrontError(
            f"verification of {kept_counts_key}, replicate {replicate}: expected finite values, "
            f"found loss gain {loss_gain} and accuracy {accuracy}; leave diverged runs out"
        )
    row = VerificationRow(
        search=search,
        seed=seed,
        kept_counts_key=kept_counts_key,
        replicate=replicate,
        loss_gain=float(loss_gain),
        accuracy=float(accuracy),
    )
    # A conflict means that another process has just kept the same run.
    with suppress(ConflictError), writing(engine) as session:
        session.merge(row)


def _row(front: Front, version: int) -> FrontRow:
    content = front.content()
    points = content.pop("points")
    return FrontRow(
        **content,
        version=version,
        hypervolume=front.hypervolume,
        content_hash=front.content_hash,
        points=[FrontPointRow(position=index, **point) for index, point in enumerate(points)],
    )


def _content(row: FrontRow) -> dict[str, Any]:
    """Rebuild what `Front.content` gave when the row was made."""
    own = [column.name for column in fields(Front) if column.name not in ("points", "version")]
    inner = [column.name for column in fields(FrontPoint)]
    return {
        **{name: getattr(row, name) for name in own},
        "points": [{name: getattr(point, name) for name in inner} for point in row.points],
    }


def _unknown(session: Session, label: str, name: str) -> FrontError:
    names = sorted(set(session.scalars(select(FrontRow.name))))
    versions = session.scalars(select(FrontRow.version).where(FrontRow.name == name)).all()
    if versions:
        found = f"versions {', '.join(map(str, sorted(versions)))} of it"
    elif nearest := get_close_matches(name, names, cutoff=0.5):
        found = f"{', '.join(nearest)} close to it"
    else:
        found = f"{len(names)} other names"
    return FrontError(
        f"front {label!r}: expected a stored front, found {found}; see `distreal-dse front list`"
    )

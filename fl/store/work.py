"""Which runs are carried out now, and by whom."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from distreal_dse.fronts import outlasting_restarts, reading
from distreal_dse.fronts.leases import Work, clock
from fl.store._schema import RoundRow, RunRow


@outlasting_restarts
def runs_under_way(engine: Engine) -> list[Work]:
    """Return who carries out federated runs, by number.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    rounds = (
        select(func.count()).where(RoundRow.run_id == RunRow.id).correlate(RunRow).scalar_subquery()
    )
    query = select(RunRow, rounds).where(RunRow.owner.is_not(None)).order_by(RunRow.id)
    with reading(engine) as session:
        now = clock(session)
        return [
            Work.of(row, now, "run", _name(row), "rounds", done, _rounds(row))
            for row, done in session.execute(query)
        ]


def _name(row: RunRow) -> str:
    part = f" of {row.comparison}" if row.comparison else ""
    return f"{row.id}{part}: {row.strategy}, seed {row.seed}"


def _rounds(row: RunRow) -> int | None:
    """How many there may be, that before training included."""
    rounds = row.settings.get("rounds")
    return rounds + 1 if isinstance(rounds, int) else None

"""Tables of searches, on the base that fronts have too; trials are in Optuna's tables."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from distreal_dse.fronts import Base
from distreal_dse.fronts.leases import Leased


class Working(Leased):
    """Columns of who works on a search: how far it was, when that was noted last."""

    stage: Mapped[str | None]
    done: Mapped[int | None]
    total: Mapped[int | None]


class SearchRow(Working, Base):
    """A search, and who carries it out alone, or finishes one that many work on.

    ``front`` is the label of what joined drivers made last, of so many trials, and ``finishes``
    how often they did.
    """

    __tablename__ = "searches"

    name: Mapped[str] = mapped_column(primary_key=True)
    front: Mapped[str | None]
    front_trials: Mapped[int | None]
    finishes: Mapped[int | None]


class DriverRow(Working, Base):
    """A process that works on a search together with others; gone when it leaves.

    ``settings_key`` and ``snapshot`` are those of its trials, None before they are known. It
    proposes vectors up to ``trials`` while it is ``searching``.
    """

    __tablename__ = "search_drivers"

    key: Mapped[str] = mapped_column(primary_key=True)
    search: Mapped[str]
    pilot: Mapped[bool]
    settings_key: Mapped[str | None]
    snapshot: Mapped[float | None]
    trials: Mapped[int]
    searching: Mapped[bool]


class ClaimRow(Base):
    """What a driver has begun: a trial (``replicate`` is `WHOLE`), or one short run.

    A trial's is kept: ``trial`` is its number once it is stored. One whose driver is gone is free.
    """

    __tablename__ = "search_claims"

    # Name and settings of the search, as short runs are kept under.
    search: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    replicate: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    driver: Mapped[str]
    params: Mapped[dict[str, Any]]
    trial: Mapped[int | None]
    failure: Mapped[str | None]


WHOLE = -1
"""In place of a replicate: all that belongs to a trial."""

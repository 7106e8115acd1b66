"""The tables of this project, as SQLAlchemy models.

They live beside Optuna's own tables in one database. Other rooms add their models to `Base`.
Whatever changes here needs a migration in ``migrations/versions``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """Base of all models; floats are double precision, ``dict`` and ``list`` are JSON columns."""

    # Named constraints can be changed by a later migration, on SQLite too.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String(),
        float: Double(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


class FrontRow(Base):
    """One version of a front; never updated."""

    __tablename__ = "fronts"
    __table_args__ = (UniqueConstraint("name", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    study: Mapped[str]
    model_fingerprint: Mapped[str]
    cost_metric: Mapped[str]
    device: Mapped[dict[str, Any]]
    reference_cost: Mapped[float]
    hypervolume: Mapped[float]
    groups: Mapped[list[Any]]
    settings: Mapped[dict[str, Any]]
    # The text as it was, not a time of the database: it is part of the content hash.
    created_at: Mapped[str]
    content_hash: Mapped[str]
    points: Mapped[list[FrontPointRow]] = relationship(
        order_by="FrontPointRow.position", cascade="all, delete-orphan", passive_deletes=True
    )


class FrontPointRow(Base):
    """One point of a front; ``position`` counts from 0 by rising cost."""

    __tablename__ = "front_points"

    front_id: Mapped[int] = mapped_column(
        ForeignKey("fronts.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rates: Mapped[list[Any]]
    kept_counts: Mapped[list[Any]]
    cost: Mapped[float]
    convergence: Mapped[float]
    standard_error: Mapped[float]
    replicates: Mapped[int]
    accuracy: Mapped[float]
    uniform: Mapped[bool]
    trial: Mapped[int | None]
    memory: Mapped[int | None] = mapped_column(BigInteger)


class VerificationRow(Base):
    """A finished verification run, kept so that an interrupted verification can go on."""

    __tablename__ = "verifications"

    # Name and settings of the search, which make its runs comparable.
    search: Mapped[str] = mapped_column(primary_key=True)
    kept_counts_key: Mapped[str] = mapped_column(primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    replicate: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    loss_gain: Mapped[float]
    accuracy: Mapped[float]


class LatencyRow(Base):
    """A measured latency: a vector of a network, on a device, at a batch size. Never updated.

    Seconds are per training mini-batch; ratios are to steps of the full network in turn.
    """

    __tablename__ = "latencies"

    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str]
    model_fingerprint: Mapped[str]
    kept_counts: Mapped[list[Any]]
    device: Mapped[dict[str, Any]]
    device_hash: Mapped[str]
    batch_size: Mapped[int]
    threads: Mapped[int]
    latency: Mapped[float]
    seconds_low: Mapped[float]
    seconds_median: Mapped[float]
    seconds_high: Mapped[float]
    ratio_low: Mapped[float]
    ratio_median: Mapped[float]
    ratio_high: Mapped[float]
    repetitions: Mapped[int]
    measured_at: Mapped[str]

"""The tables of federated runs, on the base that fronts have too."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column, relationship

from distreal_dse.fronts import Base
from distreal_dse.fronts.leases import Leased


class RunRow(Leased, Base):
    """A federated run.

    After it was started, who carries it out (see `fl.store.leases`) changes, why it failed last,
    and ``finished``. A comparison has one run of each strategy and seed.
    """

    __tablename__ = "runs"
    __table_args__ = (
        Index("uq_runs_comparison_strategy_seed", "comparison", "strategy", "seed", unique=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str]
    strategy: Mapped[str]
    front_label: Mapped[str | None]
    front_hash: Mapped[str | None]
    model_fingerprint: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[str]
    finished: Mapped[bool]
    comparison: Mapped[str | None]
    failure: Mapped[str | None]
    contents: Mapped[dict[str, Any]]
    rounds: Mapped[list[RoundRow]] = relationship(
        order_by="RoundRow.round", cascade="all, delete-orphan", passive_deletes=True
    )


class RoundRow(Base):
    """A finished round; never updated."""

    __tablename__ = "run_rounds"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    virtual_seconds: Mapped[float]
    accuracy: Mapped[float | None]
    loss: Mapped[float | None]
    training_macs: Mapped[float]
    mini_batches: Mapped[int]
    mean_cost_share: Mapped[float | None]
    over_budget: Mapped[int]
    rejected: Mapped[int]
    cohort: Mapped[list[Any]]
    wasted_macs: Mapped[float]
    missed: Mapped[int]
    bytes_down: Mapped[int] = mapped_column(BigInteger)
    bytes_up: Mapped[int] = mapped_column(BigInteger)
    accuracy_by_class: Mapped[dict[str, Any]]
    devices: Mapped[list[DeviceRoundRow]] = relationship(
        order_by="DeviceRoundRow.device",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="selectin",  # one query for all rounds of a run
    )


class DeviceRoundRow(Base):
    """What one device did in a round; never updated."""

    __tablename__ = "run_devices"
    __table_args__ = (
        ForeignKeyConstraint(
            ["run_id", "round"], ["run_rounds.run_id", "run_rounds.round"], ondelete="CASCADE"
        ),
    )

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device_class: Mapped[str]
    outcome: Mapped[str]
    seconds: Mapped[float]
    training_macs: Mapped[float]
    mini_batches: Mapped[int]
    mean_cost_share: Mapped[float | None]
    over_budget: Mapped[int]
    bytes_down: Mapped[int] = mapped_column(BigInteger)
    bytes_up: Mapped[int] = mapped_column(BigInteger)


class CheckpointRow(Base):
    """One of the newest checkpoints of a run that is not finished; ``content`` is safetensors."""

    __tablename__ = "run_checkpoints"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    # None where an earlier version stored it.
    content_hash: Mapped[str | None]

"""Measured latencies in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sqlalchemy import Engine, select

from distreal_dse.fronts._database import reading, writing
from distreal_dse.fronts._front import utc_now
from distreal_dse.fronts._outages import outlasting_restarts
from distreal_dse.fronts._schema import LatencyRow


@dataclass(frozen=True)
class StoredLatency:
    """What a training mini-batch with a vector took on a device.

    Parameters
    ----------
    study, model_fingerprint
        The network.
    kept_counts
        The vector.
    device, device_hash
        Fingerprint of the device, and its hash.
    batch_size, threads
        Samples of a mini-batch, and threads of PyTorch.
    latency
        Seconds to compare vectors by: median ratio × median of the full network.
    seconds_low, seconds_median, seconds_high
        Quartiles of the steps as they were timed.
    ratio_low, ratio_median, ratio_high
        Quartiles of their ratios to steps of the full network nearby.
    repetitions
        Steps that were timed.
    measured_at
        ISO 8601 in UTC.
    """

    study: str
    model_fingerprint: str
    kept_counts: tuple[int, ...]
    device: Mapping[str, Any] = field(hash=False)
    device_hash: str
    batch_size: int
    threads: int
    latency: float
    seconds_low: float
    seconds_median: float
    seconds_high: float
    ratio_low: float
    ratio_median: float
    ratio_high: float
    repetitions: int
    measured_at: str = field(default_factory=utc_now)


def save_latencies(engine: Engine, latencies: Sequence[StoredLatency]) -> None:
    """Store measurements, all or none; earlier ones stay.

    Raises
    ------
    StorageError
        Where the database can't be written.
    """
    with writing(engine) as session:
        session.add_all([LatencyRow(**_columns(latency)) for latency in latencies])


@outlasting_restarts
def load_latencies(engine: Engine, model_fingerprint: str) -> list[StoredLatency]:
    """All measurements of a network, the oldest first.

    Raises
    ------
    StorageError
        Where the database can't be read.
    """
    names = [column.name for column in fields(StoredLatency)]
    query = (
        select(LatencyRow)
        .where(LatencyRow.model_fingerprint == model_fingerprint)
        .order_by(LatencyRow.id)
    )
    with reading(engine) as session:
        rows = [{name: getattr(row, name) for name in names} for row in session.scalars(query)]
    return [StoredLatency(**{**row, "kept_counts": tuple(row["kept_counts"])}) for row in rows]


def _columns(latency: StoredLatency) -> dict[str, Any]:
    return {**asdict(latency), "kept_counts": list(latency.kept_counts)}

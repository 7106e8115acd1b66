"""Latency as numbers: what samples of training steps say about the vectors that were timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distreal_dse.dropout import KeptCounts


@dataclass(frozen=True)
class Quartiles:
    """Median and first and third quartile of a sample (linear between neighbouring values)."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Quartiles:
        """Quartiles of at least one number."""
        return cls(*np.percentile(sample, (25, 50, 75)).tolist())


@dataclass(frozen=True)
class VectorLatency:
    """How long a training mini-batch with a vector takes.

    Parameters
    ----------
    counts
        The vector.
    seconds
        Of its steps as they were timed.
    ratio
        Of its steps to steps of the full network nearby. Whatever slows the machine down for
        longer than some steps slows both, and cancels.
    repetitions
        How many of its steps were timed.
    """

    counts: KeptCounts
    seconds: Quartiles
    ratio: Quartiles
    repetitions: int

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_json` is the way back."""
        return {**asdict(self), "counts": list(self.counts)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> VectorLatency:
        """Build from what `as_json` returned."""
        return cls(
            tuple(values["counts"]),
            Quartiles(**values["seconds"]),
            Quartiles(**values["ratio"]),
            values["repetitions"],
        )


@dataclass(frozen=True)
class Latencies:
    """What was timed together: the full network (seconds per mini-batch), and vectors."""

    full: Quartiles
    vectors: tuple[VectorLatency, ...]

    def cost(self, vector: VectorLatency) -> float:
        """Seconds per mini-batch to compare vectors by: median ratio × the full median."""
        return vector.ratio.median * self.full.median

    def costs(self) -> dict[KeptCounts, float]:
        """The cost of each vector."""
        return {vector.counts: self.cost(vector) for vector in self.vectors}

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_json` is the way back."""
        return {
            "full network": asdict(self.full),
            "vectors": [one.as_json() for one in self.vectors],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Latencies:
        """Build from what `as_json` returned."""
        return cls(
            Quartiles(**values["full network"]),
            tuple(VectorLatency.from_json(one) for one in values["vectors"]),
        )


class LatencySamples:
    """Timed steps, collected while they are timed.

    Parameters
    ----------
    full_counts
        Kept counts of the full network. It is the unit of all ratios, so its own is 1.
    """

    def __init__(self, full_counts: KeptCounts) -> None:
        self._full_counts = full_counts
        self._full: list[float] = []
        self._seconds: dict[tuple[KeptCounts, bool], list[float]] = {}
        self._ratios: dict[tuple[KeptCounts, bool], list[float]] = {}

    def add_full(self, seconds: float) -> None:
        """Note a step of the full network."""
        self._full.append(seconds)

    def add(
        self, counts: KeptCounts, seconds: float, full_seconds: float, alone: bool = False
    ) -> None:
        """Note a step of a vector, and the time of the step of the full network nearby.

        ``alone`` says that it was a step of a network of its own, of this size.
        """
        self._seconds.setdefault((counts, alone), []).append(seconds)
        self._ratios.setdefault((counts, alone), []).append(seconds / full_seconds)

    def latencies(self, vectors: Sequence[KeptCounts], alone: bool = False) -> Latencies:
        """Return what the samples say; a vector that was never timed is left out.

        At least one step of the full network has to have been timed.

        Parameters
        ----------
        vectors
            Kept counts.
        alone
            Whether to tell of steps of networks of their own.
        """
        full = Quartiles.of(self._full)
        found = []
        for counts in vectors:
            key = (counts, alone)
            if counts == self._full_counts:
                found.append(VectorLatency(counts, full, Quartiles(1.0, 1.0, 1.0), len(self._full)))
            elif key in self._seconds:
                ratios = self._ratios[key]
                seconds = Quartiles.of(self._seconds[key])
                found.append(VectorLatency(counts, seconds, Quartiles.of(ratios), len(ratios)))
        return Latencies(full, tuple(found))

    def __len__(self) -> int:
        """How many steps of the full network were timed."""
        return len(self._full)

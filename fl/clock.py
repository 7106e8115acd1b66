"""The virtual clock: every mini-batch takes what its sub-network costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distreal_dse.cost import MacCost
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front
from fl.availability import Timeline

# Fixes the unit of virtual time, not any comparison: about what one core of a phone trains with.
REFERENCE_MACS_PER_SECOND = 1e9


@dataclass(frozen=True)
class Clock:
    """Converts between the cost of vectors, the budgets of devices and virtual seconds.

    A device's *capacity* is its speed × its free share.

    Parameters
    ----------
    reference_cost
        Cost of the full network, in the cost unit of the vectors.
    full_seconds
        Virtual seconds that a full-size mini-batch of the full network takes at capacity 1.
    batch_size
        Samples of a full-size mini-batch.
    pace
        Length of a slot, the time that a device has for a mini-batch, over ``full_seconds``.
    """

    reference_cost: float
    full_seconds: float
    batch_size: int
    pace: float = 1.0

    @property
    def slot(self) -> float:
        """Virtual seconds that a device has for a full-size mini-batch."""
        return self.full_seconds * self.pace

    def budget(self, capacity: float) -> float:
        """Return the cost that a device finishes within one slot, at most the full network's."""
        return self.reference_cost * min(1.0, capacity * self.pace)

    def seconds(self, cost: float, capacity: float, samples: int) -> float:
        """Return the virtual seconds of a mini-batch of ``samples`` with a vector of ``cost``.

        Time is taken as proportional to the samples: exact for MACs, and near enough for the one
        smaller mini-batch of an epoch where the cost is a latency.
        """
        work = cost / self.reference_cost * self.full_seconds * (samples / self.batch_size)
        return work / capacity

    def end(
        self, start: float, cost: float, samples: int, speed: float, timeline: Timeline
    ) -> float:
        """Return when a mini-batch that begins at ``start`` is done.

        The device works with its speed × its free share, whose changes on the way count from when
        they happen. Infinite where the device never has enough time free.
        """
        left, now = self.seconds(cost, speed, samples), start  # seconds with everything free
        while True:
            share, until = timeline.at(now)
            if left <= share * (until - now):
                return now + left / share
            if math.isinf(until):
                return math.inf
            left -= share * (until - now)
            now = until


def make_clock(front: Front | None, macs: MacCost, batch_size: int, pace: float = 1.0) -> Clock:
    """Return the clock for the cost unit of a front, or for MACs where there is no front.

    MACs are per sample, so a full mini-batch takes its MACs at `REFERENCE_MACS_PER_SECOND`;
    latency is measured in seconds per mini-batch already.

    Raises
    ------
    FrontError
        If latency was measured with mini-batches of another size.
    """
    reference_cost = front.reference_cost if front else macs.full
    if front and front.cost_metric == "latency":
        measured = front.settings.get("batch size", batch_size)
        if measured != batch_size:
            raise FrontError(
                f"latencies of front {front.label} are of mini-batches of {measured} samples: "
                f"expected {batch_size}, the batch size of the study; measure again with "
                "`distreal-dse front reprice`"
            )
        return Clock(reference_cost, reference_cost, batch_size, pace)
    full_seconds = reference_cost * batch_size / REFERENCE_MACS_PER_SECOND
    return Clock(reference_cost, full_seconds, batch_size, pace)

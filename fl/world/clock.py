"""The virtual clock: every mini-batch takes what its sub-network costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from distreal_dse.cost import MacCost
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front
from fl.world.availability import Timeline
from fl.world.exact import Seconds, bounded, exact

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
        return float(self.slots(1))

    def slots(self, count: Fraction | int) -> Fraction:
        """Return the virtual seconds of a number of slots, exactly."""
        return exact(self.full_seconds) * exact(self.pace) * count

    def budget(self, capacity: Seconds) -> float:
        """Return the cost that a device finishes within one slot, at most the full network's."""
        share = min(Fraction(1), exact(capacity) * exact(self.pace))
        return float(exact(self.reference_cost) * share)

    def transfer(self, size: int, bandwidth: float) -> Fraction:
        """Return the virtual seconds that ``size`` bytes take at a bandwidth, bytes per second."""
        return Fraction(0) if math.isinf(bandwidth) else size / exact(bandwidth)

    def seconds(self, cost: float, capacity: Seconds, samples: int) -> Fraction:
        """Return the virtual seconds of a mini-batch of ``samples`` with a vector of ``cost``.

        Exactly, so that mini-batches that fill a deadline can be told from those that exceed it.
        Time is taken as proportional to the samples: right for MACs, and near enough for the one
        smaller mini-batch of an epoch where the cost is a latency.
        """
        share = exact(cost) / exact(self.reference_cost) * Fraction(samples, self.batch_size)
        return share * exact(self.full_seconds) / exact(capacity)

    def end(
        self, start: Seconds, cost: float, samples: int, speed: float, timeline: Timeline
    ) -> Seconds:
        """Return when a mini-batch that begins at ``start`` is done, exactly (see `bounded`).

        The device works with its speed × its free share, whose changes on the way count from when
        they happen. Infinite where the device never has enough time free.
        """
        left = self.seconds(cost, speed, samples)  # with everything free
        now = Fraction(start)
        while True:
            share, until = timeline.at(now)
            free = exact(share)
            if math.isinf(until):
                return bounded(now + left / free) if free else math.inf
            change = Fraction(until)
            if left <= free * (change - now):
                return bounded(now + left / free)
            left -= free * (change - now)
            now = change


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

"""The virtual clock: every mini-batch takes what its sub-network costs."""

from __future__ import annotations

from dataclasses import dataclass

from distreal_dse.cost import MacCost
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front

# Fixes the unit of virtual time, not any comparison: about what one core of a phone trains with.
REFERENCE_MACS_PER_SECOND = 1e9


@dataclass(frozen=True)
class Clock:
    """Converts between the cost of vectors, the budgets of devices and virtual seconds.

    A device's *capacity* is its speed × its free share. Communication and the server's work take
    no virtual time yet.

    Parameters
    ----------
    reference_cost
        Cost of the full network, in the cost unit of the vectors.
    slot
        Virtual seconds that a full-size mini-batch of the full network takes at capacity 1.
    batch_size
        Samples of a full-size mini-batch.
    """

    reference_cost: float
    slot: float
    batch_size: int

    def budget(self, capacity: float) -> float:
        """Return the cost that a device finishes within one slot, at most the full network's."""
        return self.reference_cost * min(1.0, capacity)

    def seconds(self, cost: float, capacity: float, samples: int) -> float:
        """Return the virtual seconds of a mini-batch of ``samples`` with a vector of ``cost``.

        Time is taken as proportional to the samples: exact for MACs, and near enough for the one
        smaller mini-batch of an epoch where the cost is a latency.
        """
        return cost / self.reference_cost * self.slot / capacity * (samples / self.batch_size)


def make_clock(front: Front | None, macs: MacCost, batch_size: int) -> Clock:
    """Return the clock for the cost unit of a front, or for MACs where there is no front.

    MACs are per sample, so a slot is the MACs of a mini-batch at `REFERENCE_MACS_PER_SECOND`;
    latency is measured in seconds per mini-batch, which is the slot itself.

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
        return Clock(reference_cost, reference_cost, batch_size)
    return Clock(
        reference_cost, reference_cost * batch_size / REFERENCE_MACS_PER_SECOND, batch_size
    )

"""What vectors take that nobody timed, from what was timed beside a front of seconds."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distreal_dse.cost import Latencies, MacCost
from distreal_dse.dropout import KeptCounts
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front
from distreal_dse.pricing._one_rate import ONE_RATE

# An interpolation needs two ends.
FEWEST = 2

Costs = Mapping[KeptCounts, float]


class SecondsPrices:
    """Seconds of a mini-batch on the device of a front, for any vector of its network.

    What was timed has its measured time. All else has that of one rate at the same MACs, on
    straight lines through what was timed of one rate; above and below, the time of the last one.
    A function of what the front holds alone, so that any machine gives the same prices.

    Time is a staircase, so lines are wrong between its steps (see docs/latency.md for how far), and
    it need not rise with the MACs. Who is free to choose takes what was timed.

    Parameters
    ----------
    macs
        Counts MACs of the front's network.
    full_counts, full
        Of the full network.
    measured
        Seconds of what was timed.
    knots
        Those of one rate, at least two. ``one_rate`` are they and the full network, by rising MACs.
    """

    def __init__(
        self,
        macs: MacCost,
        full_counts: KeptCounts,
        full: float,
        measured: Costs,
        knots: Costs,
    ) -> None:
        self.full = full
        self._macs = macs
        self._measured = {**measured, full_counts: full}
        self.one_rate = tuple(sorted({*knots, full_counts}, key=macs.training))
        curve = sorted((macs.training(counts), seconds) for counts, seconds in knots.items())
        self._positions = [position for position, _ in curve]
        self._seconds = [seconds for _, seconds in curve]

    def cost(self, counts: KeptCounts) -> float:
        """Seconds per mini-batch."""
        known = self._measured.get(counts)
        return self._interpolated(self._macs.training(counts)) if known is None else known

    def _interpolated(self, macs: float) -> float:
        above = bisect_right(self._positions, macs)
        if above == 0 or above == len(self._positions):
            return self._seconds[max(0, above - 1)]
        low, high = self._positions[above - 1 : above + 1]
        cheap, dear = self._seconds[above - 1 : above + 1]
        return cheap + (dear - cheap) * ((macs - low) / (high - low))


@dataclass(frozen=True)
class StepPrices:
    """Prices of both kinds of training steps of a network, in seconds.

    Parameters
    ----------
    cut
        Of a sub-network that is cut out of the full network in each mini-batch, as for a front.
    alone
        Of a network of its own, or a sub-network that is cut out once and then trained as it is.
    """

    cut: SecondsPrices
    alone: SecondsPrices


def check_priced(front: Front) -> None:
    """Refuse a front that has seconds for its own vectors alone; one of MACs passes.

    Raises
    ------
    FrontError
        In a line that says what to do.
    """
    if front.cost_metric == "latency":
        _timed(front)


def seconds_of(front: Front, macs: MacCost) -> StepPrices:
    """Return the prices of a front whose costs are seconds.

    Raises
    ------
    FrontError
        As for `check_priced`.
    """
    measured, cut, alone = _timed(front)
    full_counts, full = _full(front), front.reference_cost
    return StepPrices(
        SecondsPrices(macs, full_counts, full, measured, cut),
        SecondsPrices(macs, full_counts, full, alone, {**alone, full_counts: full}),
    )


def _timed(front: Front) -> tuple[Costs, Costs, Costs]:
    """What was timed with the front: all, and of one rate, cut and alone."""
    stored = front.settings.get("latency")
    if not isinstance(stored, Mapping) or ONE_RATE not in stored:
        raise _unpriced(front, "none")
    try:
        measured = _costs(front, stored)
        cut = {counts: measured[counts] for counts in map(tuple, stored[ONE_RATE]["cut"])}
        alone = _costs(front, {**stored, "vectors": stored[ONE_RATE]["alone"]})
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # e.g. of an import
        raise _unpriced(front, f"something else ({error})") from error
    cut.pop(_full(front), None)  # nothing is cut there
    fewest = min(len(cut), len(alone))
    if fewest < FEWEST:
        raise _unpriced(front, str(fewest))
    return measured, cut, alone


def _costs(front: Front, stored: Mapping[str, Any]) -> Costs:
    found = Latencies.from_json(stored)
    groups = len(front.groups)
    costs = {}
    for one in found.vectors:
        seconds = one.ratio.median * front.reference_cost
        if len(one.counts) != groups or not 0 < seconds < math.inf:
            raise ValueError(f"{seconds} s for kept counts {one.counts}")
        costs[one.counts] = seconds
    return costs


def _full(front: Front) -> KeptCounts:
    return tuple(group.channels for group in front.groups)


def _unpriced(front: Front, found: str) -> FrontError:
    return FrontError(
        f"front {front.label} has seconds for its own vectors alone: expected {FEWEST} or more "
        f"timed networks of one rate beside them, found {found}; make a front that has, on the "
        f"device that it is for, with `distreal-dse front reprice {front.label}`"
    )

"""A budget that keeps steps to their slot by what they really take.

References
----------
Jacobson, Karels: Congestion avoidance and control, SIGCOMM 1988 (an exponentially weighted
estimate, and room for its mean deviation above it).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from distreal_dse.errors import InputError
from fl.live.load import LoadMonitor

# Our own choices, tried on simulated and on real steps (docs/devices.md):
# how much of its error an estimate makes good with each step,
WEIGHT = 0.2
# … beyond which error, as a factor, a step is an outlier or the first of a change,
OUTLIER = 1.5
LIMIT = math.log(OUTLIER)
# … how many mean deviations of the error are left as room, so that most steps keep to the slot,
ROOM = 1.0
# … its first value, as the logarithm of a factor,
FIRST_DEVIATION = 0.1
# … after how many seconds without a step what was known of the load is out of date,
PAUSE_SECONDS = 5.0
# … for how long the load is then measured,
LOOK_SECONDS = 0.2
# … and how often between steps, so that a pause begins with what is known.
REFRESH_SECONDS = 1.0


class LiveBudget:
    """What a device can spend on its next mini-batch, learned from those before.

    A step is predicted to take cost × seconds per cost × slowdown. The slowdown follows the ratio
    of measured to predicted times: by a share of the error with each step, so that noise averages
    out; an error beyond `OUTLIER` counts as one of that size, so that a hiccup does little; but two
    such in a row, to the same side, are a change, which is taken up at once. Where the first step
    of a vector is that slow it counts for nothing, because it builds the sub-network.

    Costs have to be proportional to time: give the latencies of a front that was measured on this
    device (``distreal-dse front reprice``). Training MACs are not, and a vector that takes longer
    than its MACs say looks like load.

    Parameters
    ----------
    reference_cost
        Cost of the full network; no budget is above it.
    reference_seconds
        What a mini-batch of the full network takes on this device when nothing else runs.
        For a front in latency, the same number.
    slot_seconds
        What a mini-batch may take.
    load
        Where given, says how slow steps will be before the first one and after a pause. While
        steps are taken, they know better.
    clock
        Seconds that pass, for pauses.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    def __init__(
        self,
        reference_cost: float,
        reference_seconds: float,
        slot_seconds: float,
        load: LoadMonitor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        named = (
            ("reference cost", reference_cost),
            ("reference seconds", reference_seconds),
            ("slot", slot_seconds),
        )
        for name, value in named:
            if not 0 < value < math.inf:
                raise InputError(f"{name} of the live budget: expected above 0, found {value}")
        self._reference_cost, self._slot = reference_cost, slot_seconds
        self._seconds_per_cost = reference_seconds / reference_cost
        self._load, self._clock = load, clock
        self._slowdown = 0.0  # logarithm, as all errors are
        self._deviation = FIRST_DEVIATION
        self._surprise: float | None = None  # slowdown of the last step, if that was an outlier
        self._seen: set[float] = set()
        self._known_load = 1.0
        self._looked = self._stepped = -math.inf

    @property
    def slowdown(self) -> float:
        """How much longer steps take now than on the idle device, as estimated."""
        return math.exp(self._slowdown)

    @property
    def slot_seconds(self) -> float:
        """What a mini-batch may take."""
        return self._slot

    def predict(self, cost: float) -> float:
        """Return the seconds that a mini-batch of a cost is expected to take now."""
        return cost * self._seconds_per_cost * self.slowdown

    def budget(self) -> float:
        """Return the cost that most steps finish within the slot; ask before each mini-batch.

        Takes some tenths of a second before the first step and after a pause, if there is a monitor
        of the load.
        """
        if self._load is not None and self._clock() - self._latest() > PAUSE_SECONDS:
            self._look(self._load, LOOK_SECONDS, adopt=True)
        expected = self._seconds_per_cost * math.exp(self._slowdown + ROOM * self._deviation)
        return min(self._reference_cost, self._slot / expected)

    def observe(self, cost: float, seconds: float) -> None:
        """Learn what a mini-batch took; call after each.

        Parameters
        ----------
        cost
            Of the vector that was trained, > 0; not the budget, which is hardly ever the same.
        seconds
            That its step took, > 0.

        Raises
        ------
        InputError
            If a number is out of range.
        """
        for name, value in (("cost", cost), ("seconds", seconds)):
            if not 0 < value < math.inf:
                raise InputError(f"{name} of a measured step: expected above 0, found {value}")
        found = math.log(seconds / (cost * self._seconds_per_cost))
        builds = cost not in self._seen and found - self._slowdown > LIMIT
        self._seen.add(cost)
        if not builds:
            self._learn(found)
        self._stepped = self._clock()
        if self._load is not None and self._stepped - self._looked > REFRESH_SECONDS:
            self._look(self._load, 0.0, adopt=False)

    def state_dict(self) -> dict[str, float]:
        """Return what was learned, for a budget of the same device in another process."""
        return {
            "slowdown": self._slowdown, "deviation": self._deviation, "load": self._known_load,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what `state_dict` gave; what is missing stays as it is."""
        self._slowdown = state.get("slowdown", self._slowdown)
        self._deviation = state.get("deviation", self._deviation)
        self._known_load = state.get("load", self._known_load)

    def _learn(self, found: float) -> None:
        """Move the estimate towards the slowdown that a step showed; all as logarithms."""
        error = found - self._slowdown
        clipped = max(-LIMIT, min(LIMIT, error))
        self._deviation += WEIGHT * (abs(clipped) - self._deviation)
        before, self._surprise = self._surprise, None
        if abs(error) <= LIMIT:
            self._slowdown += WEIGHT * error
        elif before is not None and (before > self._slowdown) == (error > 0):
            # The nearer one of both: no more than what was seen twice.
            self._slowdown = min(before, found) if error > 0 else max(before, found)
        else:
            self._slowdown += WEIGHT * clipped
            self._surprise = found

    def _latest(self) -> float:
        return max(self._looked, self._stepped)

    def _look(self, load: LoadMonitor, interval: float, adopt: bool) -> None:
        """Measure the load; what has changed since it was last known changes the estimate.

        While steps are taken it does not, because they have shown the change already.
        """
        now = load.slowdown(interval)
        if adopt:
            self._slowdown += math.log(now / self._known_load)
        self._known_load, self._looked = now, self._clock()

"""What a device may spend on each mini-batch of its round, and how long that takes.

Training asks, whoever answers: virtual time, for experiments, or the device's own clock.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from fl.live import LiveBudget
from fl.world.availability import Timeline
from fl.world.clock import Clock
from fl.world.devices import Device
from fl.world.exact import Seconds, exact


class Pacer(ABC):
    """Keeps the time of one device in one round; made anew for each.

    It is asked for the `first_budget`, told what `transfers`, and then, for each mini-batch, asked
    for its `budget` and whether it `begins`, and told when it is `done`; at the end it is asked for
    the `seconds`.

    Parameters
    ----------
    reference_cost
        Cost of a mini-batch of the full network, in the unit of budgets.
    start
        Seconds since the start of the run at which the round starts.
    """

    def __init__(self, reference_cost: float, start: Seconds) -> None:
        self.reference_cost, self.start = reference_cost, start

    @abstractmethod
    def first_budget(self) -> float:
        """Return what the device could spend on a mini-batch as the round starts."""

    def transfers(self, size: int) -> None:  # noqa: B027 - on a real device, that has happened
        """Take note that so many bytes travel to the device, and as many back."""

    @abstractmethod
    def budget(self) -> float | None:
        """Return what the next mini-batch may cost; None where none can begin any more."""

    @abstractmethod
    def begins(self, cost: float, samples: int) -> bool:
        """Whether a mini-batch would be done in time, which then begins.

        Parameters
        ----------
        cost
            Of a full mini-batch with the vector that was picked.
        samples
            That it has.
        """

    @abstractmethod
    def done(self) -> None:
        """Take note that the mini-batch which began was trained."""

    @abstractmethod
    def seconds(self) -> float:
        """Return the seconds from the start of the round until the server has the update."""


class VirtualPacer(Pacer):
    """Virtual time: a mini-batch takes what its sub-network costs.

    Times are added up as fractions, so nothing hangs on rounding.

    Parameters
    ----------
    clock
        Gives budgets and virtual seconds.
    device
        Its speed and its link.
    timeline
        Its free share.
    start
        Virtual seconds since the start of the run.
    deadline
        Likewise; the server has to have the update by then. A mini-batch that would end too late
        for that is not begun; one that ends just then is.
    share
        Of its compute, that the round is planned with; None for what is free at the start.
    """

    def __init__(
        self,
        clock: Clock,
        device: Device,
        timeline: Timeline,
        start: Seconds,
        deadline: Seconds = math.inf,
        share: float | None = None,
    ) -> None:
        super().__init__(clock.reference_cost, exact(start))
        self._share = share
        self._clock, self._device, self._timeline = clock, device, timeline
        self._speed = exact(device.speed)
        self._time: Seconds = self.start  # at which everything so far is done
        self._begin: Seconds = self.start  # of the mini-batch at work
        self._end: Seconds = self.start
        self._upload = clock.transfer(0, device.upload)
        self._stop = self._deadline = deadline

    def first_budget(self) -> float:
        """Return what is free at the start, whether the device has to wait then or not."""
        if self._share is None:
            return self._budget_at(self.start)
        return self._clock.budget(self._speed * exact(self._share))

    def transfers(self, size: int) -> None:
        """Let the bytes come first, and leave time for them to go back."""
        self._upload = self._clock.transfer(size, self._device.upload)
        self._time = self.start + self._clock.transfer(size, self._device.download)
        self._stop = self._deadline - self._upload

    def budget(self) -> float | None:
        """Wait until something is free, and return how much; None where nothing ever is."""
        self._begin = self._timeline.next_free(self._time)
        return None if math.isinf(self._begin) else self._budget_at(self._begin)

    def begins(self, cost: float, samples: int) -> bool:
        """Whether it ends by the deadline, and leaves time for the way back."""
        self._end = self._clock.end(self._begin, cost, samples, self._device.speed, self._timeline)
        return not (self._end > self._stop or math.isinf(self._end))

    def done(self) -> None:
        """Go on to the end of the mini-batch."""
        self._time = self._end

    def seconds(self) -> float:
        """Return the virtual seconds that the round took the device."""
        return float(self._time + self._upload - self.start)

    def _budget_at(self, when: Seconds) -> float:
        return self._clock.budget(self._speed * exact(self._timeline.at(when)[0]))


class LivePacer(Pacer):
    """The time that passes on a real device, whose budgets follow from how long steps take.

    Parameters
    ----------
    live
        Its budget; goes on learning from round to round.
    reference_cost, start
        As for `Pacer`.
    batch_size
        Samples of a full mini-batch. Smaller ones count in proportion.
    within
        Seconds from now on after which no mini-batch may end; infinite for no deadline.
    first
        What the device has said that it could spend as the round starts; None asks it now.
    clock
        Seconds that pass.
    """

    def __init__(
        self,
        live: LiveBudget,
        reference_cost: float,
        batch_size: int,
        start: Seconds = 0.0,
        within: float = math.inf,
        first: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(reference_cost, start)
        self._live, self._batch_size, self._clock = live, batch_size, clock
        self._first = first
        self._began = clock()
        self._stop = self._began + within
        self._cost, self._share, self._step_began = 0.0, 0.0, self._began
        self._steps = self._kept = 0

    @property
    def kept_to_slot(self) -> float:
        """Share of the mini-batches so far that took no longer than their slot."""
        return self._kept / self._steps if self._steps else 1.0

    def first_budget(self) -> float:
        """Return what the device can spend now, or has said that it could."""
        return self._live.budget() if self._first is None else self._first

    def budget(self) -> float:
        """Return what the device can spend now."""
        return self._live.budget()

    def begins(self, cost: float, samples: int) -> bool:
        """Whether it is expected to end in time."""
        self._share = samples / self._batch_size
        self._cost = cost * self._share
        self._step_began = self._clock()
        return self._step_began + self._live.predict(self._cost) <= self._stop

    def done(self) -> None:
        """Let the budget learn from what it took, fetching its samples included."""
        took = self._clock() - self._step_began
        self._steps += 1
        self._kept += took <= self._share * self._live.slot_seconds
        if took > 0:  # clocks of some systems tick in milliseconds
            self._live.observe(self._cost, took)

    def seconds(self) -> float:
        """Return the seconds that the round took the device so far."""
        return self._clock() - self._began

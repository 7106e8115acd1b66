"""What a device has free, over virtual time: the base classes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction

from distreal_dse.errors import InputError
from fl.world.devices import Device
from fl.world.exact import Seconds

SHORTEST_PERIOD = 1e-3


class Timeline(ABC):
    """The free share of one device's compute, constant from change to change.

    A share of 0 ends some time, or says that it ends at infinity: `next_free` and
    `fl.world.clock.Clock.end` go from change to change until something is free.
    """

    @abstractmethod
    def at(self, seconds: Seconds) -> tuple[float, Seconds]:
        """Return the share that is free at a virtual time, in [0, 1], and until when it is.

        Parameters
        ----------
        seconds
            Virtual seconds since the start of the run; not before those that the timeline was
            made for.

        Returns
        -------
        tuple
            The end lies after ``seconds``; infinity where nothing changes any more. A fraction
            where it is to be exact.
        """

    def next_free(self, seconds: Seconds) -> Seconds:
        """Return the first virtual time from ``seconds`` on with any share free; else infinity."""
        share, until = self.at(seconds)
        while share == 0 and not math.isinf(until):
            seconds = until
            share, until = self.at(seconds)
        return seconds if share > 0 else math.inf


class Availability(ABC):
    """Says what share of its compute a device has free.

    What it says must follow from the arguments alone, so that a device sees the same whoever else
    is in the cohort, and all strategies are compared under the same conditions. Shares of 0 have
    to follow virtual time alone, as those of a trace do: where no device has anything free, the
    server asks again when the first one said that it will have.
    """

    @abstractmethod
    def timeline(
        self, device: Device, round_number: int, start: Seconds, slot: Seconds, seed: int
    ) -> Timeline:
        """Return the free share of one device from ``start`` on, for one round.

        Called for devices that are asked to train, not for all that there are.

        Parameters
        ----------
        device, round_number
            Who, and in which round.
        start
            Virtual seconds at which the round begins.
        slot
            Virtual seconds that a device has for a mini-batch.
        seed
            Of the run.
        """

    @abstractmethod
    def mean_share(self) -> float:
        """Return the share that is free on average, over devices and time; in (0, 1]."""


def period_at(seconds: Seconds, start: Seconds, length: Fraction) -> tuple[int, Fraction]:
    """Return the number, from 0, of the period that a time lies in, and exactly when that ends.

    Parameters
    ----------
    seconds
        Virtual seconds, not before ``start``.
    start
        When period 0 begins.
    length
        Of a period, in virtual seconds.
    """
    number = math.floor((Fraction(seconds) - Fraction(start)) / length)
    return number, Fraction(start) + (number + 1) * length


def check_shares(shares: tuple[float, ...]) -> None:
    """Refuse shares that a device can't have free at all times.

    Raises
    ------
    InputError
        If there are none, or one lies outside (0, 1].
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(f"availability: expected free shares in (0, 1], found {shares}")


def check_period(period: float) -> None:
    """Refuse a length of periods, in slots, that time can't be divided into.

    Raises
    ------
    InputError
        If it is not finite, or so short that a mini-batch would see thousands of them.
    """
    if not SHORTEST_PERIOD <= period < math.inf:
        raise InputError(
            f"availability: expected a period of {SHORTEST_PERIOD:g} slots or more, found {period}"
        )

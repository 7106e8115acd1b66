"""How much of its compute a device has free, over virtual time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from distreal_dse.errors import InputError
from distreal_dse.seeding import generator
from distreal_dse.specs import check_settings, number, parse_spec
from fl.devices import Device


class Timeline(ABC):
    """The free share of one device's compute, constant from change to change."""

    @abstractmethod
    def at(self, seconds: float) -> tuple[float, float]:
        """Return the share that is free at a virtual time, in [0, 1], and until when it is.

        Parameters
        ----------
        seconds
            Virtual seconds since the start of the run; not before those that the timeline was
            made for.

        Returns
        -------
        tuple
            The end lies after ``seconds``; infinity where nothing changes any more.
        """

    def next_free(self, seconds: float) -> float:
        """Return the first virtual time from ``seconds`` on with any share free; else infinity."""
        share, until = self.at(seconds)
        while share == 0 and not math.isinf(until):
            seconds = until
            share, until = self.at(seconds)
        return seconds if share > 0 else math.inf


class Availability(ABC):
    """Says what share of its compute a device has free.

    What it says must follow from the arguments alone, so that a device sees the same whoever else
    is in the cohort, and all strategies are compared under the same conditions.
    """

    @abstractmethod
    def timeline(
        self, device: Device, round_number: int, start: float, slot: float, seed: int
    ) -> Timeline:
        """Return the free share of one device from ``start`` on, for one round.

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


@dataclass(frozen=True)
class _Constant(Timeline):
    share: float

    def at(self, seconds: float) -> tuple[float, float]:
        return self.share, math.inf


@dataclass(frozen=True)
class ConstantAvailability(Availability):
    """The same share, in (0, 1], for all devices at all times."""

    share: float = 1.0

    def __post_init__(self) -> None:
        _check_shares((self.share,))

    def timeline(
        self, device: Device, round_number: int, start: float, slot: float, seed: int
    ) -> Timeline:
        """Return the constant share."""
        return _Constant(self.share)

    def mean_share(self) -> float:
        """Return the constant share."""
        return self.share


@dataclass(frozen=True)
class MarkovAvailability(Availability):
    """Levels that a Markov chain moves between, period by period.

    Synthetic: there is no public trace of free compute at this resolution. Each round starts from
    the chain's stationary distribution, which is uniform as all moves are equally likely. A chain
    that went on over rounds would need its state kept on every device to say nearly the same:
    the correlation over k periods is (stay − (1 − stay) / (levels − 1))ᵏ, with the default
    values 0.04 after ten, and devices sit out many more than that between two rounds.

    Parameters
    ----------
    levels
        Free shares, each in (0, 1]. Our own choice, as is ``stay``.
    stay
        Probability in [0, 1] of keeping the level for the next period; else it moves to one of
        the others, each equally likely.
    period
        Length of a period in slots, > 0.
    """

    levels: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    stay: float = 0.8
    period: float = 1.0

    def __post_init__(self) -> None:
        _check_shares(self.levels)
        if not 0 <= self.stay <= 1:
            raise InputError(f"availability: expected stay in [0, 1], found {self.stay}")
        if not 0 < self.period < math.inf:
            raise InputError(f"availability: expected a period above 0 slots, found {self.period}")

    def timeline(
        self, device: Device, round_number: int, start: float, slot: float, seed: int
    ) -> Timeline:
        """Return the chain of this device and round."""
        random = generator(seed, "availability", device.index, round_number)
        return _Chain(self, start, self.period * slot, random)

    def mean_share(self) -> float:
        """Return the mean of the levels, all of them being equally likely."""
        return math.fsum(self.levels) / len(self.levels)


class _Chain(Timeline):
    """A Markov chain, drawn as far as it was asked for."""

    def __init__(
        self, source: MarkovAvailability, start: float, period: float, random: torch.Generator
    ) -> None:
        self._source, self._start, self._period, self._random = source, start, period, random
        self._drawn = [_below(len(source.levels), random)]

    def at(self, seconds: float) -> tuple[float, float]:
        number = max(0, int((seconds - self._start) / self._period))
        if self._end(number) <= seconds:  # a division that was rounded down
            number += 1
        while len(self._drawn) <= number:
            self._drawn.append(self._next(self._drawn[-1]))
        return self._source.levels[self._drawn[number]], self._end(number)

    def _end(self, number: int) -> float:
        return self._start + (number + 1) * self._period

    def _next(self, level: int) -> int:
        count = len(self._source.levels)
        if count == 1 or torch.rand((), generator=self._random).item() < self._source.stay:
            return level
        return (level + 1 + _below(count - 1, self._random)) % count


def make_availability(spec: str) -> Availability:
    """Make an availability from text: ``constant:share=0.5``, ``markov:stay=0.8,period=1``.

    Raises
    ------
    InputError
        If there is none of this name, or its settings don't fit.
    """
    name, texts = parse_spec("availability", spec)
    kinds: dict[str, tuple[type[ConstantAvailability] | type[MarkovAvailability], tuple[str, ...]]]
    kinds = {
        "constant": (ConstantAvailability, ("share",)),
        "markov": (MarkovAvailability, ("stay", "period")),
    }
    if name not in kinds:
        known = ", ".join(kinds)
        raise InputError(f"availability '{spec}': expected one of {known}, found '{name}'")
    kind, settings = kinds[name]
    check_settings("availability", spec, texts, settings)
    values: dict[str, Any] = {
        key: number("availability", spec, key, text) for key, text in texts.items()
    }
    return kind(**values)


def _below(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random).item())


def _check_shares(shares: tuple[float, ...]) -> None:
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(f"availability: expected free shares in (0, 1], found {shares}")

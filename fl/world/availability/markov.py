"""Free shares that a Markov chain moves between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import generator
from fl.world.availability.base import Availability, Timeline, check_period, check_shares, period_at
from fl.world.devices import Device
from fl.world.exact import Seconds, exact


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

    Raises
    ------
    InputError
        If a number is out of range.
    """

    levels: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    stay: float = 0.8
    period: float = 1.0

    def __post_init__(self) -> None:
        check_shares(self.levels)
        if not 0 <= self.stay <= 1:
            raise InputError(f"availability: expected stay in [0, 1], found {self.stay}")
        check_period(self.period)

    def timeline(
        self, device: Device, round_number: int, start: Seconds, slot: Seconds, seed: int
    ) -> Timeline:
        """Return the chain of this device and round."""
        random = generator(seed, "availability", device.index, round_number)
        return _Chain(self, start, exact(self.period) * exact(slot), random)

    def mean_share(self) -> float:
        """Return the mean of the levels, all of them being equally likely."""
        return math.fsum(self.levels) / len(self.levels)


class _Chain(Timeline):
    """A Markov chain, drawn as far as it was asked for."""

    def __init__(
        self, source: MarkovAvailability, start: Seconds, period: Fraction, random: torch.Generator
    ) -> None:
        self._source, self._start, self._period, self._random = source, start, period, random
        self._drawn = [_below(len(source.levels), random)]

    def at(self, seconds: Seconds) -> tuple[float, Seconds]:
        number, end = period_at(seconds, self._start, self._period)
        while len(self._drawn) <= number:
            self._drawn.append(self._next(self._drawn[-1]))
        return self._source.levels[self._drawn[number]], end

    def _next(self, level: int) -> int:
        count = len(self._source.levels)
        if count == 1 or torch.rand((), generator=self._random).item() < self._source.stay:
            return level
        return (level + 1 + _below(count - 1, self._random)) % count


def _below(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random).item())

"""A new free share every so often, whatever it was before."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import derive_seed
from fl.world.availability.base import Availability, Timeline, check_period, check_shares, period_at
from fl.world.devices import Device
from fl.world.exact import Seconds, exact


@dataclass(frozen=True)
class RedrawnAvailability(Availability):
    """A share drawn anew for each period, uniformly from a range.

    Synthetic. Periods are counted from the start of the run, so a long one goes on from round to
    round: with a period longer than rounds, devices differ in what they have free now and keep it
    for a while. (`MarkovAvailability` begins anew each round, and is for changes within one.)

    Parameters
    ----------
    low, high
        The range, 0 < low ≤ high ≤ 1. Our own choice: about that of the default levels of
        `MarkovAvailability`.
    period
        Length of a period in slots, > 0.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    low: float = 0.25
    high: float = 1.0
    period: float = 1.0

    def __post_init__(self) -> None:
        check_shares((self.low, self.high))
        if self.low > self.high:
            raise InputError(
                f"availability: expected low up to high, found {self.low} and {self.high}"
            )
        check_period(self.period)

    def timeline(
        self, device: Device, round_number: int, start: Seconds, slot: Seconds, seed: int
    ) -> Timeline:
        """Return the shares of this device, the same in every round."""
        return _Redrawn(self, exact(self.period) * exact(slot), device.index, seed)

    def mean_share(self) -> float:
        """Return the middle of the range."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class _Redrawn(Timeline):
    source: RedrawnAvailability
    period: Fraction
    device: int
    seed: int

    def at(self, seconds: Seconds) -> tuple[float, Seconds]:
        number, end = period_at(seconds, 0.0, self.period)
        # A derived seed has 63 uniform bits: a draw that needs none of those before it.
        draw = derive_seed(self.seed, "redrawn availability", self.device, number) / 2**63
        return self.source.low + (self.source.high - self.source.low) * draw, end

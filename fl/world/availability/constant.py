"""The same free share for all devices at all times."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fl.world.availability.base import Availability, Timeline, check_shares
from fl.world.devices import Device
from fl.world.exact import Seconds


@dataclass(frozen=True)
class ConstantAvailability(Availability):
    """The same share, in (0, 1], for all devices at all times.

    Raises
    ------
    InputError
        If the share is out of range.
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        check_shares((self.share,))

    def timeline(
        self, device: Device, round_number: int, start: Seconds, slot: Seconds, seed: int
    ) -> Timeline:
        """Return the constant share."""
        return _Constant(self.share)

    def mean_share(self) -> float:
        """Return the constant share."""
        return self.share


@dataclass(frozen=True)
class _Constant(Timeline):
    share: float

    def at(self, seconds: Seconds) -> tuple[float, Seconds]:
        return self.share, math.inf

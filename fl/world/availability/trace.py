"""Free shares as they were recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import derive_seed
from fl.world.availability.base import Availability, Timeline
from fl.world.availability.trace_file import Floats, Trace, read_trace
from fl.world.devices import Device
from fl.world.exact import Seconds, exact

Assignment = Literal["order", "seeded"]


@dataclass(frozen=True)
class TraceAvailability(Availability):
    """What the devices of a trace had free, repeated for as long as the run takes.

    A device's share is a matter of virtual time alone, the same in whatever round. Several devices
    of the run may play the same recorded one; they then have the same free at the same time.

    Parameters
    ----------
    path
        Of the file; `fl.world.availability.trace_file.read_trace` says what is in it.
    assign
        Which recorded device a device of the run plays: by ``"order"``, device i the one that
        comes (i modulo their number)-th in the file; ``"seeded"`` draws one for each device
        from the seed of the run. Where there are fewer recorded devices than devices and their
        number divides by that of the classes, ``"order"`` would give each to one class only.

    Attributes
    ----------
    content_hash
        Of the trace. What was read stays: a file that changes later changes nothing.

    Raises
    ------
    InputError
        If the file is refused, or there is no such assignment.
    """

    path: str
    assign: Assignment = "order"
    content_hash: str = field(init=False)

    def __post_init__(self) -> None:
        if self.assign not in get_args(Assignment):
            known = ", ".join(get_args(Assignment))
            raise InputError(
                f"devices of trace {self.path}: expected one of {known}, found {self.assign!r}"
            )
        object.__setattr__(self, "content_hash", self._trace.content_hash)

    # No field: those are settings, that are shown, compared and stored.
    @cached_property
    def _trace(self) -> Trace:
        return read_trace(self.path)

    def timeline(
        self, device: Device, round_number: int, start: Seconds, slot: Seconds, seed: int
    ) -> Timeline:
        """Return the recorded shares that the device plays."""
        number = (
            device.index if self.assign == "order" else derive_seed(seed, "trace", device.index)
        )
        return _Recorded(*self._trace.pieces(number % self._trace.devices))

    def mean_share(self) -> float:
        """Return the mean over the recorded devices, each over a repetition."""
        return float(self._trace.mean_shares().mean())


@dataclass(frozen=True, eq=False)
class _Recorded(Timeline):
    """Pieces of one recorded device; see `Trace`."""

    ends: Floats
    shares: Floats

    def at(self, seconds: Seconds) -> tuple[float, Seconds]:
        if len(self.ends) == 1:
            return float(self.shares[0]), math.inf
        length = self._end(-1)
        repetition, phase = divmod(Fraction(seconds), length)
        piece = int(np.searchsorted(self.ends, float(phase), side="right"))
        while piece and phase < self._end(piece - 1):  # the phase was rounded up
            piece -= 1
        return float(self.shares[piece]), repetition * length + self._end(piece)

    def _end(self, piece: int) -> Fraction:
        return exact(float(self.ends[piece]))

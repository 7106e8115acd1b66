"""Availability from text, such as ``markov:stay=0.8,period=2`` or ``trace:phones.csv``."""

from __future__ import annotations

from typing import Any

from distreal_dse.errors import InputError
from distreal_dse.support.registry import Entry, Registry
from distreal_dse.support.specs import name_of, number
from fl.world.availability.base import Availability
from fl.world.availability.constant import ConstantAvailability
from fl.world.availability.markov import MarkovAvailability
from fl.world.availability.redrawn import RedrawnAvailability
from fl.world.availability.trace import TraceAvailability

PLUG_INS = "distreal_dse.availabilities"
"""Group of entry points: a name of letters, digits and ``-``, and what makes an `Availability`."""

KIND = "availability"
TRACE = "trace"
_AVAILABILITIES = Registry[Availability](
    KIND,
    Availability,
    {
        "constant": Entry(ConstantAvailability, {"share": number}),
        "redrawn": Entry(RedrawnAvailability, {"low": number, "high": number, "period": number}),
        "markov": Entry(MarkovAvailability, {"stay": number, "period": number}),
    },
    PLUG_INS,
    (f"{TRACE}:PATH",),
)
# May stand behind the path of a trace.
_ASSIGN = "assign"


def make_availability(spec: str) -> Availability:
    """Make an availability from text.

    Parameters
    ----------
    spec
        ``constant``, ``redrawn`` or ``markov``, with the parameters of their classes as settings:
        ``constant:share=0.5``, ``redrawn:low=0.2,high=0.8,period=4``, ``markov:stay=0.8,period=2``.
        Or ``trace:PATH``, and behind the path, if need be, ``,assign=seeded``.

    Raises
    ------
    InputError
        If there is none of this name, its settings don't fit, or its file is refused.
    """
    if name_of(spec) == TRACE:
        return _trace(spec, spec.partition(":")[2])
    return _AVAILABILITIES.make(spec)


def _trace(spec: str, rest: str) -> TraceAvailability:
    path, found, assign = rest.rpartition(f",{_ASSIGN}=")  # a path may hold commas
    path = path if found else rest
    if not path:
        raise InputError(f"{KIND} '{spec}': expected {TRACE}:PATH, the path of a CSV file")
    values: dict[str, Any] = {_ASSIGN: assign} if found else {}
    return TraceAvailability(path, **values)

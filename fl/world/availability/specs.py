"""Availability from text, such as ``markov:stay=0.8,period=2`` or ``trace:phones.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distreal_dse.errors import InputError
from distreal_dse.specs import check_settings, number, parse_spec, unknown_name
from fl.world.availability.base import Availability
from fl.world.availability.constant import ConstantAvailability
from fl.world.availability.markov import MarkovAvailability
from fl.world.availability.redrawn import RedrawnAvailability
from fl.world.availability.trace import TraceAvailability

KIND = "availability"
TRACE = "trace"
# What a name stands for, and which settings, all of them numbers, it takes.
_NAMED: Mapping[str, tuple[type[Any], tuple[str, ...]]] = {
    "constant": (ConstantAvailability, ("share",)),
    "redrawn": (RedrawnAvailability, ("low", "high", "period")),
    "markov": (MarkovAvailability, ("stay", "period")),
}
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
    name, _, rest = spec.partition(":")
    if name == TRACE:
        return _trace(spec, rest)
    if name not in _NAMED:
        raise unknown_name(KIND, spec, name, (*_NAMED, f"{TRACE}:PATH"))
    kind, settings = _NAMED[name]
    _, texts = parse_spec(KIND, spec)
    check_settings(KIND, spec, texts, settings)
    values = {key: number(KIND, spec, key, text) for key, text in texts.items()}
    source: Availability = kind(**values)
    return source


def _trace(spec: str, rest: str) -> TraceAvailability:
    path, found, assign = rest.rpartition(f",{_ASSIGN}=")  # a path may hold commas
    path = path if found else rest
    if not path:
        raise InputError(f"{KIND} '{spec}': expected {TRACE}:PATH, the path of a CSV file")
    values: dict[str, Any] = {_ASSIGN: assign} if found else {}
    return TraceAvailability(path, **values)

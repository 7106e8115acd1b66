"""DISTREAL: each device looks its dropout vector up by itself, mini-batch by mini-batch.

References
----------
Rapp, Khalili, Pfeiffer, Henkel: DISTREAL, AAAI 2022, doi 10.1609/aaai.v36i7.20778.
"""

from __future__ import annotations

from collections.abc import Sequence

from distreal_dse.fronts import FrontPoint, LookupTable
from fl.devices import Device
from fl.results import State, Update
from fl.server import fedavg
from fl.strategies.base import Strategy


class Distreal(Strategy):
    """Random masks drawn per mini-batch, vectors from a front, plain averaging.

    Parameters
    ----------
    lookup
        The front as each device has it.
    """

    name = "distreal"

    def __init__(self, lookup: LookupTable) -> None:
        self._lookup = lookup

    def pick(self, device: Device, budget: float) -> FrontPoint:
        """Return the best vector that fits, or the cheapest where none does (our own choice)."""
        return self._lookup.pick_or_cheapest(budget)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Average over all updates, whatever was dropped in them."""
        return fedavg(updates)

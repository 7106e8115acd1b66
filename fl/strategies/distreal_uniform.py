"""DISTREAL without a search: one rate for all layers, chosen per mini-batch by the budget.

What a front has to beat: the same masks and averaging, with vectors that need no search.

References
----------
Rapp, Khalili, Pfeiffer, Henkel: DISTREAL, AAAI 2022, doi 10.1609/aaai.v36i7.20778.
"""

from __future__ import annotations

from collections.abc import Sequence

from distreal_dse.dropout import ChannelMap, RandomMasks
from fl.averaging import make_averaging
from fl.results import State, Update
from fl.strategies.base import LocalPlan, Strategy, Vector
from fl.strategies.context import StrategyContext, VectorTable
from fl.world.devices import Device

# From rate 0 to the largest of the study: so fine that hardly any of a budget stays unused.
RATES = 1000


class DistrealUniform(Strategy):
    """The dearest vector of one rate that fits the budget of each mini-batch, random masks.

    Parameters
    ----------
    context
        What is known of the run.
    averaging
        See `fl.averaging.make_averaging`.

    Raises
    ------
    InputError
        If there is no such averaging.
    """

    name = "distreal-uniform"

    def __init__(self, context: StrategyContext, averaging: str = "plain") -> None:
        largest = context.study.max_rate
        shares = [1 - largest * step / (RATES - 1) for step in range(RATES)]
        self._table = VectorTable([*dict.fromkeys(context.uniform(share) for share in shares)])
        self._average = make_averaging(averaging)

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that follows the budget of each mini-batch."""
        return TablePlan(self._table)

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Average as was asked for."""
        return self._average(state, updates, channels)


class TablePlan(LocalPlan):
    """The dearest vector of a table that fits the budget of the mini-batch, random masks.

    Parameters
    ----------
    table
        The vectors.
    """

    def __init__(self, table: VectorTable) -> None:
        super().__init__(RandomMasks())
        self._table = table

    def pick(self, budget: float) -> Vector:
        """Return the dearest vector that fits, or the cheapest where none does."""
        return self._table.pick(budget)

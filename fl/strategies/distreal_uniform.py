"""DISTREAL without a search: one rate for all layers, chosen per mini-batch by the budget.

What a front has to beat: the same masks and averaging, with vectors that need no search.

References
----------
Rapp, Khalili, Pfeiffer, Henkel: DISTREAL, AAAI 2022, doi 10.1609/aaai.v36i7.20778.
"""

from __future__ import annotations

from fl.strategies.base import Strategy, Vector
from fl.strategies.context import StrategyContext, VectorTable
from fl.strategies.setting import AVERAGING, CHOOSE, MASKS

# From rate 0 to the largest of the study: so fine that hardly any of a budget stays unused.
RATES = 1000


class DistrealUniform(Strategy):
    """The dearest vector of one rate that fits the budget of each mini-batch, random masks.

    Rates go up to the largest of the study, and further where the slowest device could not afford
    that either: no search bounds them here, and the device could take no part.

    Parameters
    ----------
    context
        What is known of the run.
    """

    name = "distreal-uniform"
    settings = {"masks": MASKS, "averaging": AVERAGING, "choose": CHOOSE}
    chosen = "per mini-batch"
    masks = "random"
    averaging = "plain"

    def __init__(self, context: StrategyContext) -> None:
        super().__init__(context)
        self._table = VectorTable(self._vectors(context.study.max_rate))
        if self._table.vectors[0].cost > context.weakest_budget:
            self._table = VectorTable(self._vectors(1.0))

    def _vectors(self, largest: float) -> list[Vector]:
        """Vectors of rates up to one, each of a cost that is known."""
        shares = [1 - largest * step / RATES for step in range(RATES)]
        vectors = dict.fromkeys(map(self.context.uniform, [*shares, max(1 - largest, 1e-9)]))
        return [one for one in vectors if self.context.is_certain(one)]

    def pick(self, budget: float) -> Vector:
        """Return the dearest vector that fits, or the cheapest where none does."""
        return self._table.pick(budget)

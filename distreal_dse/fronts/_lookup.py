"""The lookup table: what a device asks, before each mini-batch, what it can afford."""

from __future__ import annotations

from bisect import bisect_right

from distreal_dse.errors import FrontError
from distreal_dse.fronts._front import Front
from distreal_dse.fronts._table import TableVector, table_of


class BudgetTooSmallError(FrontError):
    """A budget below the cost of the cheapest vector of the front."""


class LookupTable:
    """The vectors of a front by cost: budget → the dearest that fits.

    Parameters
    ----------
    front
        The front to look up in: its points and, where it has a table, the vectors between them, so
        that hardly any of a budget stays unused.

    Raises
    ------
    FrontError
        If the front's table is none of its network.
    """

    def __init__(self, front: Front) -> None:
        self.front = front
        self.vectors = table_of(front)
        self.cheapest = self.vectors[0]
        # A plain list: bisect takes 0.1 µs on it; numpy would take ten times as long.
        self._costs = [vector.cost for vector in self.vectors]

    def pick(self, budget: float) -> TableVector:
        """Return the best vector with cost ≤ budget.

        Parameters
        ----------
        budget
            What the device may spend on the mini-batch at hand, in the front's cost unit.

        Raises
        ------
        BudgetTooSmallError
            Where not even the cheapest vector fits, or the budget is NaN.
        """
        if budget >= self.cheapest.cost:
            return self.vectors[bisect_right(self._costs, budget) - 1]
        unit = self.front.cost_unit
        raise BudgetTooSmallError(
            f"budget {budget:g} {unit} is too small for front {self.front.label}: expected at "
            f"least {self.cheapest.cost:g} {unit}, the cost of its cheapest vector; "
            f"raise the budget or skip the mini-batch"
        )

    def pick_or_cheapest(self, budget: float) -> TableVector:
        """Return the best vector with cost ≤ budget, or the cheapest where none fits."""
        if budget >= self.cheapest.cost:
            return self.vectors[bisect_right(self._costs, budget) - 1]
        return self.cheapest

"""The lookup table: what a device asks, before each mini-batch, what it can afford."""

from __future__ import annotations

from bisect import bisect_right

from distreal_dse.errors import FrontError
from distreal_dse.fronts._front import Front, FrontPoint


class BudgetTooSmallError(FrontError):
    """A budget below the cost of the cheapest vector of the front."""


class LookupTable:
    """A front ordered by cost: budget → the vector that converges best among those that fit.

    Parameters
    ----------
    front
        The front to look up in. Its dearest point that fits is the best one, because on a front
        convergence rises with cost.
    """

    def __init__(self, front: Front) -> None:
        self.front = front
        self.cheapest = front.points[0]
        # Plain lists: bisect takes 0.1 µs on them; numpy would take ten times as long.
        self._points = list(front.points)
        self._costs = [point.cost for point in front.points]

    def pick(self, budget: float) -> FrontPoint:
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
            return self._points[bisect_right(self._costs, budget) - 1]
        unit = self.front.cost_unit
        raise BudgetTooSmallError(
            f"budget {budget:g} {unit} is too small for front {self.front.label}: expected at "
            f"least {self.cheapest.cost:g} {unit}, the cost of its cheapest vector; "
            f"raise the budget or skip the mini-batch"
        )

    def pick_or_cheapest(self, budget: float) -> FrontPoint:
        """Return the best vector with cost ≤ budget, or the cheapest where none fits."""
        if budget >= self.cheapest.cost:
            return self._points[bisect_right(self._costs, budget) - 1]
        return self.cheapest

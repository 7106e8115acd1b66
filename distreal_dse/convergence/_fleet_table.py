"""A table at work in a fleet: each mini-batch draws its budget and trains the vector for it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import torch

from distreal_dse.budgets import Budgets
from distreal_dse.dropout import KeptCounts
from distreal_dse.errors import InputError


@dataclass(frozen=True)
class FleetTable:
    """Vectors by cost, and the budgets that a fleet looks them up with.

    Parameters
    ----------
    budgets
        Of the fleet.
    vectors
        Kept counts, at least one.
    costs
        Of each, as shares of the full network's cost; rising.

    Raises
    ------
    InputError
        If the fleet has a budget that no vector fits.
    """

    budgets: Budgets
    vectors: tuple[KeptCounts, ...]
    costs: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.budgets.shares[0] < self.costs[0]:
            raise InputError(
                f"fleet '{self.budgets.fleet}' has budgets of {self.budgets.shares[0]:.3%} of the "
                f"full network's cost: expected at least the {self.costs[0]:.3%} of the cheapest "
                "vector; give its weakest devices more, or leave them out"
            )

    def pick(self, budget: float) -> KeptCounts:
        """Return the dearest vector that a share of the full network's cost pays for."""
        return self.vectors[max(1, bisect_right(self.costs, budget)) - 1]

    def schedule(self, mini_batches: int, random: torch.Generator) -> list[KeptCounts]:
        """Draw budgets, and return the vector for each."""
        return [self.pick(budget) for budget in self.budgets.draw(mini_batches, random)]

    def unused(self) -> float:
        """Return the share of what the fleet may spend that its vectors leave unused."""
        costs = dict(zip(self.vectors, self.costs, strict=True))
        pairs = list(zip(self.budgets.shares, self.budgets.weights, strict=True))
        spent = sum(weight * costs[self.pick(budget)] for budget, weight in pairs)
        return 1 - spent / self.budgets.mean

"""What strategies are made from, and the vectors that baselines make up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, kept_counts
from distreal_dse.fronts import Front
from distreal_dse.study import Study
from fl.strategies.base import Vector

# Halvings of the range of keep shares: finer than one filter of the widest layer there is.
_HALVINGS = 40


@dataclass(frozen=True)
class StrategyContext:
    """What is known of a federated run before it begins.

    Parameters
    ----------
    network
        The full network, with the values that it starts from.
    front
        Of the network; None where there is none. Only DISTREAL takes its vectors from it.
    macs
        Prices vectors of the network.
    weakest_budget
        What the slowest device can spend on a mini-batch on average, in MACs per sample: its speed
        × the mean free share × the pace of the run × the cost of the full network, and at most the
        latter.
    study
        Gives the loss, and the granularity of kept counts.
    """

    network: DroppableNetwork
    front: Front | None
    macs: MacCost
    weakest_budget: float
    study: Study

    @property
    def full(self) -> Vector:
        """The vector that drops nothing."""
        return Vector(self.network.full_counts, self.macs.full)

    def uniform(self, keep: float) -> Vector:
        """Return the vector of one keep share in (0, 1] for all groups.

        Rounded as all kept counts of the study are; each group keeps one filter at least.
        """
        groups = self.network.groups
        counts = kept_counts([1 - keep] * len(groups), groups, self.study.granularity)
        return Vector(counts, self.macs.training(counts))

    def largest_within(self, budget: float) -> Vector:
        """Return the dearest vector of one keep share that fits, or the cheapest if none does."""
        if self.macs.full <= budget:
            return self.full
        # Rounded counts never fall as the share rises, and neither does their cost.
        fits, too_large = 2.0**-_HALVINGS, 1.0
        for _ in range(_HALVINGS):
            middle = (fits + too_large) / 2
            if self.uniform(middle).cost <= budget:
                fits = middle
            else:
                too_large = middle
        return self.uniform(fits)


class VectorTable:
    """Vectors by cost: budget → the dearest that fits.

    Parameters
    ----------
    vectors
        At least one. Equal ones stay as many as they are.
    """

    def __init__(self, vectors: Sequence[Vector]) -> None:
        self.vectors = tuple(sorted(vectors, key=lambda vector: vector.cost))
        self._costs = [vector.cost for vector in self.vectors]

    def within(self, budget: float) -> tuple[Vector, ...]:
        """Return those that fit, by rising cost; the cheapest alone where none does."""
        return self.vectors[: max(1, bisect_right(self._costs, budget))]

    def pick(self, budget: float) -> Vector:
        """Return the dearest that fits, or the cheapest where none does."""
        return self.vectors[max(1, bisect_right(self._costs, budget)) - 1]

"""What strategies are made from, and the vectors that baselines make up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, KeptCounts, kept_counts
from distreal_dse.fronts import Front
from distreal_dse.pricing import SecondsPrices, seconds_of
from distreal_dse.study import Study
from fl.strategies.base import Vector
from fl.world.devices import Device

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
        Counts MACs of vectors of the network. What a vector costs is `price`, in MACs or not.
    weakest_budget
        What the slowest device can spend on a mini-batch on average, in the unit of `price`: its
        speed × the mean free share × the pace of the run × the cost of the full network, and at
        most the latter.
    study
        Gives the loss, and the granularity of kept counts.
    steps
        How a mini-batch trains a sub-network, which decides what it costs in seconds: cut out of
        the full network each time, or ``"alone"``, as a network of its own. `make_strategy` takes
        what fits the strategy.
    pace
        Time allotted to a mini-batch; see `fl.world.clock.Clock`.
    """

    network: DroppableNetwork
    front: Front | None
    macs: MacCost
    weakest_budget: float
    study: Study
    steps: Literal["cut", "alone"] = "cut"
    pace: float = 1.0

    def most(self, device: Device) -> float:
        """Return the largest budget that a device may have: with everything free."""
        return min(1.0, device.speed * self.pace) * self.full.cost

    def price(self, counts: KeptCounts) -> float:
        """Return the cost of a mini-batch of a vector, in the unit of budgets and of the clock.

        Raises
        ------
        FrontError
            If costs are seconds, and the front has none for other vectors than its own.
        """
        return self.macs.training(counts) if self._seconds is None else self._seconds.cost(counts)

    @property
    def full(self) -> Vector:
        """The vector that drops nothing."""
        front = self.front
        timed = front is not None and front.cost_metric == "latency"
        cost = front.reference_cost if front and timed else self.macs.full
        return Vector(self.network.full_counts, cost)

    def uniform(self, keep: float) -> Vector:
        """Return the vector of one keep share in (0, 1] for all groups.

        Rounded as all kept counts of the study are; each group keeps one filter at least.
        """
        groups = self.network.groups
        counts = kept_counts([1 - keep] * len(groups), groups, self.study.granularity)
        return Vector(counts, self.price(counts))

    def is_certain(self, vector: Vector) -> bool:
        """Whether the cost of a vector of one keep share is known: by counting, or by timing."""
        return self._seconds is None or vector.kept_counts in self._seconds.one_rate

    def largest_within(self, budget: float) -> Vector:
        """Return the widest vector of one keep share that fits, or the cheapest if none does.

        Where costs are seconds, of those that were timed.
        """
        if self.full.cost <= budget:
            return self.full
        if self._seconds is not None:
            timed = [Vector(counts, self.price(counts)) for counts in self._seconds.one_rate]
            fitting = [one for one in timed if one.cost <= budget]
            return fitting[-1] if fitting else min(timed, key=lambda one: one.cost)
        # Rounded counts never fall as the share rises, and neither does their cost.
        fits, too_large = 2.0**-_HALVINGS, 1.0
        for _ in range(_HALVINGS):
            middle = (fits + too_large) / 2
            if self.uniform(middle).cost <= budget:
                fits = middle
            else:
                too_large = middle
        return self.uniform(fits)

    @cached_property
    def _seconds(self) -> SecondsPrices | None:
        """Prices of a front of seconds."""
        if self.front is None or self.front.cost_metric != "latency":
            return None
        prices = seconds_of(self.front, self.macs)
        return prices.alone if self.steps == "alone" else prices.cut


class VectorTable:
    """Vectors by cost: budget → the dearest that fits.

    Parameters
    ----------
    vectors
        At least one. Equal ones stay as many as they are. One that lies within another that costs
        no more is left out, as happens where costs are seconds.
    """

    def __init__(self, vectors: Sequence[Vector]) -> None:
        useful = _without_dominated(vectors)
        self.vectors = tuple(sorted(useful, key=lambda vector: vector.cost))
        self._costs = [vector.cost for vector in self.vectors]

    def within(self, budget: float) -> tuple[Vector, ...]:
        """Return those that fit, by rising cost; the cheapest alone where none does."""
        return self.vectors[: max(1, bisect_right(self._costs, budget))]

    def pick(self, budget: float) -> Vector:
        """Return the dearest that fits, or the cheapest where none does."""
        return self.vectors[max(1, bisect_right(self._costs, budget)) - 1]


def _without_dominated(vectors: Sequence[Vector]) -> list[Vector]:
    """Leave out vectors that lie within another one of the same cost or less."""
    counts = np.array([vector.kept_counts for vector in vectors])
    costs = np.array([vector.cost for vector in vectors])
    return [
        vector
        for vector, own in zip(vectors, counts, strict=True)
        if not ((costs <= vector.cost) & (counts >= own).all(1) & (counts > own).any(1)).any()
    ]

"""What vectors gain over all budgets: the area below their curve over the logarithm of the cost.

It is the hypervolume over log cost, divided by the width of the range, and so in the unit of gains.
Each factor of a budget counts as much as any other; over the cost itself, half of the area would
lie above half of the full cost, where little can be saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distreal_dse.fronts._front import non_dominated
from distreal_dse.fronts._savings import CONFIDENCE, Floats, MeasuredVector, out_of_bag


@dataclass(frozen=True)
class MeanGain:
    """Mean gain over budgets, evenly in logarithm, of a front and of one rate for all layers.

    Parameters
    ----------
    own, uniform
        Of all vectors, those of one rate among them, and of those of one rate alone.
    low, high
        Ends of the interval of their difference.
    """

    own: float
    uniform: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """What the front gains more."""
        return self.own - self.uniform


def mean_gain(
    vectors: Sequence[MeasuredVector],
    reference_cost: float,
    confidence: float = CONFIDENCE,
    resamples: int = 1000,
    budgets: int = 64,
) -> MeanGain:
    """Return the mean gain over budgets from the cheapest one-rate vector to the full cost.

    A curve goes through the vectors that are not dominated, linear in the logarithm of the cost as
    figures draw it; gains below 0 count as 0, as such vectors are no points of a front. Which are
    not dominated is judged by a bootstrap sample of the replicates, and their gains are measured on
    those left out of it, as in `mean_saving`.

    Parameters
    ----------
    vectors
        As for `savings`.
    reference_cost
        Of the full network.
    confidence, resamples, budgets
        Of the interval; the number of draws; the number of budgets.
    """
    costs = np.array([one.cost for one in vectors])
    gains = np.array([one.gains for one in vectors])
    family = np.flatnonzero([one.uniform for one in vectors])
    everyone = np.arange(len(vectors))
    grid = np.linspace(np.log(costs[family].min()), np.log(reference_cost), budgets)
    areas = np.array(
        [
            [_area(grid, costs[some], judged[some], measured[some]) for some in (everyone, family)]
            for judged, measured in out_of_bag(gains, resamples)
        ]
    )
    own, uniform = np.median(areas, axis=0).tolist()
    tail = (1 - confidence) / 2
    low, high = np.quantile(areas[:, 0] - areas[:, 1], [tail, 1 - tail]).tolist()
    return MeanGain(own, uniform, low, high)


def _area(grid: Floats, costs: Floats, judged: Floats, measured: Floats) -> float:
    best = non_dominated(costs.tolist(), judged.tolist())
    curve = np.interp(grid, np.log(costs[best]), measured[best])
    return float(np.maximum(curve, 0).mean())

"""Curves: tables of few parameters, a vector for every budget.

On a curve, the kept share of channel group g at a scale s in (0, 1] is s^e_g, with an *elasticity*
e_g > 0 of each group. All elasticities alike is one rate for all layers; a group with a smaller one
than the others stays wider than they do where budgets are small. (Our own choice; compound scaling
of networks, Tan & Le, ICML 2019, section 3.3, moves along such curves in depth, width and
resolution.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution

from distreal_dse.dropout import ChannelGroup, KeptCounts, allowed_counts

# Fewer units than this are never kept, of groups that have as many. Our own choice, with which
# curves were fitted that did well in federated runs.
LEAST_KEPT = 2
# Elasticities relative to their geometric mean: from a group that nearly stays whole to one that
# shrinks long before the others.
LOWEST, HIGHEST = 0.1, 4.0
# A network of more groups has its elasticities interpolated over depth: fifty numbers can't be told
# from as many short runs.
CONTROL_POINTS = 6
# Vectors of one curve; enough that hardly any of a budget stays unused.
MOST_VECTORS = 256


class CurveSpace:
    """Curves as parameters of a trial: elasticities at some depths of the network.

    Parameters
    ----------
    groups
        The channel groups, in the order of a vector.
    granularity
        Of kept counts; see `distreal_dse.dropout.kept_counts`.
    """

    def __init__(self, groups: Sequence[ChannelGroup], granularity: int) -> None:
        self._allowed = [
            np.array([count for count in allowed_counts(group.channels, granularity)
                      if count >= min(LEAST_KEPT, group.channels)])
            for group in groups
        ]  # fmt: skip
        points = min(len(groups), CONTROL_POINTS)
        self._depths = np.linspace(0, len(groups) - 1, points)
        self._names = [f"elasticity {groups[round(depth)].name}" for depth in self._depths]
        self.distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(LOWEST, HIGHEST, log=True) for name in self._names
        }

    def elasticities(self, params: Mapping[str, float]) -> tuple[float, ...]:
        """Elasticity of each group, between depths by their logarithm; geometric mean 1."""
        logs = np.log([params[name] for name in self._names])
        every = np.interp(np.arange(len(self._allowed)), self._depths, logs)
        return tuple(np.exp(every - every.mean()).tolist())

    def snapped(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Points of the unit cube that stand for all with the same ratios, [n, elasticities] each.

        A dimension is the logarithm of an elasticity, from the lowest to the highest.
        """
        one_rate = -math.log(LOWEST) / math.log(HIGHEST / LOWEST)
        centred = points - points.mean(1, keepdims=True) + one_rate
        found: npt.NDArray[np.float64] = np.clip(centred, 0, 1)
        return found

    def starts(self) -> list[dict[str, float]]:
        """Return parameters to begin with: one rate, then wide ends and wide middles.

        The first of them is one rate for all layers.
        """
        depth = np.linspace(-1, 1, len(self._names)) if len(self._names) > 1 else np.zeros(1)
        last = np.where(np.arange(len(depth)) == len(depth) - 1, 1.0, 0.0)
        shapes = [0 * depth, -last * math.log(8), -depth, depth, depth**2 - 0.5, 0.5 - depth**2]
        clipped = [np.clip(np.exp(shape), LOWEST, HIGHEST) for shape in shapes]
        return [dict(zip(self._names, shape.tolist(), strict=True)) for shape in clipped]

    def vectors(self, elasticities: Sequence[float]) -> list[KeptCounts]:
        """Return the distinct vectors on a curve, from the smallest to the full network.

        All of them up to `MOST_VECTORS`; of more, so many evenly spread in scale.
        """
        # Scales at which a count changes: those of the middles between neighbouring counts.
        scales = [np.zeros(1)]
        for allowed, elasticity in zip(self._allowed, elasticities, strict=True):
            middles = (allowed[1:] + allowed[:-1]) / 2 / allowed[-1]
            scales.append(np.log(middles) / elasticity)
        changes = np.unique(np.concatenate(scales))
        between = (changes[1:] + changes[:-1]) / 2
        logs = np.concatenate([changes[:1] - 1, between, [0.0]])
        kept = np.stack(
            [
                _counts(allowed, logs * elasticity)
                for allowed, elasticity in zip(self._allowed, elasticities, strict=True)
            ],
            axis=1,
        )
        distinct = list(dict.fromkeys(map(tuple, kept.tolist())))
        if len(distinct) <= MOST_VECTORS:
            return distinct
        chosen = np.unique(np.linspace(0, len(distinct) - 1, MOST_VECTORS).round().astype(int))
        return [distinct[index] for index in chosen]


def _counts(
    allowed: npt.NDArray[np.int64], log_shares: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The allowed count that is nearest to each share of the width."""
    middles = (allowed[1:] + allowed[:-1]) / 2
    nearest: npt.NDArray[np.int64] = allowed[
        np.searchsorted(middles, np.exp(log_shares) * allowed[-1])
    ]
    return nearest

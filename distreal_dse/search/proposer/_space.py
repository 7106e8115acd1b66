"""What is searched: how much of each channel group is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution

from distreal_dse.dropout import ChannelGroup, KeptCounts, allowed_counts, kept_counts
from distreal_dse.fronts import FrontGroup

Floats = npt.NDArray[np.float64]

# One-rate vectors that are always evaluated first, evenly spaced in the logarithm of the kept
# share; the first is the full network.
UNIFORM_VECTORS = 9
# The common rate of all groups, in searches of earlier versions: rate = level + offset, clipped.
LEVEL = "level"
# So many steps lead from a vector to the smallest one; the first that fits stands for it.
SHRINKING_STEPS = 64


class SearchSpace:
    """Dropout vectors as parameters of a trial: the kept share of each group, logarithmic.

    Logarithms, because costs are products of kept shares and gains depend on their ratios: a
    Gaussian process predicts gains better from them than from the shares (docs/architecture.md).

    Parameters
    ----------
    groups
        The channel groups, in the order of a vector.
    max_rate
        Largest rate, in (0, 1).
    granularity
        Of kept counts; see `distreal_dse.dropout.kept_counts`.
    fits
        Tells which kept counts [n, groups] are allowed, shape [n]; the smallest ones have to be.
        Parameters of others stand for a vector that keeps the same smaller share of all groups.
        So each sampler proposes allowed vectors alone. None allows all.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup | FrontGroup],
        max_rate: float,
        granularity: int = 1,
        fits: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        self._fits = fits
        self._within: dict[tuple[float, ...], tuple[float, ...]] = {}
        self._groups = tuple(ChannelGroup(group.name, group.channels, ()) for group in groups)
        self._names = [f"keep {group.name}" for group in groups]
        self._offsets = [f"offset {group.name}" for group in groups]
        self._max_rate, self._granularity = max_rate, granularity
        self._log_low = math.log(1 - max_rate)
        self._allowed = [np.array(allowed_counts(group.channels, granularity)) for group in groups]
        self.distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(1 - max_rate, 1.0, log=True) for name in self._names
        }

    def rates(self, params: Mapping[str, float]) -> tuple[float, ...]:
        """The dropout vector of a trial's parameters, those of earlier versions too."""
        if LEVEL in params:
            rates = (params[LEVEL] + params[name] for name in self._offsets)
        else:
            rates = (1 - params[name] for name in self._names)
        return self._fitting(tuple(min(max(rate, 0.0), self._max_rate) for rate in rates))

    def counts(self, params: Mapping[str, float]) -> KeptCounts:
        """Kept counts of a trial's parameters."""
        return kept_counts(self.rates(params), self._groups, self._granularity)

    def params(self, rates: Sequence[float]) -> dict[str, float]:
        """Parameters of a dropout vector; rates are at most the largest."""
        low = 1 - self._max_rate
        return {name: max(1 - rate, low) for name, rate in zip(self._names, rates, strict=True)}

    def uniform(self, count: int = UNIFORM_VECTORS) -> list[dict[str, float]]:
        """Parameters of one-rate vectors, from no dropout to the largest rate."""
        # The same rate in all groups: from none, or the smallest that fits.
        high = math.log(1 - self._fitting((0.0,) * len(self._names))[0])
        shares = np.exp(np.linspace(high, self._log_low, count)).tolist()
        return [self.params([1 - share] * len(self._names)) for share in shares]

    def counts_at(self, points: Floats) -> npt.NDArray[np.int64]:
        """Kept counts at points of the unit cube, [n, groups] each.

        A dimension is the logarithm of a group's kept share: 0 is the largest rate, 1 keeps all.
        """
        counts = self._nearest_counts(points)
        if self._fits is None or not len(points):
            return counts
        for row in np.flatnonzero(~self._fits(counts)):
            way = np.linspace(0, 1, SHRINKING_STEPS + 1)[:, None]
            shrunk = self._nearest_counts(np.maximum(points[row] - way, 0.0))
            counts[row] = shrunk[_first(self._fits(shrunk))]
        return counts

    def _nearest_counts(self, points: Floats) -> npt.NDArray[np.int64]:
        shares = np.exp(self._log_low * (1 - points))
        kept = np.empty(points.shape, dtype=np.int64)
        for group, allowed in enumerate(self._allowed):
            middles = (allowed[1:] + allowed[:-1]) / 2
            kept[:, group] = allowed[np.searchsorted(middles, shares[:, group] * allowed[-1])]
        return kept

    def points(self, counts: npt.NDArray[np.int64]) -> Floats:
        """Points of the unit cube with kept counts, or the nearest, [n, groups] each."""
        widths = np.array([allowed[-1] for allowed in self._allowed])
        found: Floats = 1 - np.clip(np.log(counts / widths) / self._log_low, 0, 1)
        return found

    def snapped(self, points: Floats) -> Floats:
        """Points that stand for all with the same kept counts, [n, groups] each."""
        return self.points(self.counts_at(points))

    def _fitting(self, rates: tuple[float, ...]) -> tuple[float, ...]:
        """The rates, or those of the vector that stands for them."""
        if self._fits is None:
            return rates
        if rates not in self._within:
            shares = np.array([1 - rate for rate in rates])
            factors = np.exp(np.linspace(0, self._log_low, SHRINKING_STEPS + 1))[:, None]
            steps = [
                tuple(row)
                for row in (1 - np.maximum(shares * factors, 1 - self._max_rate)).tolist()
            ]
            steps[0] = rates
            vectors = [kept_counts(row, self._groups, self._granularity) for row in steps]
            self._within[rates] = steps[_first(self._fits(np.array(vectors)))]
        return self._within[rates]


def _first(fits: npt.NDArray[np.bool_]) -> int:
    """The first that fits, or else the last."""
    return int(fits.argmax()) if fits.any() else len(fits) - 1

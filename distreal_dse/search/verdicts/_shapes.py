"""Whether the shape of a vector matters at all: how far vectors of equal cost differ in gain.

References
----------
Viechtbauer: Confidence intervals for the amount of heterogeneity in meta-analysis, Statistics in
Medicine 2007, section 4.4 (Q-profile: the interval of a variance of effects from their weighted sum
of squares).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distreal_dse.search.verdicts._race import pooled_variance

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ShapeEffect:
    """How far shapes differ from one rate for all layers at equal cost.

    Parameters
    ----------
    spread
        Root of the mean square of the differences in gain, their noise taken away.
    low, high
        Its interval.
    noise
        Standard deviation of the gain of one short run.
    """

    spread: float
    low: float
    high: float
    noise: float


def shape_effect(
    shaped: Floats, controls: Floats, weights: Floats, confidence: float = 0.95
) -> ShapeEffect:
    """Estimate how far shapes differ from one rate for all layers.

    Parameters
    ----------
    shaped
        Gains of vectors or tables of a shape, replicate by replicate, [m, replicates].
    controls
        Gains of one rate, with the same seeds, [controls, replicates]; at least two replicates.
    weights
        By which the controls give what one rate gains at the cost of each shape, [m, controls].
    confidence
        In (0, 1).
    """
    from scipy.stats import f as f_distribution

    replicates = shaped.shape[1]
    every = np.vstack([shaped, controls])
    effects = every.mean(0) - every.mean()
    variance = pooled_variance(every.tolist(), effects.tolist())
    # The common luck of each replicate but one was estimated, too.
    freedom = (len(every) - 1) * (replicates - 1)
    variance *= len(every) / (len(every) - 1)
    differences = (shaped - weights @ controls).mean(1)
    # Shapes share the noise of what they are compared with.
    own, directions = np.linalg.eigh(np.eye(len(shaped)) + weights @ weights.T)
    least = 1e-9 * float(np.ptp(every)) or 1e-12  # where all gains are equal, bit by bit
    noise = own * max(variance, least**2) / replicates
    squares = (directions.T @ differences) ** 2
    tail = (1 - confidence) / 2
    count = len(shaped)
    quantiles = [count * float(f_distribution.ppf(p, count, freedom)) for p in (tail, 1 - tail)]

    def spread_at(quantile: float) -> float:
        """The spread at which the weighted squares come to a quantile of what they should."""
        return math.sqrt(_root(lambda added: float((squares / (noise + added)).sum()) - quantile))

    return ShapeEffect(
        spread=spread_at(count),
        low=spread_at(quantiles[1]),
        high=spread_at(quantiles[0]),
        noise=math.sqrt(variance),
    )


def _root(falling: Callable[[float], float]) -> float:
    """Where a falling function of a value ≥ 0 is zero; 0 where it never is above."""
    from scipy.optimize import brentq

    if falling(0.0) <= 0:
        return 0.0
    high = 1e-12
    while falling(high) > 0:
        high *= 4
    return float(brentq(falling, 0.0, high))

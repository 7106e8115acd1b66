"""What vectors save: the cost at which one rate for all layers gains as much, with its certainty.

Replicate *r* of every vector shares its data order and its mask stream (common random numbers), so
vectors are compared by the differences of their replicates. No claim rests on interpolation: a
vector is held against vectors of one rate that were measured themselves.

References
----------
Maurer, Hothorn, Lehmacher: Multiple comparisons in drug clinical trials and preclinical assays:
a-priori ordered hypotheses, 1995 (a fixed sequence of tests, each at the full level, as long as
all before it were rejected).

Dunn: Multiple comparisons among means, JASA 1961 (Bonferroni's intervals).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distreal_dse.errors import FrontError
from distreal_dse.fronts._front import Front, non_dominated

Floats = npt.NDArray[np.float64]

VERIFICATION = "verification"
"""The name, among the settings of a front, under which verified gains are stored."""

CONFIDENCE = 0.95
# Of a stored gain; sums and squares of larger ones overflow.
LARGEST_GAIN = 1e100
# Below this share of the full network's cost, savings are summed up: above, little can be saved.
CHEAP = 0.5


@dataclass(frozen=True)
class MeasuredVector:
    """A vector and what each of its verification runs gained, replicate by replicate.

    Parameters
    ----------
    kept_counts
        Units kept of each channel group.
    cost
        Training cost, > 0.
    gains
        Fall of the validation loss in each replicate, shape [replicates].
    uniform
        Whether it is one rate for all layers.
    """

    kept_counts: tuple[int, ...]
    cost: float
    gains: tuple[float, ...]
    uniform: bool

    @property
    def gain(self) -> float:
        """Mean over the replicates."""
        return math.fsum(self.gains) / len(self.gains)


def verification_setting(vectors: Sequence[MeasuredVector]) -> list[dict[str, Any]]:
    """Return what `measured_vectors` reads from the settings of a front."""
    return [
        {
            "kept_counts": [*one.kept_counts],
            "cost": one.cost,
            "gains": [*one.gains],
            "uniform": one.uniform,
        }
        for one in vectors
    ]


def measured_vectors(front: Front) -> tuple[MeasuredVector, ...]:
    """Return all that was verified for a front, dominated or not; empty where it doesn't tell."""
    try:
        vectors = tuple(
            MeasuredVector(
                tuple(map(int, one["kept_counts"])),
                float(one["cost"]),
                tuple(map(float, one["gains"])),
                bool(one["uniform"]),
            )
            for one in front.settings[VERIFICATION]
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return ()  # settings are free, e.g. of an imported front
    usable = all(
        0 < one.cost < math.inf and all(abs(gain) <= LARGEST_GAIN for gain in one.gains)
        for one in vectors
    )
    return vectors if usable else ()


@dataclass(frozen=True)
class Saving:
    """What one rate for all layers has to spend to gain as much as a vector.

    Parameters
    ----------
    vector
        Which vector.
    equal_cost
        Estimate of that cost: where the curve through the means of the one-rate vectors reaches
        the vector's mean. The dearest of them where it never does, the cheapest where all do.
    at_least
        One rate needs more than this; with the confidence that was asked for, for all vectors at
        once. 0 where nothing is certain.
    at_most
        One rate needs less than this, likewise; infinite where nothing is certain.
    """

    vector: MeasuredVector
    equal_cost: float
    at_least: float
    at_most: float

    @property
    def ratio(self) -> float:
        """``equal_cost`` over the vector's own: above 1, the vector saves."""
        return self.equal_cost / self.vector.cost

    @property
    def pays(self) -> bool:
        """Whether the vector certainly gains more than one rate does at the same cost."""
        return self.at_least >= self.vector.cost


def savings(
    vectors: Sequence[MeasuredVector], confidence: float = CONFIDENCE
) -> tuple[Saving, ...]:
    """Hold each vector against those of one rate.

    A vector is tested against the one-rate vectors that cost at least as much, the cheapest first,
    by Student's t of the paired differences, until a test does not reject; ``at_least`` is the
    cost of the last that it beats. A fixed sequence needs no correction within itself; over the
    vectors the level is divided by their number (Bonferroni), and halved, as ``at_most`` is found
    from the other side likewise.

    Parameters
    ----------
    vectors
        All that were verified, dominated ones too: leaving out those that did badly would make
        chance look like merit. At least one of one rate; equally many replicates, 2 or more.
    confidence
        In (0, 1), of all statements together.

    Returns
    -------
    tuple of Saving
        Of the vectors that are not of one rate, by rising cost.

    Raises
    ------
    FrontError
        If there is no vector of one rate, or replicates can't be paired.
    """
    family = sorted((one for one in vectors if one.uniform), key=lambda one: one.cost)
    others = sorted((one for one in vectors if not one.uniform), key=lambda one: one.cost)
    replicates = {len(one.gains) for one in vectors}
    if not family or len(replicates) != 1 or min(replicates) < 2:
        raise FrontError(
            "savings: expected vectors of one rate to compare with and equally many replicates of "
            f"all, 2 or more; found {len(family)} vectors of one rate, replicates "
            f"{', '.join(map(str, sorted(replicates)))}"
        )
    if not others:
        return ()
    level = (1 - confidence) / 2 / len(others)
    reach = equal_cost_of(family)
    return tuple(
        Saving(
            vector=one,
            equal_cost=reach(one.gain),
            at_least=_last_rejected(
                [other for other in family if other.cost >= one.cost],
                lambda other, own=one: _gains_more(own, other, level),  # type: ignore[misc]
                0.0,
            ),
            at_most=_last_rejected(
                list(reversed(family)),
                lambda other, own=one: _gains_more(other, own, level),  # type: ignore[misc]
                math.inf,
            ),
        )
        for one in others
    )


def equal_cost_of(family: Sequence[MeasuredVector]) -> Callable[[float], float]:
    """Return a function from a gain to the cost at which one rate reaches it.

    Between neighbours that are not dominated, gains are taken as linear in the logarithm of the
    cost, as figures draw them.
    """
    best = non_dominated([one.cost for one in family], [one.gain for one in family])
    costs = [math.log(family[index].cost) for index in best]
    gains = [family[index].gain for index in best]
    return lambda gain: math.exp(float(np.interp(gain, gains, costs)))


@dataclass(frozen=True)
class MeanSaving:
    """How many times as much one rate spends for the same gain: geometric mean over budgets.

    ``low`` and ``high`` are the ends of its interval. Below 1, one rate does better.
    """

    ratio: float
    low: float
    high: float


def mean_saving(
    vectors: Sequence[MeasuredVector],
    reference_cost: float,
    confidence: float = CONFIDENCE,
    resamples: int = 1000,
    budgets: int = 32,
) -> MeanSaving:
    """Sum up what a set of vectors saves, those of one rate among them.

    For each of a number of budgets, evenly spaced in logarithm from the cheapest one-rate vector to
    `CHEAP` of the full cost, the vector that gains most within the budget is chosen, and the cost
    at which one rate gains as much (`equal_cost_of`) is divided by the vector's own. Choosing and
    measuring on the same runs would make chance look like merit, so that vectors are chosen by a
    bootstrap sample of the replicates and measured on those left out of it (Efron: Estimating the
    error rate of a prediction rule, JASA 1983). All vectors share the draw: they stay paired. As
    few are left out, the interval is rather too wide.

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
    grid = np.geomspace(costs[family].min(), CHEAP * reference_cost, budgets)
    drawn = [
        _mean_log_ratio(_best_within(grid, costs, judged), costs, measured, family)
        for judged, measured in out_of_bag(gains, resamples)
    ]
    tail = (1 - confidence) / 2
    low, middle, high = np.exp(np.quantile(drawn, [tail, 0.5, 1 - tail])).tolist()
    return MeanSaving(middle, low, high)


def out_of_bag(gains: Floats, resamples: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield mean gains to choose vectors by, and others to measure them by, shape [vectors] each.

    The former are those of a bootstrap sample of the replicates, the latter those of the replicates
    that are left out of it. All vectors share the draw, and each call draws the same.

    Parameters
    ----------
    gains
        Shape [vectors, replicates], two replicates or more.
    resamples
        How many pairs.
    """
    random, count = np.random.default_rng(0), gains.shape[1]
    while resamples:
        sample = random.integers(count, size=count)
        left_out = np.setdiff1d(np.arange(count), sample)
        if len(left_out):
            yield gains[:, sample].mean(1), gains[:, left_out].mean(1)
            resamples -= 1


def _best_within(grid: Floats, costs: Floats, means: Floats) -> npt.NDArray[np.int64]:
    """Index of the vector with the largest mean of those that fit each budget."""
    fits = costs <= grid[:, None] * (1 + 1e-12)
    best: npt.NDArray[np.int64] = np.where(fits, means, -np.inf).argmax(1)
    return best


def _mean_log_ratio(
    chosen: npt.NDArray[np.int64], costs: Floats, means: Floats, family: npt.NDArray[np.int64]
) -> float:
    best = family[non_dominated(costs[family].tolist(), means[family].tolist())]
    equal = np.interp(means[chosen], means[best], np.log(costs[best]))
    # A vector of one rate saves nothing: by definition, not by the noise of the curve.
    ratios = np.where(np.isin(chosen, family), 0.0, equal - np.log(costs[chosen]))
    return float(ratios.mean())


def _gains_more(one: MeasuredVector, other: MeasuredVector, level: float) -> bool:
    """Whether one certainly gains more: Student's t of paired differences, one-sided."""
    from scipy.special import stdtr

    differences = np.subtract(one.gains, other.gains)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if spread == 0:  # the same runs, or the same bits
        return mean > 0
    count = len(differences)
    return float(stdtr(count - 1, -mean / spread * math.sqrt(count))) < level


def _last_rejected(
    ordered: Sequence[MeasuredVector],
    rejected: Callable[[MeasuredVector], bool],
    nothing: float,
) -> float:
    """Cost of the last vector of a fixed sequence before the first that is not rejected."""
    cost = nothing
    for one in ordered:
        if not rejected(one):
            break
        cost = one.cost
    return cost

"""Differences between strategies, seed by seed, with intervals that hold for all at once.

Runs of one seed share splits, traces, cohorts and initial weights, so that what a seed does to all
strategies alike cancels in their difference.

References
----------
Dunn: Multiple comparisons among means, JASA 1961 (Bonferroni's intervals).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from distreal_dse.errors import InputError
from distreal_dse.support.specs import name_of
from fl.compare.settled import settled_of
from fl.compare.summaries import CONFIDENCE, Estimate, by_strategy
from fl.store.runs import Run

# Strategies whose difference certainly lies within so much accuracy are called level: one point.
LEVEL = 0.01


@dataclass(frozen=True)
class Difference:
    """How far the settled accuracy of a strategy is from that of another, over shared seeds.

    Parameters
    ----------
    strategy, against
        The two; positive where the first is more accurate.
    seeds
        That both have finished runs of, ascending.
    settled_accuracy
        Mean of the differences by seed, with an interval that holds for all differences of the
        comparison together; NaN for its ends with fewer than two seeds.
    """

    strategy: str
    against: str
    seeds: tuple[int, ...]
    settled_accuracy: Estimate

    @property
    def verdict(self) -> str:
        """What the interval says, and nothing that it does not: ahead, behind, level or open."""
        low, high = self.settled_accuracy.low, self.settled_accuracy.high
        if low > 0:
            return "ahead"
        if high < 0:
            return "behind"
        return "level" if low >= -LEVEL and high <= LEVEL else "open"


def reference_strategy(strategies: Sequence[str], wanted: str | None) -> str:
    """Return what others are held against: the one that is wanted, else ``small``, else the first.

    Parameters
    ----------
    strategies
        Of the comparison, with their settings.
    wanted
        One of them; its settings may be left out.

    Raises
    ------
    InputError
        If the one that is wanted is not in the comparison.
    """
    asked = "small" if wanted is None else wanted
    found = [one for one in strategies if asked in (one, name_of(one))]
    if found or wanted is None:
        return (found or [*strategies])[0]
    raise InputError(
        f"--against '{wanted}': expected one of the strategies of the comparison, "
        f"{', '.join(strategies)}"
    )


def paired_differences(
    runs: Sequence[Run], against: str, *, by_outcome: bool = False
) -> list[Difference]:
    """Return the difference of each other strategy to one, those with a shared seed.

    Parameters
    ----------
    runs
        Of one comparison; those that are not finished don't count.
    against
        The strategy that the others are held against.
    by_outcome
        Whether that one was chosen for what came out, as the best of them, say. Then intervals hold
        for the differences of all pairs of strategies: whichever was chosen, its own are among
        them.
    """
    groups = {
        name: {run.seed: settled_of(run) for run in group}
        for name, group in by_strategy([run for run in runs if run.finished]).items()
    }
    base = groups.pop(against, {})
    shared = {name: sorted(base.keys() & own.keys()) for name, own in groups.items()}
    pairs = {
        name: [groups[name][seed] - base[seed] for seed in seeds]
        for name, seeds in shared.items()
        if seeds
    }
    together = len(pairs) * (len(pairs) + 1) // 2 if by_outcome else len(pairs)
    return [
        Difference(name, against, tuple(shared[name]), simultaneous(found, together))
        for name, found in pairs.items()
    ]


def simultaneous(differences: Sequence[float], together: int) -> Estimate:
    """Return the mean of differences by seed, with an interval for several such means at once.

    Parameters
    ----------
    differences
        At least one.
    together
        How many means, this one among them, all lie in their intervals with 95 % confidence
        (Bonferroni; Student's t). With a single seed, the ends of the interval are NaN.
    """
    mean, count = fmean(differences), len(differences)
    if count < 2:
        return Estimate(mean, math.nan, math.nan)
    from scipy.special import stdtrit  # of scipy.stats, which takes a second to import

    reach = float(stdtrit(count - 1, 1 - (1 - CONFIDENCE) / 2 / together))
    half = reach * stdev(differences) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)

"""Racing: how many short runs a vector gets before its trial is told.

One short run tells most vectors apart, as shapes differ by more than the noise. What might be on
the front gets more, one by one, until it is decided or has as many as the study allows.

References
----------
Maron, Moore: Hoeffding races, NIPS 1993 (candidates are measured again until their confidence bound
lies below that of the best). Here with Student-like bounds of one pooled variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from distreal_dse.dropout import KeptCounts

# A vector is out when it lies so many standard errors below the front. One, as what is wrongly
# left out costs little: the sampler goes on to propose its like.
OUT = 1.0


class PairedGains:
    """What all vectors gained, replicate by replicate, under common random numbers.

    Replicate *r* has the same data and masks for all vectors, so part of its luck is common to all.
    That part is read off the control vectors, which have all replicates, and taken away: vectors
    with one replicate can then be compared with those that have four.
    """

    def __init__(self) -> None:
        self._gains: dict[KeptCounts, tuple[float, ...]] = {}
        self._costs: dict[KeptCounts, float] = {}
        self._controls: dict[KeptCounts, tuple[float, ...]] = {}

    def add(self, counts: KeptCounts, cost: float, gains: Sequence[float], control: bool) -> None:
        """Take a vector into account; ``gains`` are those of replicates 0, 1, …, at least one."""
        self._gains[counts], self._costs[counts] = tuple(gains), cost
        if control:
            self._controls[counts] = tuple(gains)

    def of(self, counts: KeptCounts) -> tuple[float, ...]:
        """Gains of a vector that was added."""
        return self._gains[counts]

    def effects(self, replicates: int) -> list[float]:
        """What each replicate gained more than the mean over replicates, in the control vectors."""
        return common_luck(self._controls.values(), replicates)

    def value(self, gains: Sequence[float], replicates: int) -> float:
        """Mean gain, the common luck of its replicates taken away."""
        effects = self.effects(replicates)
        return float(np.mean([gain - effects[r] for r, gain in enumerate(gains)]))

    def variance(self, replicates: int) -> float:
        """Variance of a single gain around its vector's mean, pooled over all; NaN if unknown."""
        return pooled_variance(self._gains.values(), self.effects(replicates))

    def is_decided(
        self, counts: KeptCounts, cost: float, gains: Sequence[float], replicates: int
    ) -> bool:
        """Whether a vector has all replicates, or lies certainly enough below the front."""
        if len(gains) >= replicates:
            return True
        variance = self.variance(replicates)
        rivals = [
            (self.value(other, replicates), len(other))
            for rival, other in self._gains.items()
            if rival != counts and self._costs[rival] <= cost
        ]
        if not rivals or not variance > 0:
            return False
        best, runs = max(rivals)
        error = math.sqrt(variance * (1 / len(gains) + 1 / runs))
        return self.value(gains, replicates) + OUT * error < best


def common_luck(controls: Iterable[Sequence[float]], replicates: int) -> list[float]:
    """What each replicate gained more than the mean over replicates; zeros if that is unknown.

    Parameters
    ----------
    controls
        Gains of vectors; those with fewer replicates don't count.
    replicates
        How many there are.
    """
    whole = [gains[:replicates] for gains in controls if len(gains) >= replicates]
    if not whole:
        return [0.0] * replicates
    table = np.array(whole)
    means: list[float] = (table.mean(0) - table.mean()).tolist()
    return means


def pooled_variance(many: Iterable[Sequence[float]], effects: Sequence[float]) -> float:
    """Variance of gains around the mean of their vector, over all vectors; NaN if unknown."""
    squares, freedom = 0.0, 0
    for gains in many:
        if len(gains) > 1:
            own = np.subtract(gains, effects[: len(gains)])
            squares += float(((own - own.mean()) ** 2).sum())
            freedom += len(gains) - 1
    return squares / freedom if freedom else math.nan

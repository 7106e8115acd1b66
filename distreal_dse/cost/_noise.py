"""Whether timed vectors can be ranked, given how their times scatter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from distreal_dse.cost._latency import VectorLatency

NOTCH = 1.57
# Of equal vectors with normal ratios 29 % of the pairs count as different after 2 repetitions, 15 %
# after 3, 12 % after 5, 8 % after 6 and 5 % after 8 (40,000 simulated pairs each).
ENOUGH_REPETITIONS = 6


@dataclass(frozen=True)
class NoiseVerdict:
    """How many pairs of neighbours in the order of cost can't be told apart, and of how many.

    ``repetitions`` is the smallest number of timed steps of a vector; None where it is not known.
    """

    pairs: int
    too_close: int
    repetitions: int | None = None

    @property
    def warning(self) -> str:
        """One line for people, empty where there were enough steps to tell all neighbours apart."""
        notes = []
        if self.repetitions is not None and self.repetitions < ENOUGH_REPETITIONS:
            notes.append(
                f"{self.repetitions} repetitions are too few to know how far times scatter: "
                f"measure again with at least {ENOUGH_REPETITIONS} --repetitions"
            )
        if self.too_close:
            notes.append(
                f"{self.too_close} of {self.pairs} pairs of neighbours in cost can't be told "
                "apart, their medians differ by less than the noise: close other programs or "
                "measure again with more --repetitions; what stays may truly take equally long"
            )
        return "; ".join(notes).replace("1 repetitions are", "1 repetition is")


def noise_verdict(vectors: Iterable[VectorLatency]) -> NoiseVerdict:
    """Compare each vector with the next dearer one.

    Two medians count as different where the intervals ``median ± 1.57 · IQR / √n`` do not
    overlap, which for normal samples of about equal spread is a test at the 5 % level. Steps that
    follow each other are not independent, so that a verdict "different" is a little generous.

    Parameters
    ----------
    vectors
        Timed together, in any order.

    References
    ----------
    McGill, Tukey, Larsen: Variations of Box Plots, The American Statistician 32 (1), 1978, pages
    12-16, doi 10.2307/2683468 (the notches of a box plot).
    """
    ordered = sorted(vectors, key=lambda vector: vector.ratio.median)
    pairs = list(pairwise(ordered))
    too_close = sum(
        dear.ratio.median - cheap.ratio.median <= _notch(cheap) + _notch(dear)
        for cheap, dear in pairs
    )
    fewest = min((vector.repetitions for vector in ordered), default=None)
    return NoiseVerdict(len(pairs), too_close, fewest)


def _notch(vector: VectorLatency) -> float:
    """Half the width of the interval around the median ratio; of one step nobody knows."""
    if vector.repetitions < 2:
        return math.inf
    return NOTCH * (vector.ratio.high - vector.ratio.low) / math.sqrt(vector.repetitions)

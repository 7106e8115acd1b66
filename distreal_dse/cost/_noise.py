"""Whether timed vectors can be ranked, given how their times scatter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from distreal_dse.cost._latency import VectorLatency

NOTCH = 1.57


@dataclass(frozen=True)
class NoiseVerdict:
    """How many pairs of neighbours in the order of cost can't be told apart, and of how many."""

    pairs: int
    too_close: int

    @property
    def warning(self) -> str:
        """One line for people, empty where all neighbours can be told apart."""
        if not self.too_close:
            return ""
        return (
            f"{self.too_close} of {self.pairs} pairs of neighbours in cost can't be told apart, "
            "their medians differ by less than the noise: close other programs or measure again "
            "with more --repetitions; what stays may truly take equally long"
        )


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
    return NoiseVerdict(len(pairs), too_close)


def _notch(vector: VectorLatency) -> float:
    """Half the width of the interval around the median ratio."""
    return NOTCH * (vector.ratio.high - vector.ratio.low) / math.sqrt(vector.repetitions)

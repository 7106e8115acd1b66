"""Whether a front is better than one rate for all layers, and by how much: for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distreal_dse.fronts._front import Front
from distreal_dse.fronts._mean_gain import MeanGain, mean_gain
from distreal_dse.fronts._savings import (
    MeanSaving,
    MeasuredVector,
    Saving,
    mean_saving,
    measured_vectors,
    savings,
)


@dataclass(frozen=True)
class Verdict:
    """What verified runs say of a front against one rate for all layers.

    Parameters
    ----------
    savings
        Of each vector of rates of its own that was verified, on the front or not.
    mean
        What they save, over budgets.
    gain
        What they gain, over budgets.
    reference_cost
        Of the full network.
    """

    savings: tuple[Saving, ...]
    mean: MeanSaving
    gain: MeanGain
    reference_cost: float

    @property
    def better(self) -> tuple[Saving, ...]:
        """Those that certainly gain more than one rate does at their cost, by rising cost."""
        return tuple(one for one in self.savings if one.pays)

    @property
    def best(self) -> Saving | None:
        """The one that saves most with certainty: of those that do not harm, if there are any."""
        useful = [one for one in self.better if one.vector.gain > 0]
        return max(
            useful or self.better, key=lambda one: one.at_least / one.vector.cost, default=None
        )

    def sentence(self) -> str:
        """Return the greatest certain saving in words, without a full stop."""
        best = self.best
        if best is None:
            return "No vector was shown to be better than one rate for all layers"
        own, least, equal = (
            _percent(cost / self.reference_cost)
            for cost in (best.vector.cost, best.at_least, best.equal_cost)
        )
        return (
            f"At {own} of the full cost a vector gains what one rate for all layers needs "
            f"{equal} for, and certainly more than {least}"
        )

    def details(self) -> str:
        """Return how many vectors are better, what they save and gain on average; sentences."""
        mean, gain = self.mean, self.gain
        return (
            f"Certainly better than one rate at the same cost: {len(self.better)} of "
            f"{len(self.savings)} verified vectors (95% confidence for all of them together). "
            f"Below half of the full cost, one rate spends {mean.ratio:.2f} × ({mean.low:.2f} … "
            f"{mean.high:.2f}) as much for the same gain. Over all budgets, evenly in "
            f"logarithm, the loss gain is {gain.own:.3f} instead of {gain.uniform:.3f}, which is "
            f"{gain.difference:+.3f} ({gain.low:+.3f} … {gain.high:+.3f})."
        )


def verdict_of(front: Front) -> Verdict | None:
    """Return the verdict on a front; None where it doesn't tell what its runs gained.

    Fronts of earlier versions don't.
    """
    return verdict_on(measured_vectors(front), front.reference_cost)


def verdict_on(vectors: Sequence[MeasuredVector], reference_cost: float) -> Verdict | None:
    """Return the verdict on verified vectors; None where their runs can't be compared in pairs."""
    paired = {len(one.gains) for one in vectors}
    if len(paired) != 1 or min(paired) < 2 or not any(one.uniform for one in vectors):
        return None
    return Verdict(
        savings(vectors),
        mean_saving(vectors, reference_cost),
        mean_gain(vectors, reference_cost),
        reference_cost,
    )


def _percent(share: float) -> str:
    value = 100 * share
    return f"{value:.2g}%" if value < 9.95 else f"{value:.0f}%"

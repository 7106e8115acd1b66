"""What a search found out before it began: whether there is anything to search for.

A pilot tells how noisy a short run is, whether it learns at all, and whether shape matters: whether
vectors of equal cost, or tables of equal budgets, differ in what they gain.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from distreal_dse.fronts._front import Front

PILOT = "pilot"
"""The name, among the settings of a front, under which its pilot is stored."""

# A search pays where shapes of equal cost differ by what one rate needs so many times the cost for;
# a fit, where tables differ by so much in the logarithm of the loss.
WORTH = 1.2
WORTH_OF_A_TABLE = 0.05


@dataclass(frozen=True, kw_only=True)
class Pilot(ABC):
    """What a pilot found.

    Parameters
    ----------
    noise
        Standard deviation of the gain of one short run.
    spread, low, high
        How far shapes differ in gain, and the interval of that.
    replicates
        Short runs of each.
    seconds
        Of one short run, on average; 0 where that is not known.
    """

    of: ClassVar[str]

    noise: float
    spread: float
    low: float
    high: float
    replicates: int
    seconds: float = 0.0

    @property
    def shape_matters(self) -> bool:
        """Whether shapes certainly differ."""
        return self.low > 0

    @property
    @abstractmethod
    def pays(self) -> bool:
        """False where shapes certainly differ by less than is worth a search."""

    @property
    def is_decided(self) -> bool:
        """Whether more replicates would change nothing."""
        return self.shape_matters or not self.pays

    @property
    def is_worth_a_search(self) -> bool:
        """Whether a search may find something."""
        return self.pays

    @abstractmethod
    def sentences(self) -> list[str]:
        """Return what was found, for people."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for `pilot_from`; no seconds, as every start takes others."""
        values = {name: value for name, value in asdict(self).items() if name != "seconds"}
        return {"of": self.of, **values}

    def _runs(self) -> str:
        takes = f" takes {self.seconds:.2g} s; its gain" if self.seconds else "'s gain"
        return f"A short run{takes} has a noise of {self.noise:.2g} (standard deviation)."

    def _verdict(self, what: str, by: str, instead: str) -> str:
        if self.shape_matters:
            return f"Shape matters: {what} differ by {by}."
        if not self.pays:
            return f"Shape does not matter here: {what} differ by {by}. {instead}"
        return f"Whether shape matters is open: {what} differ by {by}."


@dataclass(frozen=True, kw_only=True)
class VectorPilot(Pilot):
    """What the pilot of a search of vectors found.

    Parameters
    ----------
    gain, gain_error
        Of the full network, and its standard error.
    slope
        What one rate gains by e times the cost, on average below half of the full cost.
    """

    of: ClassVar[str] = "vectors"

    gain: float
    gain_error: float
    slope: float

    @property
    def learns(self) -> bool:
        """Whether the full network gains by two standard errors, and one rate more for more."""
        return self.gain > 2 * self.gain_error and self.slope > 0

    @property
    def pays(self) -> bool:
        """False where one rate needs less than `WORTH` times the cost for what shapes differ by."""
        return self.worth(self.high) > WORTH

    @property
    def is_decided(self) -> bool:
        """Whether more replicates would change nothing."""
        return self.learns and super().is_decided

    @property
    def is_worth_a_search(self) -> bool:
        """Whether short runs tell vectors apart, and shapes may differ by enough."""
        return self.learns and self.pays

    def worth(self, gain: float) -> float:
        """How many times the cost one rate needs for such a gain; infinite where cost is no help.

        By the average slope of the one-rate vectors.
        """
        if self.slope <= 0:
            return math.inf
        return math.exp(min(gain / self.slope, 700.0))

    def sentences(self) -> list[str]:
        """Return what was found, for people."""
        if not self.learns:
            return [
                self._runs(),
                f"Short runs don't tell vectors apart: expected dearer ones to gain more and the "
                f"full network to gain something, found that it gains {self.gain:.2g} ± "
                f"{self.gain_error:.2g}; lengthen the study's short run, or change its learning "
                "rate.",
            ]
        by = (
            f"{self.spread:.2g} in gain ({self.low:.2g} … {self.high:.2g}), for which one rate "
            f"needs {self.worth(self.spread):.2f} × the cost ({self.worth(self.low):.2f} … "
            f"{self.worth(self.high):.2f})"
        )
        instead = "One rate for all layers is as good as what a search could find."
        return [self._runs(), self._verdict("vectors of equal cost", by, instead)]


@dataclass(frozen=True, kw_only=True)
class TablePilot(Pilot):
    """What the pilot of a fit of tables found; gains are falls of the logarithm of the loss."""

    of: ClassVar[str] = "tables"

    @property
    def pays(self) -> bool:
        """False where the loss certainly differs by less than `WORTH_OF_A_TABLE`."""
        return self.high > WORTH_OF_A_TABLE

    def sentences(self) -> list[str]:
        """Return what was found, for people."""
        by = f"{self.spread:.2g} in the logarithm of the loss ({self.low:.2g} … {self.high:.2g})"
        instead = "The table of one rate for all layers is as good as what a fit could find."
        return [self._runs(), self._verdict("tables of this fleet", by, instead)]


def pilot_of(front: Front) -> Pilot | None:
    """Return the pilot of the search that a front came of; None where it doesn't tell."""
    return pilot_from(front.settings.get(PILOT))


def pilot_from(stored: Any) -> Pilot | None:
    """Return the report that `Pilot.as_json` gave; None where it is none."""
    kinds: dict[Any, type[VectorPilot] | type[TablePilot]]
    kinds = {kind.of: kind for kind in (VectorPilot, TablePilot)}
    try:
        kind = kinds[stored["of"]]
        names = [one.name for one in fields(kind) if one.name != "seconds"]
        numbers = {name: float(stored[name]) for name in names}
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # settings are free, e.g. of an imported front
    if not all(map(math.isfinite, numbers.values())):
        return None
    replicates = int(numbers.pop("replicates"))
    return kind(**numbers, replicates=replicates)

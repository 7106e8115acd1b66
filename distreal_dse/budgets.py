"""What the mini-batches of a fleet may cost: which budgets there are, and how often each occurs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distreal_dse.errors import InputError, brief
from distreal_dse.support.json_types import is_of


@dataclass(frozen=True)
class Budgets:
    """The budgets of a fleet's mini-batches.

    Parameters
    ----------
    fleet
        The text that describes the fleet, for people.
    shares
        Budgets as shares of the full network's cost, each in (0, 1], rising.
    weights
        How often each occurs; they sum to 1.

    Raises
    ------
    InputError
        If they are not what is described here.
    """

    fleet: str
    shares: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip(self.shares, self.shares[1:], strict=False))
        fits = rising and all(0 < share <= 1 for share in self.shares)
        if not self.shares or len(self.shares) != len(self.weights) or not fits:
            raise InputError(
                f"fleet '{self.fleet}': expected budgets that rise within (0, 1], with a weight "
                f"each, found {self.shares} and {self.weights}"
            )
        total = math.fsum(self.weights)
        if not all(weight > 0 for weight in self.weights) or not math.isclose(total, 1):
            raise InputError(
                f"fleet '{self.fleet}': expected weights above 0 that sum to 1, found {total:g}"
            )

    @property
    def mean(self) -> float:
        """Mean budget, as a share of the full network's cost."""
        return math.fsum(s * w for s, w in zip(self.shares, self.weights, strict=True))

    def draw(self, count: int, random: torch.Generator) -> list[float]:
        """Draw the budgets of ``count`` mini-batches, each on its own."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        drawn = torch.multinomial(weights, count, replacement=True, generator=random)
        return [self.shares[index] for index in drawn.tolist()]

    def from_least(self, least: float) -> Budgets:
        """Return those that pay for so much, as a share of the full network's cost.

        Raises
        ------
        InputError
            If there are none.
        """
        kept = [pair for pair in zip(self.shares, self.weights, strict=True) if pair[0] >= least]
        total = math.fsum(weight for _, weight in kept)
        return Budgets(
            self.fleet,
            tuple(share for share, _ in kept),
            tuple(weight / total for _, weight in kept),
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `Budgets` takes them as arguments."""
        return {"fleet": self.fleet, "shares": [*self.shares], "weights": [*self.weights]}


def budgets_of(stored: Mapping[str, Any]) -> Budgets:
    """Make budgets of what `Budgets.as_json` gave.

    Raises
    ------
    InputError
        If it holds something else.
    """
    if not is_of(stored, Budgets):
        raise InputError(
            f"budgets of a fleet: expected its name, shares and weights, found {brief(stored)}"
        )
    return Budgets(str(stored["fleet"]), tuple(stored["shares"]), tuple(stored["weights"]))

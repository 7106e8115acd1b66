"""The vectors that a device really uses: one for every budget, more than were measured.

A front's points were measured one by one. Between them lie vectors whose cost is known as exactly
and that nobody measured; a device that has the money spends it on one of these. A table that was
fitted to a fleet was judged as a whole: its vectors train one network together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from distreal_dse.errors import FrontError
from distreal_dse.fronts._front import Front, kept_counts_key

TABLE = "table"
"""The name, among the settings of a front, under which its table is stored."""

# So many vectors between two measured ones are tried; equal ones are left out.
STEPS = 64

Price = Callable[[Sequence[tuple[int, ...]]], Sequence[float]]
"""From the kept counts of many vectors to the cost of each."""


@dataclass(frozen=True)
class TableVector:
    """A vector of a table.

    Parameters
    ----------
    kept_counts
        Units kept of each channel group.
    cost
        In the cost unit of the front.
    measured
        Whether its convergence was measured by itself: whether it is a point of the front.
    memory
        Bytes of tensors at the peak of a training step; None where that is not known.
    """

    kept_counts: tuple[int, ...]
    cost: float
    measured: bool
    memory: int | None = None

    @property
    def key(self) -> str:
        """The kept counts as text, e.g. ``16-8-4``."""
        return kept_counts_key(self.kept_counts)


def table_of(front: Front) -> tuple[TableVector, ...]:
    """Return the vectors that devices use, by rising cost: the stored table, or else the points.

    Raises
    ------
    FrontError
        If the stored table is not one of this front's network.
    """
    points = {point.kept_counts: point.memory for point in front.points}
    stored = front.settings.get(TABLE)
    if stored is None:
        return tuple(
            TableVector(point.kept_counts, point.cost, True, point.memory) for point in front.points
        )
    widths = [group.channels for group in front.groups]
    try:
        table = tuple(
            TableVector(
                counts := tuple(map(_whole, one["kept_counts"])),
                _cost(one["cost"]),
                counts in points,
                _memory(one.get("memory", points.get(counts))),
            )
            for one in stored["vectors"]
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _bad(front, str(error)) from error
    for one in table:
        within = len(one.kept_counts) == len(widths) and all(
            1 <= kept <= width for kept, width in zip(one.kept_counts, widths, strict=True)
        )
        if not within:
            raise _bad(front, f"kept counts {one.key}")
    if not table or any(low.cost >= high.cost for low, high in pairwise(table)):
        raise _bad(front, "costs that don't rise" if table else "no vectors")
    return table


@dataclass(frozen=True)
class TableFit:
    """What a table that was fitted to a fleet gains over one rate for all layers.

    Parameters
    ----------
    vectors
        Of the table.
    unused
        Share of the fleet's budgets that stays unused.
    gain, low, high
        Mean fall of the logarithm of the validation loss in paired short runs, and its interval,
        with 95 % confidence for all curves that were verified.
    """

    vectors: int
    unused: float
    gain: float
    low: float
    high: float


def table_fit(front: Front) -> TableFit | None:
    """Return what is known of the fit of a front's table; None where it was not fitted."""
    try:
        stored = front.settings[TABLE]
        low, high = map(float, stored["interval"])
        numbers = (float(stored["unused"]), float(stored["gain"]), low, high)
        vectors = len(stored["vectors"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # settings are free, e.g. of an imported front
    return TableFit(vectors, *numbers) if all(map(math.isfinite, numbers)) else None


def table_setting(
    vectors: Sequence[tuple[int, ...]],
    costs: Sequence[float],
    memory: Callable[[tuple[int, ...]], int] | None = None,
    **how: Any,
) -> Any:
    """Return what `table_of` reads from the settings of a front.

    Parameters
    ----------
    vectors, costs
        Kept counts and cost of each; in any order. Of equal costs the first counts.
    memory
        Gives what a training step takes, in bytes; None where that is not known.
    how
        How the table was made; anything JSON can hold.
    """
    by_cost: dict[float, tuple[int, ...]] = {}
    for counts, cost in zip(vectors, costs, strict=True):
        by_cost.setdefault(float(cost), counts)
    return {
        **how,
        "vectors": [
            {
                "kept_counts": [*map(int, by_cost[cost])],
                "cost": cost,
                **({"memory": memory(by_cost[cost])} if memory else {}),
            }
            for cost in sorted(by_cost)
        ],
    }


def filled(points: Sequence[tuple[int, ...]], price: Price) -> list[tuple[int, ...]]:
    """Return the points and vectors between neighbours, none dearer than the dearer of the two.

    Between two vectors, the kept share of each group moves evenly in logarithm, so that a line
    through vectors of a curve (kept shares sᵉ of one scale s) is that curve.

    Parameters
    ----------
    points
        Kept counts, by rising cost.
    price
        Gives costs; exact ones.
    """
    vectors = dict.fromkeys(points)
    costs = price(points)
    for (low, low_cost), (high, high_cost) in pairwise(zip(points, costs, strict=True)):
        between = [_between(low, high, step / STEPS) for step in range(1, STEPS)]
        for counts, cost in zip(between, price(between), strict=True):
            if low_cost < cost < high_cost:
                vectors[counts] = None
    return [*vectors]


def _between(low: Sequence[int], high: Sequence[int], way: float) -> tuple[int, ...]:
    return tuple(
        max(1, round(math.exp((1 - way) * math.log(a) + way * math.log(b))))
        for a, b in zip(low, high, strict=True)
    )


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r}, which is no whole number")
    return value


def _memory(value: Any) -> int | None:
    if value is not None and _whole(value) < 1:
        raise ValueError(f"memory {value!r}")
    return None if value is None else _whole(value)


def _cost(value: Any) -> float:
    cost = float(value)
    if not 0 < cost < math.inf:
        raise ValueError(f"cost {value!r}")
    return cost


def _bad(front: Front, found: str) -> FrontError:
    return FrontError(
        f"front {front.label}: expected a table of kept counts within the network's and rising "
        f"costs, found {found}; get an unchanged copy"
    )

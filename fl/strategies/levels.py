"""Levels of a strategy: a few widths that devices choose from by what they can spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from distreal_dse.errors import InputError
from distreal_dse.support.specs import number
from fl.strategies.base import Strategy, Vector
from fl.strategies.context import StrategyContext, VectorTable
from fl.strategies.setting import AVERAGING, Setting


def make_levels(
    context: StrategyContext,
    default: Sequence[float],
    widths: Sequence[float] | None,
    costs: Sequence[float] | None,
) -> VectorTable:
    """Return the vectors of levels, each of one keep share for all groups.

    Equal vectors, as rounding makes them, stay as many as they are.

    Parameters
    ----------
    context
        What is known of the run.
    default
        Keep shares in (0, 1] where neither of the two below is given.
    widths
        Keep shares in (0, 1].
    costs
        Costs over that of the full network, in (0, 1]. A level is the widest that costs no more.

    Raises
    ------
    InputError
        If a share is out of range, or both are given.
    """
    check_one_of(widths, costs)
    if costs is not None:
        check_shares(costs)
        full = context.full.cost
        return VectorTable([context.largest_within(share * full) for share in costs])
    if widths is not None:
        check_shares(widths)
    return VectorTable([context.uniform(keep) for keep in widths or default])


def check_one_of(widths: object, costs: object) -> None:
    """Refuse levels that are given twice.

    Raises
    ------
    InputError
        If both are there.
    """
    if widths is not None and costs is not None:
        raise InputError(
            "levels of a strategy: expected widths or costs, such as widths=1/0.5/0.25, found both"
        )


def check_shares(shares: Sequence[float]) -> None:
    """Refuse shares of a width or a cost that are none.

    Raises
    ------
    InputError
        If one lies outside (0, 1].
    """
    for share in shares:
        if not 0 < share <= 1:
            raise InputError(
                f"levels of a strategy: expected shares above 0 and at most 1, such as 1/0.5/0.25, "
                f"found {share:g}"
            )


def read_shares(kind: str, spec: str, setting: str, text: str) -> tuple[float, ...]:
    """Read shares that slashes part, such as ``1/0.5/0.25``.

    Raises
    ------
    InputError
        If one is no number.
    """
    return tuple(number(kind, spec, setting, part) for part in text.split("/"))


class LevelStrategy(Strategy):
    """A strategy whose devices choose from levels by what they can spend.

    Parameters
    ----------
    context
        What is known of the run.
    widths, costs
        Of the levels, in place of ``levels``; see `make_levels`.

    Raises
    ------
    InputError
        If a share is out of range, or both are given.
    """

    settings = {
        "widths": Setting(read_shares, check_shares),
        "costs": Setting(read_shares, check_shares),
        "averaging": AVERAGING,
    }

    levels: ClassVar[Sequence[float]]
    """Keep shares in (0, 1] of the levels by default."""

    def __init__(
        self,
        context: StrategyContext,
        widths: Sequence[float] | None = None,
        costs: Sequence[float] | None = None,
    ) -> None:
        super().__init__(context)
        self.table = make_levels(context, self.levels, widths, costs)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse levels that are given twice."""
        check_one_of(settings.get("widths"), settings.get("costs"))

    def pick(self, budget: float) -> Vector:
        """Return the dearest level that fits, or the cheapest where none does."""
        return self.table.pick(budget)

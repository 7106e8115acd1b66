"""Levels of a strategy: a few widths that devices choose from by what they can spend."""

from __future__ import annotations

from collections.abc import Sequence

from distreal_dse.errors import InputError
from distreal_dse.specs import number
from fl.strategies.context import StrategyContext, VectorTable

SETTINGS = ("widths", "costs")
"""Of strategies that have levels; one of them at most."""


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
        full = context.macs.full
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

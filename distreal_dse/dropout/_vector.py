"""Dropout vectors: one rate per channel group, and the kept counts that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

from distreal_dse.dropout._channels import ChannelGroup
from distreal_dse.errors import VectorError

KeptCounts = tuple[int, ...]


def kept_counts(rates: Sequence[float], groups: Sequence[ChannelGroup]) -> KeptCounts:
    """Channels that each group keeps: ``channels · (1 − rate)``, rounded, at least one.

    Halves are rounded to the even number.

    Raises
    ------
    VectorError
        If the number of rates is not that of the groups, or a rate is outside [0, 1).
    """
    if len(rates) != len(groups):
        raise VectorError(
            f"dropout vector has {len(rates)} rates: expected one for each of the "
            f"{len(groups)} channel groups"
        )
    for rate, group in zip(rates, groups, strict=True):
        if not 0 <= rate < 1:
            raise VectorError(
                f"dropout rate of group {group.name} is {rate}: expected 0 ≤ rate < 1"
            )
    return tuple(
        max(1, round(group.channels * (1 - rate)))
        for rate, group in zip(rates, groups, strict=True)
    )


def check_counts(counts: Sequence[int], groups: Sequence[ChannelGroup]) -> KeptCounts:
    """Return ``counts`` as a tuple if they fit the groups.

    Raises
    ------
    VectorError
        If the number of counts is wrong or one is outside 1 … channels of its group.
    """
    if len(counts) != len(groups):
        raise VectorError(
            f"{len(counts)} kept counts given: expected one for each of the "
            f"{len(groups)} channel groups"
        )
    for count, group in zip(counts, groups, strict=True):
        if not 1 <= count <= group.channels:
            raise VectorError(
                f"kept count of group {group.name} is {count}: expected 1 to {group.channels}"
            )
    return tuple(counts)


def uniform_rate(counts: Sequence[int], widths: Sequence[int]) -> float | None:
    """A rate which, used for all groups, keeps just these counts; None if there is none.

    Rounding to ``k`` of ``C`` channels comes from keep shares in [(k − ½) / C, (k + ½) / C], and
    keeping a single one from all smaller shares too.
    """
    lowest = max(
        (count - 0.5) / width if count > 1 else 0.0
        for count, width in zip(counts, widths, strict=True)
    )
    highest = min(
        min((count + 0.5) / width, 1.0) for count, width in zip(counts, widths, strict=True)
    )
    if tuple(counts) == tuple(widths):
        return 0.0
    return 1 - (lowest + highest) / 2 if lowest < highest else None

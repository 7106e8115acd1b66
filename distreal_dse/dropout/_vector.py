"""Dropout vectors: one rate per channel group, and the kept counts that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set, Sized
from typing import Any, Protocol, TypeAlias

from distreal_dse.dropout._channels import ChannelGroup
from distreal_dse.errors import VectorError

KeptCounts = tuple[int, ...]


class HasKeptCounts(Protocol):
    """What a front gives: a point of it, or a vector of its table."""

    @property
    def kept_counts(self) -> KeptCounts:
        """Units kept of each channel group."""


Vector: TypeAlias = KeptCounts | Sequence[int] | HasKeptCounts | str
"""A vector as people give it: kept counts in the order of the groups, what a front gives, or its
name: counts as text, such as ``"16-8-4"``, or ``"full"``."""


def kept_counts(
    rates: Sequence[float], groups: Sequence[ChannelGroup], granularity: int = 1
) -> KeptCounts:
    """Channels that each group keeps: ``channels · (1 − rate)``, rounded to what may be kept.

    A group may keep the multiples of ``granularity`` below its width, and its width, whether that
    is a multiple or not. So rate 0 is always the full network, a group keeps at least one multiple,
    and one that is no wider than the granularity is always kept whole: hardware that works on
    multiples would gain nothing from a smaller one. Of two that are equally near, the even multiple
    is kept, the width counting as the multiple next to the one below it.

    Parameters
    ----------
    rates
        Of each group, in [0, 1).
    groups
        The channel groups.
    granularity
        Channels, ≥ 1; 1 rounds to whole channels.

    Raises
    ------
    VectorError
        If the number of rates is not that of the groups, a rate is outside [0, 1), or the
        granularity is less than 1.
    """
    _check_sequence("a dropout vector", "rates", rates, groups)
    if len(rates) != len(groups):
        raise VectorError(
            f"dropout vector has {len(rates)} rates: expected one for each of the "
            f"{len(groups)} channel groups"
        )
    _check_granularity(granularity)
    for rate, group in zip(rates, groups, strict=True):
        if not 0 <= rate < 1:
            raise VectorError(
                f"dropout rate of group {group.name} is {rate}: expected 0 ≤ rate < 1"
            )
    return tuple(
        _nearest(group.channels * (1 - rate), group.channels, granularity)
        for rate, group in zip(rates, groups, strict=True)
    )


def allowed_counts(width: int, granularity: int = 1) -> tuple[int, ...]:
    """Return what a group of ``width`` channels may keep, rising; see `kept_counts`.

    Raises
    ------
    VectorError
        If the granularity is less than 1.
    """
    _check_granularity(granularity)
    return (*range(granularity, width, granularity), width)


def _nearest(wanted: float, width: int, granularity: int) -> int:
    """What may be kept of ``width`` channels that is nearest to ``wanted``, 0 < wanted ≤ width."""
    below = _largest_below(width, granularity)
    if wanted <= below:
        return max(granularity, round(wanted / granularity) * granularity)
    if below == 0:
        return width
    steps = below // granularity
    return width if round(steps + (wanted - below) / (width - below)) > steps else below


def _largest_below(width: int, granularity: int) -> int:
    """The largest multiple of the granularity below the width; 0 if there is none."""
    return (width - 1) // granularity * granularity


def _check_granularity(granularity: int) -> None:
    if granularity < 1:
        raise VectorError(f"granularity of kept counts is {granularity}: expected 1 or more")


def _check_sequence(what: str, of: str, values: object, groups: Sequence[ChannelGroup]) -> None:
    """Refuse what has no order, such as a dict of rates by the names of groups."""
    if isinstance(values, (Mapping, Set, str)) or not isinstance(values, Sized):
        names = [group.name for group in groups]
        known = isinstance(values, Mapping) and set(values) == set(names)
        advice = f"; yours is {[values[name] for name in names]}" if known else ""  # type: ignore[index]
        raise VectorError(
            f"{what}: expected a sequence of {of} in the order of the channel groups "
            f"{', '.join(names)}, found a {type(values).__name__}{advice}"
        )


def check_counts(counts: Sequence[int], groups: Sequence[ChannelGroup]) -> KeptCounts:
    """Return ``counts`` as a tuple if they fit the groups.

    Raises
    ------
    VectorError
        If the number of counts is wrong or one is outside 1 … channels of its group.
    """
    _check_sequence("a vector of kept counts", "whole numbers", counts, groups)
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


def counts_of(vector: Vector, groups: Sequence[ChannelGroup]) -> KeptCounts:
    """Return the kept counts of a vector, however it is given.

    Raises
    ------
    VectorError
        If it does not fit the groups, or its name is none.
    """
    if isinstance(vector, str):
        if vector == "full":
            return tuple(group.channels for group in groups)
        parts = vector.split("-")
        if not all(part.isdecimal() for part in parts):
            example = "-".join(str(group.channels) for group in groups)
            raise VectorError(
                f"vector '{vector}': expected kept counts such as '{example}', or 'full'"
            )
        return check_counts([int(part) for part in parts], groups)
    counts: Any = vector if isinstance(vector, Sequence) else getattr(vector, "kept_counts", vector)
    return check_counts(counts, groups)


def uniform_rate(
    counts: Sequence[int], widths: Sequence[int], granularity: int = 1
) -> float | None:
    """A rate which, used for all groups, keeps just these counts; None if there is none.

    A count comes from the keep shares between the middles to its neighbours among the counts that
    `kept_counts` may give; the smallest one from all smaller shares too.

    Parameters
    ----------
    counts, widths
        Kept channels and all channels of each group.
    granularity
        As for `kept_counts`.

    Raises
    ------
    VectorError
        If the granularity is less than 1.
    """
    _check_granularity(granularity)
    if tuple(counts) == tuple(widths):
        return 0.0
    lowest, highest = 0.0, 1.0
    for count, width in zip(counts, widths, strict=True):
        below = _largest_below(width, granularity)
        if count != width and not (0 < count <= below and count % granularity == 0):
            return None
        smaller = below if count == width else count - granularity
        if smaller > 0:
            lowest = max(lowest, (smaller + count) / 2 / width)
        if count < width:
            larger = width if count == below else count + granularity
            highest = min(highest, (count + larger) / 2 / width)
    return 1 - (lowest + highest) / 2 if lowest < highest else None

"""What a strategy is tried with before a comparison: learning rates, schedules, ever wider."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from distreal_dse.errors import InputError
from distreal_dse.support.specs import parse_spec, with_setting
from fl.learning_rates import check_learning_rate
from fl.schedules import make_schedule

Ranges: TypeAlias = Mapping["str | None", "tuple[float, ...]"]
"""Learning rates, ascending, by the schedule that they are tried with; None for what there is."""

End: TypeAlias = Literal["lower", "higher"]

# Rates around the study's own that are tried first where none are given, over it.
AROUND = (1 / 3, 1.0, 3.0)
# So many rates at most are added at each end of those that are tried first.
WIDENINGS = 3


@dataclass(frozen=True)
class Candidate:
    """A learning rate and a schedule; None leaves what the strategy or the run has."""

    rate: float | None
    schedule: str | None = None

    def of(self, strategy: str) -> str:
        """Return the strategy with both as settings of its own."""
        if self.rate is not None:
            strategy = with_setting(strategy, "lr", repr(self.rate))
        if self.schedule is not None:
            strategy = with_setting(strategy, "schedule", self.schedule)
        return strategy

    def __str__(self) -> str:
        rate = "" if self.rate is None else f"{self.rate:g}"
        return " ".join(part for part in (rate, self.schedule) if part)


@dataclass(frozen=True)
class Tuned:
    """What became of a strategy with several candidates.

    Parameters
    ----------
    strategy
        As it was given.
    candidates
        That were tried, by schedule in the order given, rates ascending; empty where it has a
        learning rate and a schedule of its own.
    tried
        Its settled accuracy on validation data, by seed, for each of them; without those of which
        a run failed.
    training_macs
        Spent by all devices for that.
    """

    strategy: str
    candidates: tuple[Candidate, ...]
    tried: Mapping[Candidate, tuple[float, ...]]
    training_macs: float = 0.0

    @property
    def best(self) -> Candidate | None:
        """The candidate of the highest mean; of equal ones the first; None without any."""
        return self._best_of(self.tried)

    @property
    def at_best(self) -> str:
        """The strategy with its best candidate, as it was given where there is none."""
        return self.strategy if self.best is None else self.best.of(self.strategy)

    @property
    def further(self) -> End | None:
        """At which end of the rates that were tried with its schedule the best lies, if at one."""
        return None if self.best is None else self.end_of(self.best.schedule)

    def end_of(self, schedule: str | None) -> End | None:
        """At which end of the rates that were tried with a schedule its best lies, if at one."""
        asked = [one for one in self.candidates if one.schedule == schedule]
        best = self._best_of([one for one in asked if one in self.tried])
        if best is None or best.rate is None:
            return None
        return "lower" if best == asked[0] else "higher" if best == asked[-1] else None

    def _best_of(self, pairs: Iterable[Candidate]) -> Candidate | None:
        return max(pairs, key=lambda one: fmean(self.tried[one]), default=None)


def check_rates(rates: Sequence[float]) -> tuple[float, ...]:
    """Return learning rates to choose from, ascending.

    Raises
    ------
    InputError
        If there are fewer than two different ones, or one is none.
    """
    for rate in rates:
        check_learning_rate(rate, "learning rates")
    ascending = tuple(sorted({float(rate) for rate in rates}))
    if len(ascending) < 2:
        raise InputError(
            f"learning rates: expected auto, or two or more to choose from, found {len(ascending)};"
            " a single one is written behind strategies, such as small:lr=0.1"
        )
    return ascending


def check_schedules(schedules: Sequence[str]) -> tuple[str, ...]:
    """Return schedules to choose from, written as strategies take them; none where none are given.

    Raises
    ------
    InputError
        If there is a single one, or one can't be read.
    """
    found = tuple(dict.fromkeys(one.replace(",", ":") for one in schedules))
    for one in found:
        make_schedule(one)
    if len(found) == 1:
        raise InputError(
            f"schedules (--schedules): expected two or more to choose from, such as "
            f"constant,cosine, found {found[0]}; a single one is --schedule {found[0]}"
        )
    return found


def around(rate: float) -> tuple[float, ...]:
    """Return the rates that are tried first around one, ascending."""
    return tuple(rate if factor == 1 else _short(rate * factor) for factor in AROUND)


def first_ranges(
    strategies: Sequence[str], rates: tuple[float, ...], schedules: Sequence[str]
) -> Ranges:
    """Return the ranges that strategies begin with: the same rates with each schedule."""
    keys = dict.fromkeys(key for one in strategies for key in _schedules(one, schedules))
    return dict.fromkeys(keys, rates)


def candidates(strategy: str, ranges: Ranges, schedules: Sequence[str]) -> tuple[Candidate, ...]:
    """Return what a strategy is tried with: all pairs, but for what it has of its own."""
    own = "lr" in _settings(strategy)
    found = tuple(
        Candidate(rate, schedule)
        for schedule in _schedules(strategy, schedules)
        for rate in ((None,) if own else ranges[schedule])
    )
    return () if found == (Candidate(None),) else found


def widened(ranges: Ranges, first: Ranges, tuned: Sequence[Tuned]) -> Ranges:
    """Return ranges with a rate more at those ends where the best of some strategy lies.

    So all strategies are tried with the rates that any of them needs, and no schedule is judged by
    rates that end too early for it. A range that `WIDENINGS` rates were added to at an end stays as
    it is there.

    Parameters
    ----------
    ranges
        That strategies were tried with.
    first
        Those that they began with.
    tuned
        What became of them.
    """
    wanted = {(schedule, one.end_of(schedule)) for one in tuned for schedule in ranges}
    found = {}
    for schedule, rates in ranges.items():
        begin = first[schedule]
        if (schedule, "lower") in wanted and rates.index(begin[0]) < WIDENINGS:
            rates = (*_next(rates[1], rates[0]), *rates)
        if (schedule, "higher") in wanted and rates[::-1].index(begin[-1]) < WIDENINGS:
            rates = (*rates, *_next(rates[-2], rates[-1]))
        found[schedule] = rates
    return found


def _next(inner: float, end: float) -> Iterator[float]:
    """The rate behind the end, by the same ratio; nothing where numbers end."""
    exact = end * (end / inner)
    short = _short(exact)
    found = short if min(inner, short) < end < max(inner, short) else exact
    if 0 < found < math.inf and found != end:
        yield found


def _short(rate: float) -> float:
    """A rate with three digits, for names that people read."""
    return float(f"{rate:.3g}")


def _schedules(strategy: str, schedules: Sequence[str]) -> tuple[str | None, ...]:
    return (None,) if not schedules or "schedule" in _settings(strategy) else tuple(schedules)


def _settings(strategy: str) -> Mapping[str, str]:
    return parse_spec("strategy", strategy)[1]

"""How learning rates change over the rounds of a run: those of devices, and the server's.

A schedule gives factors. The learning rate of a round is the one that there is anyway (of the
study, the strategy or the server's optimiser) times the factor of the round. Counting is that of
`torch.optim.lr_scheduler` with a round in place of an epoch.

References
----------
Loshchilov, Hutter: SGDR: Stochastic gradient descent with warm restarts, ICLR 2017, equation 5
(cosine; here without restarts).

Goyal, Dollár, Girshick, Noordhuis, Wesolowski, Kyrola, Tulloch, Jia, He: Accurate, large minibatch
SGD: training ImageNet in 1 hour, 2017, arXiv 1706.02677, section 2.2 (gradual warm-up).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from distreal_dse.errors import InputError
from distreal_dse.support.registry import Entry, Registry
from distreal_dse.support.specs import number, whole_number
from fl.world.exact import Seconds


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Factors of a learning rate over the rounds of a run.

    Parameters
    ----------
    warmup
        Rounds W ≥ 0 of a linear warm-up: round t ≤ W has the factor t / (W + 1). The decay begins
        behind it, so round W + 1 has the full rate.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    warmup: int = 0

    def __post_init__(self) -> None:
        _expect(self.warmup >= 0, "warmup", "0 rounds or more", self.warmup)

    def of_round(self, round_number: int, rounds: int, spent: float = 0.0) -> float:
        """Return the learning rate of a round over the full one, in [0, 1].

        Parameters
        ----------
        round_number
            From 1 to ``rounds``.
        rounds
            Of the whole run, at most; more than ``warmup``.
        spent
            Share of the run's virtual time that is over when the round begins, in [0, 1); 0 where
            that has no end.
        """
        if round_number <= self.warmup:
            return round_number / (self.warmup + 1)
        return self._decay(round_number - self.warmup - 1, rounds - self.warmup, spent)

    @abstractmethod
    def _decay(self, done: int, rounds: int, spent: float) -> float:
        """Return the factor after so many of the rounds behind the warm-up."""

    def over(self, rounds: int, until: float | None) -> Callable[[int, Seconds], float]:
        """Return the factor of a round of a run, by its number and the seconds when it begins.

        Parameters
        ----------
        rounds
            Of the run, at most.
        until
            Virtual seconds after which no further round begins; None for no such limit.
        """

        def factor(round_number: int, now: Seconds) -> float:
            return self.of_round(round_number, rounds, float(now) / until if until else 0.0)

        return factor

    def check(self, rounds: int) -> None:
        """Refuse a run of so many rounds that would end within the warm-up.

        Raises
        ------
        InputError
            If it would.
        """
        if self.warmup >= rounds:
            raise InputError(
                f"warmup of a schedule: expected less than the {rounds} rounds of the run, found "
                f"{self.warmup}; give more rounds or a shorter warmup"
            )


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The full rate all the time, behind the warm-up."""

    def _decay(self, done: int, rounds: int, spent: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to ``end``: end + (1 − end) · ½ (1 + cos πx).

    x is the share of the run that is over when the round begins: of its rounds behind the warm-up,
    or of its virtual time where that is further on. So a run that its virtual time ends comes down
    as well. The last round begins shortly before x = 1.

    Parameters
    ----------
    end
        In [0, 1].
    """

    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect(0 <= self.end <= 1, "end", "0 to 1", self.end)

    def _decay(self, done: int, rounds: int, spent: float) -> float:
        over = max(done / rounds, spent)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * over)) / 2


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Times ``factor`` again and again: every so many rounds, or after rounds given by hand.

    Parameters
    ----------
    factor
        In (0, 1]; by default that of PyTorch's schedulers.
    every
        Rounds ≥ 1 from one step to the next, counted behind the warm-up.
    at
        Numbers of rounds, ascending, after which the rate falls, counted from the start of the run
        as papers do. All lie behind the warm-up. Either this or ``every`` is given.
    """

    factor: float = 0.1
    every: int | None = None
    at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect(0 < self.factor <= 1, "factor", "above 0, at most 1", self.factor)
        if (self.every is None) != bool(self.at):
            raise InputError(
                "schedule step: expected either every=ROUNDS, such as every=30, or at=ROUND/ROUND, "
                f"such as at=30/60, found {'both' if self.at else 'none'}"
            )
        if self.every is not None:
            _expect(self.every >= 1, "every", "1 round or more", self.every)
        rising = all(a < b for a, b in zip(self.at, self.at[1:], strict=False))
        if self.at and not (rising and self.at[0] > self.warmup):
            raise InputError(
                "at of a schedule: expected rounds behind the warmup that rise, such as "
                f"at=30/60, found {'/'.join(map(str, self.at))}"
            )

    def _decay(self, done: int, rounds: int, spent: float) -> float:
        steps = (
            bisect_right(self.at, done + self.warmup) if self.every is None else done // self.every
        )
        return self.factor**steps


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Times the same after each round behind the warm-up.

    Parameters
    ----------
    factor
        In (0, 1].
    """

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect(0 < self.factor <= 1, "factor", "above 0, at most 1", self.factor)

    def _decay(self, done: int, rounds: int, spent: float) -> float:
        return self.factor**done


def make_schedule(spec: str) -> Schedule:
    """Make a schedule from text.

    Parameters
    ----------
    spec
        ``constant``, ``cosine``, ``step`` or ``exponential``, with settings behind it:
        ``cosine:end=0.02,warmup=5``, ``step:every=30,factor=0.1``, ``step:at=300/500``,
        ``exponential:factor=0.99``. All take ``warmup``. Where commas part something else, as in
        a strategy's settings, colons part those of the schedule: ``cosine:end=0.02:warmup=5``.

    Raises
    ------
    InputError
        If there is none of this name, or its settings don't fit.
    """
    head, colon, rest = spec.partition(":")
    return _SCHEDULES.make(spec, head + colon + rest.replace(":", ","))


def _rounds(kind: str, spec: str, setting: str, text: str) -> tuple[int, ...]:
    return tuple(whole_number(kind, spec, setting, part) for part in text.split("/"))


def _expect(holds: bool, name: str, expected: str, found: float) -> None:
    if not holds:
        raise InputError(f"{name} of a {_KIND}: expected {expected}, found {found}")


_KIND = "schedule"
PLUG_INS = "distreal_dse.schedules"
"""Group of entry points: a name of letters, digits and ``-``, and what makes a `Schedule`."""

_WARM = {"warmup": whole_number}
_SCHEDULES = Registry[Schedule](
    _KIND,
    Schedule,
    {
        "constant": Entry(Constant, _WARM),
        "cosine": Entry(Cosine, {"end": number, **_WARM}),
        "step": Entry(Step, {"every": whole_number, "at": _rounds, "factor": number, **_WARM}),
        "exponential": Entry(Exponential, {"factor": number, **_WARM}, required=("factor",)),
    },
    PLUG_INS,
)

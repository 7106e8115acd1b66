"""What a run settles at: its accuracy over the last quarter of its virtual time.

Where accuracy swings from round to round, the last evaluation alone is a matter of luck. Strategies
train different numbers of rounds in the same time, so the last quarter is one of time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fl.results import RoundResult
from fl.store.runs import Run

QUARTER = 0.25


def settled(
    rounds: Sequence[RoundResult], until: float | None = None
) -> list[tuple[RoundResult, float]]:
    """Return the evaluations in the last quarter of virtual time, and the share of it of each.

    An evaluation stands for the time since the one before, as far as that lies in the quarter. So
    a strategy is not weighed by how many evaluations its rounds bring.

    Parameters
    ----------
    rounds
        Of a run, in order; at least one is evaluated.
    until
        Virtual seconds after which no further round begins, where the run has such a limit. The
        last round ends behind it, so its evaluation doesn't count: others had less time.

    Returns
    -------
    list of tuple
        At least one; shares sum to 1. Where no evaluation lies in the quarter, the last before
        it. The untrained network counts only if there is nothing else, so a run whose first
        evaluation comes behind ``until`` settles at that.
    """
    evaluated = [one for one in rounds if one.accuracy is not None]
    trained = [one for one in evaluated if one.round > 0] or evaluated
    end = min(trained[-1].virtual_seconds, math.inf if until is None else until)
    in_time = [one for one in trained if one.virtual_seconds <= end] or trained[:1]
    begin, found = (1 - QUARTER) * end, []
    for one, before in zip(in_time, [0.0, *(r.virtual_seconds for r in in_time)], strict=False):
        seconds = one.virtual_seconds - max(begin, before)
        if seconds > 0:
            found.append((one, seconds))
    if not found:
        return [(in_time[-1], 1.0)]
    total = math.fsum(seconds for _, seconds in found)
    return [(one, seconds / total) for one, seconds in found]


def settled_accuracy(rounds: Sequence[RoundResult], until: float | None = None) -> float:
    """Return the mean accuracy of `settled` rounds over their time."""
    return math.fsum((one.accuracy or 0.0) * share for one, share in settled(rounds, until))


def settled_by_class(run: Run) -> Mapping[str, float]:
    """Return the settled accuracy of a run for each class of device."""
    found = settled(run.rounds, run.until)
    return {
        key: math.fsum(one.accuracy_by_class[key] * share for one, share in found)
        for key in found[-1][0].accuracy_by_class
    }


def settled_of(run: Run) -> float:
    """Return the settled accuracy of a run, within the virtual time that it was given."""
    return settled_accuracy(run.rounds, run.until)

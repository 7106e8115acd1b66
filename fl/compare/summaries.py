"""What a comparison comes to: figures of each strategy over its seeds, with confidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from fl.compare.settled import settled_by_class, settled_of
from fl.results import RoundResult
from fl.store.runs import Run

CONFIDENCE = 0.95
# Share of the best final accuracy that is the target where none is given.
DEFAULT_TARGET = 0.9


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its confidence interval.

    ``low`` and ``high`` bound the mean with 95 % confidence by Student's t-distribution; with a
    single seed they are NaN: nothing is known of the spread.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Figures of one strategy, over seeds.

    Parameters
    ----------
    strategy
        Its name.
    seeds
        Of its runs, ascending.
    settled_accuracy
        Mean accuracy over the last quarter of virtual time (see `fl.compare.settled`).
    final_accuracy
        Of the last evaluation.
    accuracy_in_time
        Of the last evaluation before the virtual time that all summarised runs reached.
    accuracy_by_class
        The settled accuracy for each class of device.
    target_reached
        In how many runs the target accuracy was reached.
    seconds_to_target
        Virtual seconds until then; None unless all runs reached it.
    virtual_seconds
        Length of the runs.
    training_macs
        Spent by all devices.
    wasted_share
        Share of them whose updates were not merged.
    transferred_bytes
        Sent to the devices and back.
    missed_share
        Share of devices in cohorts that missed the deadline.
    unfinished
        How many of its runs are not finished. They are left out, unless no run of the comparison is
        finished: then all are taken as far as they have come.
    """

    strategy: str
    seeds: tuple[int, ...]
    settled_accuracy: Estimate
    final_accuracy: Estimate
    accuracy_in_time: Estimate
    accuracy_by_class: Mapping[str, Estimate]
    target_reached: int
    seconds_to_target: Estimate | None
    virtual_seconds: Estimate
    training_macs: Estimate
    wasted_share: Estimate
    transferred_bytes: Estimate
    missed_share: Estimate
    unfinished: int = 0


def estimate(values: Iterable[float]) -> Estimate:
    """Return the mean of at least one value, with its confidence interval."""
    found = list(values)
    mean = fmean(found)
    if len(found) < 2:
        return Estimate(mean, math.nan, math.nan)
    from scipy.stats import t  # takes a second to import

    half = t.ppf((1 + CONFIDENCE) / 2, len(found) - 1) * stdev(found) / math.sqrt(len(found))
    return Estimate(mean, mean - float(half), mean + float(half))


def summarise(runs: Sequence[Run], target: float | None = None) -> tuple[list[Summary], float]:
    """Return figures of each strategy, in the order of its first run, and the target accuracy.

    Runs that are not finished are left out, and so are strategies that have no other, as they can't
    be compared with those that are. Where none is finished, all are taken as far as they have come.

    Parameters
    ----------
    runs
        Runs under the same conditions, with at least one evaluation each. Of several with the same
        strategy and seed, one counts: a finished one, if there is any, and the longest. At least
        one run.
    target
        Accuracy in (0, 1] whose time is asked for; None takes `DEFAULT_TARGET` of the best mean
        final accuracy.
    """
    begun, groups = by_strategy(runs), comparable(runs)
    if target is None:
        finals = (fmean(_final(run) for run in group) for group in groups.values())
        target = DEFAULT_TARGET * max(finals)
    common = min(run.rounds[-1].virtual_seconds for group in groups.values() for run in group)
    found = [
        replace(
            _summary(name, group, target, common),
            unfinished=sum(not run.finished for run in begun[name]),
        )
        for name, group in groups.items()
    ]
    return found, target


def comparable(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return those of `by_strategy` that are finished; where none is, all of them."""
    begun = by_strategy(runs)
    done = {name: [run for run in group if run.finished] for name, group in begun.items()}
    return {name: group for name, group in done.items() if group} or begun


def by_strategy(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the runs of each strategy, one for each seed, in the order of the first runs.

    Of several with the same strategy and seed, a finished one counts, if there is any, and the
    longest.
    """
    found: dict[tuple[str, int], Run] = {}
    for run in runs:
        key = (run.strategy, run.seed)
        found[key] = max(found.get(key, run), run, key=lambda one: (one.finished, len(one.rounds)))
    groups: dict[str, list[Run]] = {}
    for run in found.values():
        groups.setdefault(run.strategy, []).append(run)
    return groups


def seconds_to(rounds: Sequence[RoundResult], target: float) -> float | None:
    """Return the virtual seconds until an evaluation first reaches a target accuracy."""
    reached = (
        one.virtual_seconds for one in rounds if one.accuracy is not None and one.accuracy >= target
    )
    return next(reached, None)


def accuracy_at(rounds: Sequence[RoundResult], seconds: float) -> float:
    """Return the accuracy of the last evaluation up to a virtual time; 0 where there is none."""
    found = [
        one.accuracy
        for one in rounds
        if one.accuracy is not None and one.virtual_seconds <= seconds
    ]
    return found[-1] if found else 0.0


def _final(run: Run) -> float:
    return accuracy_at(run.rounds, math.inf)


def _summary(name: str, runs: Sequence[Run], target: float, common: float) -> Summary:
    times = [seconds_to(run.rounds, target) for run in runs]
    reached = [time for time in times if time is not None]
    by_class: dict[str, list[float]] = {}
    for run in runs:
        for device_class, accuracy in settled_by_class(run).items():
            by_class.setdefault(device_class, []).append(accuracy)
    return Summary(
        strategy=name,
        seeds=tuple(sorted(run.seed for run in runs)),
        settled_accuracy=estimate(settled_of(run) for run in runs),
        final_accuracy=estimate(_final(run) for run in runs),
        accuracy_in_time=estimate(accuracy_at(run.rounds, common) for run in runs),
        accuracy_by_class={key: estimate(values) for key, values in by_class.items()},
        target_reached=len(reached),
        seconds_to_target=estimate(reached) if len(reached) == len(runs) else None,
        virtual_seconds=estimate(run.rounds[-1].virtual_seconds for run in runs),
        training_macs=estimate(_total(run, "training_macs") for run in runs),
        wasted_share=estimate(
            _share(_total(run, "wasted_macs"), _total(run, "training_macs")) for run in runs
        ),
        transferred_bytes=estimate(
            _total(run, "bytes_down") + _total(run, "bytes_up") for run in runs
        ),
        missed_share=estimate(
            _share(_total(run, "missed"), sum(len(one.cohort) for one in run.rounds))
            for run in runs
        ),
    )


def _total(run: Run, figure: str) -> float:
    return math.fsum(getattr(one, figure) for one in run.rounds)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0

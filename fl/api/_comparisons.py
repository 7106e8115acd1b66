"""Comparisons and advice from Python; ``distreal-dse fl compare`` and ``fl advise`` call these."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from sqlalchemy import Engine

from distreal_dse.errors import DistrealWarning, InputError
from distreal_dse.study.given import GivenStudy, source_of
from distreal_dse.support.progress import console, progress_bar
from distreal_dse.support.specs import split_specs, unknown_name
from distreal_dse.support.tables import make_table
from distreal_dse.support.workers import one_thread
from fl.api._opening import opened
from fl.api._runs import run
from fl.compare.advice import CANDIDATES, Advice
from fl.compare.advice import advise as advise_on
from fl.compare.at_best import Compared, StageListener, compare_as_given, compare_at_best
from fl.compare.comparison import Failure, RunsFailedError
from fl.compare.paired import Difference, paired_differences, reference_strategy
from fl.compare.summaries import Estimate, Summary, summarise
from fl.store.asked import spec_arguments
from fl.store.runs import Run
from fl.store.specs import RunSpec
from fl.strategies import built_in_strategies
from fl.tracking import check_trackers

if TYPE_CHECKING:
    from distreal_dse.fronts import Front
    from distreal_dse.study import Study
    from fl.world.devices import DeviceClass
    from fl.world.fleet import Fleet

ALL, AUTO = "all", "auto"


class RunFailedWarning(DistrealWarning):
    """A run of a comparison failed; the others were carried out."""


class Conditions(TypedDict, total=False):
    """What all runs of a comparison share: arguments of `fl.run`, with its defaults.

    But for ``deadline``, which is 1 by default, as strategies differ in what becomes of late
    devices, and ``evaluate_on``, which is ``"validation"`` for `fl.advise`.
    """

    rounds: int
    devices: int
    cohort: int
    fleet: Fleet | str | None
    split: str
    epochs: int
    evaluate_every: int
    evaluate_on: str
    statistics: str
    availability: str
    classes: str | tuple[DeviceClass, ...] | None
    speeds: str | None
    links: str | None
    pace: float
    until: float | None
    deadline: float | None
    late: str
    overcommit: float
    server: str
    schedule: str
    robust: str
    masked_loss: bool


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison came to.

    Parameters
    ----------
    name
        Under which it is stored.
    compared
        Its runs, at least one; what was tuned, and what failed.
    target
        Accuracy whose time is asked for; None for 90 % of the best.
    against
        Strategy that differences are taken to; None for ``small``, else the first.
    """

    name: str
    compared: Compared
    target: float | None = None
    against: str | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, as they are stored."""
        return self.compared.runs

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Runs that failed, and why; those that learning rates were chosen by among them."""
        return self.compared.failures

    def summaries(self) -> tuple[list[Summary], float]:
        """Return the figures of each strategy, and the target accuracy."""
        return summarise(self.runs, self.target)

    def paired(self) -> list[Difference]:
        """Return the differences of the others to one strategy, paired by seed."""
        names = [one.strategy for one in self.summaries()[0]]
        return paired_differences(self.runs, reference_strategy(names, self.against))

    @property
    def strategies(self) -> Any:
        """The figures of each strategy, the most accurate first.

        A `pandas.DataFrame` or `distreal_dse.support.tables.Rows`. Accuracies lie in [0, 1];
        ``low`` and ``high`` bound the settled accuracy with 95 % confidence.
        """
        found = sorted(self.summaries()[0], key=lambda one: -one.settled_accuracy.mean)
        return make_table(map(_figures, found))

    @property
    def differences(self) -> Any:
        """How far each strategy's settled accuracy is from that of `against`, likewise.

        ``low`` and ``high`` hold for all differences together, with 95 % confidence; ``verdict`` is
        ahead, behind, level or open.
        """
        found = sorted(self.paired(), key=lambda one: -one.settled_accuracy.mean)
        return make_table(
            {
                "strategy": one.strategy,
                "against": one.against,
                "seeds": len(one.seeds),
                "difference": one.settled_accuracy.mean,
                **_bounds(one.settled_accuracy),
                "verdict": one.verdict,
            }
            for one in found
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(self.strategies._repr_html_()) + str(self.differences._repr_html_())


def compare_strategies(
    study: Study | str | os.PathLike[str],
    strategies: str | Sequence[str] = ALL,
    *,
    front: Front | str | os.PathLike[str] | None = None,
    seeds: int = 3,
    learning_rates: str | Sequence[float] | None = None,
    schedules: Sequence[str] = (),
    against: str | None = None,
    target: float | None = None,
    name: str | None = None,
    storage: str | os.PathLike[str] | None = None,
    workers: int = 1,
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    track: str = "",
    progress: bool = True,
    listen: StageListener | None = None,
    **conditions: Unpack[Conditions],
) -> ComparisonResult:
    """Train strategies under the same conditions, each with several seeds.

    Every round is in the database when it is done, and the same call goes on with what is left.
    Strategies and seeds may be added later.

    Parameters
    ----------
    study, front, storage, device, options, track
        As for `fl.run`.
    strategies
        Such as ``["small", "nested:lr=0.1"]``, or ``"small,nested:lr=0.1"``; ``"all"`` is all that
        are built in, ``distreal`` only where there is a front.
    seeds, seed
        Runs of each strategy, with seeds from this one on.
    learning_rates
        Gives each strategy the one that is best for it on validation data, of these and up to three
        beyond each end; ``"auto"`` begins around the study's. None leaves rates as they are.
    schedules
        Beside learning rates: gives each strategy the best pair. None for that of ``schedule``.
    against
        Strategy that differences are taken to; None for ``small``, else the first.
    target
        Accuracy in (0, 1] whose time is asked for; None for 90 % of the best.
    name
        Of the comparison; None for the study's.
    workers
        Runs that are trained at the same time, in processes.
    progress
        Whether to show how far it is.
    listen
        Hears of progress in place of what is shown; see `fl.compare.at_best.StageListener`.
    conditions
        `Conditions`.

    Returns
    -------
    ComparisonResult
        Figures of each strategy and paired differences as tables, and all runs.

    Raises
    ------
    InputError
        If an argument can't be used, or the name stands for a comparison under other conditions;
        then nothing is trained.
    RunsFailedError
        If every run fails.
    StorageError
        If the database can't be written.
    TypeError
        If there is no such condition.

    Warns
    -----
    RunFailedWarning
        For each run that failed, once all others are done.
    """
    if seeds < 1:
        raise InputError(f"--seeds: expected at least 1, found {seeds}")
    if target is not None and not 0 < target <= 1:
        raise InputError(f"--target: expected an accuracy above 0 and up to 1, found {target}")
    names = _names(strategies, with_front=front is not None)
    if not names:
        raise InputError("strategies: expected one or more, found none")
    if against is not None:
        reference_strategy(names, against)  # before anything is trained
    rates = _rates(learning_rates, schedules, conditions)
    check_trackers(track)
    source = source_of(study, options, workers=workers)
    given = source if isinstance(source, GivenStudy) else None
    comparison = name or source.load().name
    with opened(storage) as engine, one_thread(), _heard(progress, listen) as hear:
        shared = _shared(engine, source, front, device, conditions, deadline=1.0)
        specs = [
            RunSpec(**shared, strategy=one, seed=number)
            for number in range(seed, seed + seeds)
            for one in names
        ]
        if learning_rates is None:
            done = compare_as_given(engine, comparison, specs, hear, workers, given, track)
        else:
            done = compare_at_best(
                engine, comparison, specs, rates, hear, workers,
                schedules=schedules, given=given, track=track,
            )  # fmt: skip
    _warn(done.failures)
    if not done.runs:
        raise RunsFailedError(done.failures, [])
    at_best = {one.strategy: one.at_best for one in done.tuned}  # as their runs are stored
    reference = None if against is None else at_best.get(against, against)
    return ComparisonResult(comparison, done, target, reference)


def advise(
    study: Study | str | os.PathLike[str],
    strategies: str | Sequence[str] | None = None,
    *,
    front: Front | str | os.PathLike[str] | None = None,
    seeds: int = 5,
    learning_rates: str | Sequence[float] = AUTO,
    schedules: Sequence[str] = (),
    name: str | None = None,
    storage: str | os.PathLike[str] | None = None,
    workers: int = 1,
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
    listen: StageListener | None = None,
    **conditions: Unpack[Conditions],
) -> Advice:
    """Try which strategy and learning rate suit a fleet and data, by short runs.

    Parameters
    ----------
    strategies
        What to choose from; None for a small network for everyone, nested levels, HeteroFL, ordered
        masks of one rate, and ``distreal`` where there is a front.
    seeds
        Two or more, as they are paired.
    name
        Of the comparison; None for the study's and "advice".
    study, front, learning_rates, schedules, storage, workers, seed, device, options, progress, \
listen, conditions
        As for `compare_strategies`. Accuracies are those on validation data.

    Returns
    -------
    Advice
        What to take, what is not certainly behind it, and the same in words (`Advice.sentences`).

    Raises
    ------
    InputError, RunsFailedError, StorageError, TypeError
        As for `compare_strategies`.

    Warns
    -----
    RunFailedWarning
        For each run that failed, once all others are done.
    """
    if seeds < 2:
        raise InputError(f"--seeds: expected at least 2, as seeds are paired, found {seeds}")
    rates = _rates(learning_rates, schedules, conditions)
    source = source_of(study, options, workers=workers)
    comparison = name or f"{source.load().name} advice"
    with opened(storage) as engine, one_thread(), _heard(progress, listen) as hear:
        shared = _shared(
            engine, source, front, device, conditions, deadline=1.0, evaluate_on="validation"
        )
        found = advise_on(
            engine, comparison, RunSpec(**shared, strategy=CANDIDATES[0], seed=seed), seeds, rates,
            hear, workers,
            strategies=None if strategies is None else _listed(strategies),
            schedules=schedules,
            given=source if isinstance(source, GivenStudy) else None,
        )  # fmt: skip
    _warn(found.compared.failures)
    return found


def _listed(strategies: str | Sequence[str]) -> list[str]:
    return split_specs(strategies) if isinstance(strategies, str) else [*strategies]


def _names(strategies: str | Sequence[str], with_front: bool) -> list[str]:
    if strategies != ALL:
        return _listed(strategies)
    # Without a front, distreal is nested.
    return [one for one in built_in_strategies() if with_front or one != "distreal"]


def _rates(
    rates: str | Sequence[float] | None, schedules: Sequence[str], conditions: Conditions
) -> Sequence[float] | None:
    """Learning rates to begin with; None where the study's decides."""
    if schedules and rates is None:
        raise InputError(
            "--schedules: expected --learning-rates beside it, as schedules want rates of their "
            f"own, found none; give --learning-rates {AUTO}"
        )
    if schedules and conditions.get("schedule", _DEFAULTS["schedule"]) != _DEFAULTS["schedule"]:
        raise InputError(
            "--schedule beside --schedules: expected one of them, found both; name all that are "
            "to be tried in --schedules"
        )
    if not isinstance(rates, str):
        return rates
    if rates != AUTO:
        raise InputError(f"--learning-rates: expected '{AUTO}' or numbers, found '{rates}'")
    return None


def _shared(
    engine: Engine,
    source: Any,
    front: Any,
    device: str,
    conditions: Conditions,
    **defaults: Any,
) -> dict[str, Any]:
    """The arguments of all specs."""
    for one in conditions:
        if one not in _DEFAULTS:
            raise TypeError(str(unknown_name("condition", one, one, sorted(_DEFAULTS))))
    return spec_arguments(source, engine, front, device, **{**_DEFAULTS, **defaults, **conditions})


# `fl.run` is where defaults stand.
_DEFAULTS: Mapping[str, Any] = {
    one.name: one.default
    for one in inspect.signature(run).parameters.values()
    if one.name in Conditions.__annotations__
}


@contextmanager
def _heard(progress: bool, listen: StageListener | None) -> Iterator[StageListener]:
    if listen is not None or not progress:
        yield listen or (lambda stage: lambda done, total: None)
        return
    with progress_bar(console()) as bar:

        def show(stage: str) -> Callable[[int, int], None]:
            return partial(bar.show, stage)

        yield show


def _warn(failures: Sequence[Failure]) -> None:
    for failure in failures:
        warnings.warn(str(failure), RunFailedWarning, stacklevel=3)


def _figures(one: Summary) -> dict[str, Any]:
    return {
        "strategy": one.strategy,
        "seeds": len(one.seeds),
        "settled accuracy": one.settled_accuracy.mean,
        **_bounds(one.settled_accuracy),
        "final accuracy": one.final_accuracy.mean,
        "seconds to target": one.seconds_to_target and one.seconds_to_target.mean,
        "virtual seconds": one.virtual_seconds.mean,
        "training MACs": one.training_macs.mean,
        "transferred bytes": one.transferred_bytes.mean,
        **{f"accuracy of {key}": value.mean for key, value in one.accuracy_by_class.items()},
    }


def _bounds(found: Estimate) -> dict[str, float | None]:
    """Of the interval; None with a single seed."""
    known = found.low == found.low  # NaN is not
    return {"low": found.low if known else None, "high": found.high if known else None}

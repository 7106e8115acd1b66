"""Comparisons that carry on past what fails, of strategies as given or at their best rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from distreal_dse.study.given import GivenStudy
from fl.compare.candidates import Tuned
from fl.compare.comparison import Failure, Listener, RunsFailedError, compare
from fl.compare.tuning import tune
from fl.store.runs import Run
from fl.store.specs import RunSpec

StageListener = Callable[[str], Listener]
"""Makes who is told of progress from what is done: ``"learning rates"`` or ``"rounds"``."""


@dataclass(frozen=True)
class Compared:
    """What a comparison came to.

    Parameters
    ----------
    runs
        That did not fail, in the order of the specs; maybe none.
    tuned
        What became of each strategy's learning rates; empty where none were tried.
    failures
        Of runs, those that learning rates were chosen by among them.
    """

    runs: tuple[Run, ...]
    tuned: tuple[Tuned, ...] = ()
    failures: tuple[Failure, ...] = ()


def compare_as_given(
    engine: Engine,
    name: str,
    specs: Sequence[RunSpec],
    listen: StageListener = lambda stage: lambda done, total: None,
    workers: int = 1,
    given: GivenStudy | None = None,
    track: str = "",
) -> Compared:
    """Carry out a comparison as `compare` does, and return failures beside the runs.

    Raises
    ------
    InputError
        As for `compare`, or if a plug-in strategy breaks its contract; then nothing is trained.
    ConnectionLostError
        As for `compare`.
    """
    _rehearse(engine, specs, given)
    return _compared(engine, name, specs, listen, workers, given, track)


def compare_at_best(
    engine: Engine,
    name: str,
    specs: Sequence[RunSpec],
    rates: Sequence[float] | None = None,
    listen: StageListener = lambda stage: lambda done, total: None,
    workers: int = 1,
    *,
    schedules: Sequence[str] = (),
    given: GivenStudy | None = None,
    track: str = "",
) -> Compared:
    """Give each strategy its best learning rate by `tune`, and carry out the comparison.

    A strategy of which every candidate fails is compared as it was given.

    Parameters
    ----------
    engine, name, specs, rates, workers, schedules, given
        As for `tune`.
    listen
        Told of progress, of both parts.
    track
        As for `compare`, which runs at other rates are not told to.

    Raises
    ------
    InputError
        As for `tune`, or if a plug-in strategy breaks its contract; then nothing is trained.
    ConnectionLostError
        As for `compare`.
    """
    _rehearse(engine, specs, given)
    tuned, failures = tune(
        engine, name, specs, rates, listen("learning rates"), workers,
        schedules=schedules, given=given,
    )  # fmt: skip
    at_best = {one.strategy: one.at_best for one in tuned}
    best = [replace(spec, strategy=at_best[spec.strategy]) for spec in specs]
    done = _compared(engine, name, best, listen, workers, given, track)
    return Compared(done.runs, tuple(tuned), (*failures, *done.failures))


def _rehearse(engine: Engine, specs: Sequence[RunSpec], given: GivenStudy | None) -> None:
    for spec in {spec.strategy: spec for spec in reversed(specs)}.values():
        spec.rehearse(engine, given)


def _compared(
    engine: Engine,
    name: str,
    specs: Sequence[RunSpec],
    listen: StageListener,
    workers: int,
    given: GivenStudy | None,
    track: str,
) -> Compared:
    try:
        runs = compare(engine, name, specs, listen("rounds"), workers, given, track)
        return Compared(tuple(runs))
    except RunsFailedError as error:
        return Compared(error.runs, failures=error.failures)

"""Each strategy at its best learning rate, so that a comparison compares strategies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, islice

from sqlalchemy import Engine

from distreal_dse.study.given import GivenStudy
from distreal_dse.support.seeding import seeded
from fl.compare.candidates import (
    Candidate,
    Tuned,
    around,
    candidates,
    check_rates,
    check_schedules,
    first_ranges,
    widened,
)
from fl.compare.comparison import Failure, Listener, RunsFailedError, check_comparison, compare
from fl.compare.settled import settled_of
from fl.learning_rates import check_learning_rate, fastest_rate
from fl.store.runs import Run
from fl.store.specs import RunSpec

# Runs of each candidate: one alone is often the luck of its seed.
SEEDS = 2
# Their seeds begin so far behind the first one of the comparison.
APART = 10_000


def tuning_name(comparison: str) -> str:
    """Return the name of the comparison that another one's learning rates are chosen by."""
    return f"{comparison} learning rates"


def tuning_seeds(specs: Sequence[RunSpec]) -> tuple[int, ...]:
    """Return the seeds that candidates are trained with: none of those that are compared.

    What is chosen by a seed fits its split, traces and masks by luck, and looks better with that
    very seed than with others, the more so the more candidates there are. The seeds don't change
    when seeds are added to the comparison, so that nothing has to be chosen anew.
    """
    used = {spec.seed for spec in specs}
    free = (seed for seed in count(specs[0].seed + APART) if seed not in used)
    return tuple(islice(free, SEEDS))


def tune(
    engine: Engine,
    name: str,
    specs: Sequence[RunSpec],
    rates: Sequence[float] | None = None,
    listen: Listener = lambda done, total: None,
    workers: int = 1,
    *,
    schedules: Sequence[str] = (),
    given: GivenStudy | None = None,
) -> tuple[list[Tuned], tuple[Failure, ...]]:
    """Train each strategy with each learning rate and schedule, evaluated on validation data.

    Each pair is trained with the seeds of `tuning_seeds`; that of the highest mean is best. Where
    the best rate with some schedule lies at an end for some strategy, all are tried with one rate
    more, by the same ratio, until it does not, or `fl.compare.candidates.WIDENINGS` were added.

    The runs are a comparison of their own, `tuning_name`, and go on where they were stopped.
    Strategies that have a learning rate or a schedule of their own (``small:lr=0.1``) keep it.
    Whatever fails, the others go on; returned are what became of each strategy, and what failed.

    Parameters
    ----------
    engine
        The opened database.
    name
        Of the comparison that learning rates are chosen for.
    specs
        What it is to train, at least one.
    rates
        Two or more different ones to begin with; None for some around that of the study.
    listen, workers, given
        As for `compare`.
    schedules
        Two or more different ones, as `make_schedule` takes them; none for that of the specs.

    Raises
    ------
    InputError
        If there are fewer rates or schedules, or as for `compare`; then nothing is trained.
    """
    schedules = check_schedules(schedules)
    begin = around(_rate_of_study(specs[0], given)) if rates is None else check_rates(rates)
    check_comparison(engine, name, specs)
    strategies = list(dict.fromkeys(spec.strategy for spec in specs))
    seeds = tuning_seeds(specs)
    ranges = first = first_ranges(strategies, begin, schedules)
    failed: dict[tuple[str, int], Failure] = {}
    while True:
        tried = {one: candidates(one, ranges, schedules) for one in strategies}
        trials = [
            replace(specs[0], strategy=pair.of(one), seed=seed, evaluate_on="validation")
            for one in strategies
            for pair in tried[one]
            for seed in seeds
            if (pair.of(one), seed) not in failed
        ]
        try:
            runs = (
                compare(engine, tuning_name(name), trials, listen, workers, given) if trials else []
            )
        except RunsFailedError as error:
            runs = list(error.runs)
            failed |= {(one.strategy, one.seed): one for one in error.failures}
        found = {(run.strategy, run.seed): run for run in runs}
        tuned = [_tuned(one, tried[one], found, seeds) for one in strategies]
        wider = widened(ranges, first, tuned)
        if wider == ranges:
            return tuned, tuple(failed.values())
        ranges = wider


def _tuned(
    strategy: str,
    pairs: tuple[Candidate, ...],
    found: dict[tuple[str, int], Run],
    seeds: Sequence[int],
) -> Tuned:
    own = {
        pair: [found[key] for seed in seeds if (key := (pair.of(strategy), seed)) in found]
        for pair in pairs
    }
    return Tuned(
        strategy,
        pairs,
        {
            pair: tuple(map(settled_of, runs))
            for pair, runs in own.items()
            if len(runs) == len(seeds)
        },
        math.fsum(one.training_macs for runs in own.values() for run in runs for one in run.rounds),
    )


def _rate_of_study(spec: RunSpec, given: GivenStudy | None) -> float:
    """The learning rate that devices have where nothing else is said."""
    study = spec.source(given).load()
    with seeded(0, "learning rate"):  # layers draw their values
        rate = fastest_rate(study.optimizer(study.model().parameters()))
    check_learning_rate(
        rate, f"learning rate of study {study.name}, around which auto tries others"
    )
    return rate

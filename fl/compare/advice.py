"""Which strategy to take for a fleet and data: a short comparison, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from distreal_dse.specs import name_of
from fl.compare.candidates import Tuned
from fl.compare.comparison import Failure, Listener, RunsFailedError, compare
from fl.compare.paired import Difference, paired_differences
from fl.compare.summaries import summarise
from fl.compare.tuning import tune
from fl.store.runs import Run
from fl.store.specs import RunSpec

CANDIDATES = (
    "small",
    "nested",
    "heterofl",
    "distreal-uniform:masks=ordered,averaging=contributors",
)
"""A small network for everyone, and ways to train parts of a large one; with a front, ``distreal``,
too."""

SIMPLEST = "small"


@dataclass(frozen=True)
class Advice:
    """What a short comparison came to.

    Parameters
    ----------
    name
        Of the comparison, which can be looked at.
    tuned
        The learning rates that were tried.
    runs
        Of each strategy at its best rate, evaluated on validation data.
    failures
        What failed; a strategy without a finished run is not among those to choose from.
    """

    name: str
    tuned: tuple[Tuned, ...]
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def first(self) -> str:
        """The strategy that settles highest on average, with its settings."""
        found, _ = summarise(self.runs)
        return max(found, key=lambda one: one.settled_accuracy.mean).strategy

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Of the others to the first, paired by seed; by falling mean.

        The first was chosen as it came out best, so intervals are those of all pairs.
        """
        found = paired_differences(self.runs, self.first, by_outcome=True)
        return tuple(sorted(found, key=lambda one: -one.settled_accuracy.mean))

    @property
    def rivals(self) -> tuple[Difference, ...]:
        """Those that are not certainly behind the first."""
        return tuple(one for one in self.differences if one.verdict != "behind")

    def sentences(self) -> str:
        """Return the advice in words; what is certain is said to be, and what is not, too."""
        first, rivals = self.first, [one.strategy for one in self.rivals]
        said = f"Take {first}."
        if not self.differences:
            return f"{said} There was nothing to hold it against."
        if not rivals:
            return f"{said} It is ahead of all others (95% confidence for all of them together)."
        said += f" Not certainly behind: {', '.join(rivals)}."
        if len(rivals) < len(self.differences):
            said += " All others are."
        if SIMPLEST in map(name_of, rivals):
            said += (
                " A small network for everyone may do as well, and is the simplest: more seeds or "
                "rounds would tell."
            )
        return said


def advise(
    engine: Engine,
    name: str,
    spec: RunSpec,
    seeds: int = 3,
    rates: Sequence[float] | None = None,
    listen: Listener = lambda done, total: None,
    workers: int = 1,
    *,
    strategies: Sequence[str] | None = None,
    schedules: Sequence[str] = (),
) -> Advice:
    """Compare strategies, each at its best learning rate.

    All is kept under the name, and goes on where it was stopped.

    Parameters
    ----------
    engine
        The opened database.
    name
        Of the comparison.
    spec
        Of a short run: fleet, split, rounds. Its strategy is not heeded. Let it be evaluated on
        validation data; learning rates are chosen by these in any case.
    seeds
        How many to compare with, from that of the spec on.
    strategies
        What to choose from; None for `CANDIDATES`, and ``distreal`` where the spec has a front.
    rates, schedules, listen, workers
        As for `fl.compare.tuning.tune`.

    Raises
    ------
    InputError
        As for `tune`; then nothing is trained.
    RunsFailedError
        If nothing could be trained.
    """
    if strategies is None:
        strategies = (*CANDIDATES, *(("distreal",) if spec.front else ()))
    specs = [
        replace(spec, strategy=one, seed=spec.seed + number)
        for one in strategies
        for number in range(seeds)
    ]
    tuned, failures = tune(engine, name, specs, rates, listen, workers, schedules=schedules)
    at_best = {one.strategy: one.at_best for one in tuned if one.tried or not one.candidates}
    best = [
        replace(one, strategy=at_best[one.strategy]) for one in specs if one.strategy in at_best
    ]
    if not best:
        raise RunsFailedError(failures, [])
    try:
        runs = compare(engine, name, best, listen, workers)
    except RunsFailedError as error:
        if not error.runs:
            raise
        runs, failures = list(error.runs), (*failures, *error.failures)
    return Advice(name, tuple(tuned), tuple(runs), tuple(failures))

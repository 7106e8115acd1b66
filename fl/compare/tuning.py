"""Each strategy at its best learning rate, so that a comparison compares strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from distreal_dse.errors import InputError
from distreal_dse.specs import parse_spec, with_setting
from fl.compare.comparison import Failure, Listener, RunsFailedError, check_comparison, compare
from fl.compare.settled import settled_of
from fl.learning_rates import check_learning_rate
from fl.store.specs import RunSpec


@dataclass(frozen=True)
class Tuned:
    """What became of a strategy at several learning rates.

    Parameters
    ----------
    strategy
        As it was given.
    rates
        Learning rates that were asked for, ascending; empty where it has one of its own.
    tried
        Its accuracy on validation data, `fl.compare.settled.settled_of`, by learning rate,
        ascending; without those whose run failed.
    """

    strategy: str
    rates: tuple[float, ...]
    tried: Mapping[float, float]

    @property
    def best(self) -> float | None:
        """The learning rate of the highest accuracy, of equal ones the lowest; None without any."""
        return max(self.tried, key=lambda rate: self.tried[rate], default=None)

    @property
    def at_best(self) -> str:
        """The strategy with its best learning rate, as it was given where there is none."""
        return self.strategy if self.best is None else _at_rate(self.strategy, self.best)

    @property
    def further(self) -> str | None:
        """``"lower"`` or ``"higher"`` where the best is at that end of those asked for."""
        if self.best is None:
            return None
        return {self.rates[0]: "lower", self.rates[-1]: "higher"}.get(self.best)


def tuning_name(comparison: str) -> str:
    """Return the name of the comparison that another one's learning rates are chosen by."""
    return f"{comparison} learning rates"


def tune(
    engine: Engine,
    name: str,
    specs: Sequence[RunSpec],
    rates: Sequence[float],
    listen: Listener = lambda done, total: None,
    workers: int = 1,
) -> tuple[list[Tuned], tuple[Failure, ...]]:
    """Train each strategy once with each learning rate, evaluated on validation data.

    The runs are a comparison of their own, `tuning_name`, and go on where they were stopped.
    Strategies that have a learning rate of their own (``small:lr=0.1``) keep it. Whatever fails,
    the others go on; returned are what became of each strategy, and what failed.

    Parameters
    ----------
    engine
        The opened database.
    name
        Of the comparison that learning rates are chosen for.
    specs
        What it is to train, at least one; the seed of the first is used.
    rates
        Two or more different ones.
    listen, workers
        As for `compare`.

    Raises
    ------
    InputError
        If there are fewer rates, or as for `compare`; then nothing is trained.
    """
    for rate in rates:
        check_learning_rate(rate, "learning rates")
    ascending = tuple(sorted({float(rate) for rate in rates}))
    if len(ascending) < 2:
        raise InputError(
            f"learning rates: expected two or more to choose from, found {len(ascending)}; a "
            "single one is written behind strategies, such as small:lr=0.1"
        )
    check_comparison(engine, name, specs)
    strategies = list(dict.fromkeys(spec.strategy for spec in specs))
    open_ones = [one for one in strategies if "lr" not in parse_spec("strategy", one)[1]]
    trials = [
        replace(specs[0], strategy=_at_rate(one, rate), evaluate_on="validation")
        for rate in ascending
        for one in open_ones
    ]
    failures: tuple[Failure, ...] = ()
    try:
        runs = compare(engine, tuning_name(name), trials, listen, workers) if trials else []
    except RunsFailedError as error:
        runs, failures = list(error.runs), error.failures
    found = {run.strategy: settled_of(run) for run in runs}
    tuned = []
    for one in strategies:
        asked = ascending if one in open_ones else ()
        keys = {rate: _at_rate(one, rate) for rate in asked}
        tried = {rate: found[key] for rate, key in keys.items() if key in found}
        tuned.append(Tuned(one, asked, tried))
    return tuned, failures


def _at_rate(strategy: str, rate: float) -> str:
    return with_setting(strategy, "lr", repr(rate))

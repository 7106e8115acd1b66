"""Which strategy to take for a fleet and data: a short comparison, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from distreal_dse.study.given import GivenStudy
from distreal_dse.support.specs import name_of
from fl.compare.at_best import Compared, StageListener, compare_at_best
from fl.compare.comparison import RunsFailedError
from fl.compare.paired import Difference, paired_differences
from fl.compare.summaries import summarise
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
    compared
        At least one run, each strategy at its best learning rate.
    """

    name: str
    compared: Compared

    @property
    def first(self) -> str:
        """The strategy that settles highest on average, with its settings."""
        found, _ = summarise(self.compared.runs)
        return max(found, key=lambda one: one.settled_accuracy.mean).strategy

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Of the others to the first, paired by seed; by falling mean.

        The first was chosen as it came out best, so intervals are those of all pairs.
        """
        found = paired_differences(self.compared.runs, self.first, by_outcome=True)
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
    listen: StageListener = lambda stage: lambda done, total: None,
    workers: int = 1,
    *,
    strategies: Sequence[str] | None = None,
    schedules: Sequence[str] = (),
    given: GivenStudy | None = None,
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
    rates, schedules, listen, workers, given
        As for `compare_at_best`.

    Raises
    ------
    InputError
        As for `compare_at_best`; then nothing is trained.
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
    compared = compare_at_best(
        engine, name, specs, rates, listen, workers, schedules=schedules, given=given
    )
    if not compared.runs:
        raise RunsFailedError(compared.failures, [])
    return Advice(name, compared)

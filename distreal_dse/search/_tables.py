"""Fitting a table to a fleet: one curve, judged by short runs in which the fleet uses it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from distreal_dse.budgets import Budgets
from distreal_dse.convergence import Convergence, FleetTable
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import DistrealError
from distreal_dse.fronts import TablePilot
from distreal_dse.search._joining import NoOthers, Others
from distreal_dse.search._memory import Fits
from distreal_dse.search._settings import Listener, SearchProgress, SearchSettings
from distreal_dse.search.executors import TableTask
from distreal_dse.search.ledger import Claim, Company, Ledger, Progress, TrialArchive
from distreal_dse.search.proposer import DEFAULT, CurveSpace, Problem, make_sampler
from distreal_dse.search.verdicts import pooled_variance, table_pilot
from distreal_dse.study import Study
from distreal_dse.support.seeding import derive_seed

STREAM, VERIFIED_STREAM = "fit", "fit verification"
# Short runs of each curve while curves are compared; more are made of the best.
REPLICATES = 2
# Of those that every fit begins with, at most, before it says that it does not pay.
PILOT_REPLICATES = 5
# Curves drawn at random behind those that every fit begins with.
RANDOM_START = 4
# Curves that are verified beside one rate.
FINALISTS = 3
DIRECTION = (StudyDirection.MAXIMIZE,)
GAIN_OVER_ONE_RATE = "fall of the log validation loss against one rate"


@dataclass(frozen=True)
class Fitted:
    """A table fitted to a fleet, held against one rate for all layers.

    Parameters
    ----------
    table
        The best one that was verified; that of one rate where no other was certainly better.
    elasticities
        Of its curve, by channel group.
    gains
        What each verification run of the best curve gained over that of one rate with the same
        seeds: the fall of the logarithm of the validation loss. Shape [replicates].
    compared
        Curves that were verified, which the interval accounts for.
    """

    table: FleetTable
    elasticities: tuple[float, ...]
    gains: tuple[float, ...]
    compared: int

    @property
    def gain(self) -> float:
        """Mean of the gains."""
        return fmean(self.gains)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean gain, with 95 % confidence for all curves compared (Student, Bonferroni)."""
        from scipy.special import stdtrit

        count = len(self.gains)
        reach = float(stdtrit(count - 1, 1 - 0.025 / self.compared))
        half = reach * stdev(self.gains) / math.sqrt(count)
        return self.gain - half, self.gain + half

    @property
    def pays(self) -> bool:
        """Whether the best curve is certainly better than one rate."""
        return self.interval[0] > 0


class TableFitter:
    """Proposes curves, judges each by short runs of the whole table, and verifies the best.

    Made before anything is trained, as it refuses fleets that nothing fits.

    All short runs of a replicate share initial weights, data, masks and budgets, so that a curve is
    compared with one rate pair by pair.

    Parameters
    ----------
    settings
        Of the search; its trials are curves.
    study, network
        What is trained.
    budgets
        Of the fleet.
    fits
        Which vectors may be in a table; None for all. The smallest one is among them.

    Raises
    ------
    InputError
        If the fleet has budgets that no vector of one rate fits, and its settings don't leave them
        out.
    """

    def __init__(
        self,
        settings: SearchSettings,
        study: Study,
        network: DroppableNetwork,
        budgets: Budgets,
        fits: Fits | None = None,
    ) -> None:
        self._settings, self._fits = settings, fits
        self._macs = MacCost(network.channels)
        self._space = CurveSpace(network.groups, study.granularity)
        self._verification_replicates = study.short_run.verification_replicates
        self.one_rate = (1.0,) * len(network.groups)
        if not settings.whole_fleet:
            # The smallest vector is the same on all curves.
            smallest = self._space.vectors(self.one_rate)[0]
            budgets = budgets.from_least(self._macs.training(smallest) / self._macs.full)
        self.budgets = budgets
        self.table(self.one_rate)

    def begin(self, archive: TrialArchive, ledger: Ledger, company: Company | None = None) -> None:
        """Go on from the trials that there are.

        Parameters
        ----------
        archive
            Keeps finished trials.
        ledger
            Does short runs, and keeps those that are finished.
        company
            Where others work on the search, too.
        """
        self._archive, self._ledger = archive, ledger
        stored = archive.trials()
        # Samplers of Optuna that go on must not draw again what they drew before: hence the count.
        fresh = 0 if self._settings.sampler == DEFAULT else len(stored)
        starts = self._space.starts()
        sampler = make_sampler(
            self._settings.sampler,
            derive_seed(self._settings.seed, "sampler", fresh),
            len(starts) + RANDOM_START,
            Problem(snap=self._space.snapped, noise=_noise),
        )
        self._study = optuna.create_study(directions=DIRECTION, sampler=sampler)
        self._study.add_trials(stored)
        known = [trial.params for trial in stored]
        self._enqueued = deque(params for params in starts if params not in known)
        self._others = NoOthers()
        if company is not None:
            distributions = self._space.distributions
            self._others = Others(company, archive, self._study, distributions, self._name_of)

    def table(self, elasticities: Sequence[float]) -> FleetTable:
        """Return the table of a curve."""
        vectors = self._space.vectors(elasticities)
        if self._fits is not None:
            pairs = zip(vectors, self._fits(np.array(vectors)), strict=True)
            vectors = [vector for vector, fits in pairs if fits]
        costs = (self._macs.training_many(vectors) / self._macs.full).tolist()
        by_cost = dict(zip(reversed(costs), reversed(vectors), strict=True))
        rising = sorted(by_cost)
        return FleetTable(self.budgets, tuple(by_cost[cost] for cost in rising), tuple(rising))

    @property
    def starts(self) -> int:
        """How many curves every fit begins with."""
        return len(self._space.starts())

    @property
    def finished(self) -> int:
        """Finished trials, failed ones too."""
        return len(self._trials(TrialState.COMPLETE, TrialState.FAIL))

    def pilot(self, listen: Listener) -> TablePilot | None:
        """Measure the curves that every fit begins with until it is decided whether they differ.

        None where too few of them could be trained to tell anything.
        """
        starts = self._space.starts()
        curves = [*dict.fromkeys(self._space.elasticities(params) for params in starts)]
        report = None
        for replicates in range(REPLICATES, PILOT_REPLICATES + 1):
            found = self._measured(
                curves,
                STREAM,
                replicates,
                lambda done, total, failed: listen(SearchProgress("pilot", done, total, failed)),
            )
            base, *shaped = found
            trained = [one for one in shaped if not isinstance(one, str)]
            if isinstance(base, str) or not trained:
                return None
            pairs = zip(curves, found, strict=True)
            curves = [curve for curve, one in pairs if not isinstance(one, str)]
            looks = PILOT_REPLICATES - REPLICATES + 1
            report = table_pilot(trained, base, looks, self._ledger.mean_seconds)
            if report.is_decided:
                break
        if report is not None:
            curves_left = self._settings.trials - self.starts
            runs = REPLICATES * curves_left + (FINALISTS + 1) * self._verification_replicates
            left = self._ledger.seconds_for(runs)
            listen(SearchProgress("pilot", 1, 1, pilot=report, seconds_left=left))
        return report

    def run(self, listen: Listener, only_starts: bool = False) -> None:
        """Judge curves until there are enough, or the time is up.

        Raises
        ------
        DistrealError
            If training with one rate fails, which all are compared with.
        """
        started, timeout, most = time.monotonic(), self._settings.timeout, self._settings.runs
        (base,) = self._measured([self.one_rate], STREAM, REPLICATES)
        if isinstance(base, str):
            raise DistrealError(f"training with one rate for all layers failed: {base}")
        listen(self.progress("fit", self.finished, self._settings.trials))
        trials = self._settings.trials
        if only_starts:
            trials = min(trials, self.starts)
        self._others.begin(trials)
        while True:
            before = self.finished
            self._follow()
            goal = max(trials, self._others.goal)
            in_time = timeout is None or time.monotonic() - started <= timeout
            goes_on = in_time and (most is None or REPLICATES * self.finished < most)
            asked = self._asked(goal) if goes_on else []
            curves = [self._space.elasticities(trial.params) for trial in asked]
            for trial, found in zip(asked, self._measured(curves, STREAM, REPLICATES), strict=True):
                self._tell(trial, found, base)
            begins = goes_on and self.finished < goal
            if not asked and not self._others.wait(begins) and not begins:
                break
            if self.finished > before:
                listen(self.progress("fit", self.finished, goal))

    def _follow(self) -> None:
        """Take into account what others have begun and finished."""
        for trial, _ in self._others.follow():
            name = self._name_of(trial.params)
            for own in self._others.waiting_for(name):
                if trial.state == TrialState.FAIL:
                    own.set_user_attr("failure", trial.user_attrs["failure"])
                    told = self._study.tell(own, state=TrialState.FAIL)
                else:
                    own.set_user_attr("gains", trial.user_attrs["gains"])
                    own.set_user_attr("accuracy", trial.user_attrs["accuracy"])
                    told = self._study.tell(own, values=trial.values)
                self._others.end(name, self._archive.add(told))

    def _asked(self, trials: int) -> list[Trial]:
        """Propose curves to judge at once."""
        # Each has several short runs; more curves at once only where more are done at once.
        most, asked = max(1, self._ledger.capacity // REPLICATES), list[Trial]()
        while len(asked) < min(most, trials - self.finished - self._others.pending):
            trial = self._ask()
            name = self._name_of(trial.params)
            if self._others.has_finished(name):  # its runs are at hand, and nobody is to do them
                asked.append(trial)
                continue
            claim = self._others.claim(name, trial, self.finished, trials)
            if claim is Claim.ENOUGH:
                break
            if claim is Claim.OURS:
                asked.append(trial)
        return asked

    def _ask(self) -> Trial:
        if given := self._others.next():
            return given[1]
        while self._enqueued:
            params = self._enqueued.popleft()
            if not self._others.knows(self._name_of(params)):
                self._study.enqueue_trial(params)
                break
        return self._study.ask(self._space.distributions)

    def _name_of(self, params: Mapping[str, float]) -> str:
        return f"{STREAM} {_key(self._space.elasticities(params))}"

    def verified(self, listen: Listener) -> Fitted:
        """Measure the best curves and one rate with fresh seeds."""
        ranked = sorted(
            self._trials(TrialState.COMPLETE), key=lambda trial: (-trial.values[0], trial.number)
        )
        curves = dict.fromkeys(self._space.elasticities(trial.params) for trial in ranked)
        best = [curve for curve in curves if curve != self.one_rate][:FINALISTS]
        base, *found = self._measured(
            [self.one_rate, *best],
            VERIFIED_STREAM,
            self._verification_replicates,
            lambda done, total, failed: listen(self.progress("verification", done, total, failed)),
        )
        if isinstance(base, str):
            raise DistrealError(f"training with one rate for all layers failed: {base}")
        fitted = [
            Fitted(self.table(curve), curve, _paired(one, base), len(best))
            for curve, one in zip(best, found, strict=True)
            if not isinstance(one, str)
        ]
        if not fitted:
            nothing = (0.0,) * self._verification_replicates
            return Fitted(self.table(self.one_rate), self.one_rate, nothing, 1)
        winner = max(fitted, key=lambda one: one.gain)
        if winner.pays:
            return winner
        return replace(winner, table=self.table(self.one_rate), elasticities=self.one_rate)

    def progress(
        self, stage: str, done: int, total: int, failed: int | None = None
    ) -> SearchProgress:
        """How far the fit is."""
        if failed is None:
            failed = len(self._trials(TrialState.FAIL))
        return SearchProgress(stage, done, total, failed)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _measured(
        self,
        curves: Sequence[tuple[float, ...]],
        stream: str,
        replicates: int,
        progress: Progress = lambda done, total, failed: None,
    ) -> list[Convergence | str]:
        """What the runs of each curve's table came to, or why they failed."""
        tasks = {f"{stream} {_key(curve)}": _tasks(self.table(curve), stream) for curve in curves}
        found, failures = self._ledger.measure(tasks, replicates, progress)
        names = [f"{stream} {_key(curve)}" for curve in curves]
        return [found[name] if name in found else failures[name] for name in names]

    def _tell(self, trial: Trial, found: Convergence | str, base: Convergence) -> None:
        if isinstance(found, str):
            trial.set_user_attr("failure", found)
            told = self._study.tell(trial, state=TrialState.FAIL)
        else:
            gains = _paired(found, base)
            trial.set_user_attr("gains", [*gains])
            trial.set_user_attr("accuracy", found.accuracy)
            told = self._study.tell(trial, values=[fmean(gains)])
        self._others.end(self._name_of(told.params), self._archive.add(told))


def _noise(trials: Sequence[FrozenTrial]) -> npt.NDArray[np.float64] | None:
    """Variance of the mean gain of each trial, pooled over these trials."""
    runs: list[list[float]] = [trial.user_attrs["gains"] for trial in trials]
    pooled = pooled_variance(runs, [0.0] * REPLICATES)
    return np.array([pooled / len(one) for one in runs]) if pooled > 0 else None


def _paired(one: Convergence, other: Convergence) -> tuple[float, ...]:
    pairs = zip(one.replicates, other.replicates, strict=True)
    return tuple(mine.loss_gain - yours.loss_gain for mine, yours in pairs)


def _tasks(table: FleetTable, stream: str) -> Callable[[int], TableTask]:
    return lambda number: TableTask(table, stream, (number,))


def _key(curve: Sequence[float]) -> str:
    return "curve " + "/".join(f"{elasticity:.6g}" for elasticity in curve)

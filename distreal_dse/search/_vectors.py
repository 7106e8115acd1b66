"""The ask/tell loop over vectors: propose, race, remember."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.dropout import DroppableNetwork, KeptCounts, uniform_rate
from distreal_dse.errors import DistrealError
from distreal_dse.fronts import hypervolume, non_dominated
from distreal_dse.search._costs import TrialCost
from distreal_dse.search._joining import NoOthers, Others
from distreal_dse.search._memory import Fits
from distreal_dse.search._settings import Listener, SearchProgress, SearchSettings
from distreal_dse.search.executors import Task
from distreal_dse.search.ledger import (
    DIRECTIONS,
    STREAM,
    Claim,
    Company,
    FinishedRun,
    Ledger,
    TrialArchive,
    trial_run,
    vector_of,
)
from distreal_dse.search.proposer import DEFAULT, Problem, SearchSpace, expected_gains, make_sampler
from distreal_dse.search.verdicts import Candidate, PairedGains, common_luck, pooled_variance
from distreal_dse.study import Study
from distreal_dse.support.seeding import derive_seed

# Vectors of the search that are verified at most, and vectors of one rate beside them.
VERIFIED, FAMILY = 20, 17
# Marks trials of earlier versions, in memory.
EARLIER = "of an earlier version"


@dataclass
class Race:
    """A vector whose trials wait for its short runs; several where it was proposed again."""

    counts: KeptCounts
    trials: list[Trial]
    replicates: list[Replicate] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def gains(self) -> list[float]:
        """Of the replicates so far."""
        return [replicate.loss_gain for replicate in self.replicates]


class Explorer:
    """The ask/tell loop over an Optuna study in memory, with a durable copy of what is finished.

    The unit of work is one short run. A trial is told when its race has ended; the runs of a race
    that has not are in the ledger, where the next start of the search finds them.
    """

    def __init__(
        self,
        settings: SearchSettings,
        study: Study,
        network: DroppableNetwork,
        cost: TrialCost,
        archive: TrialArchive,
        ledger: Ledger,
        fits: Fits | None = None,
        company: Company | None = None,
    ) -> None:
        self._settings, self._network, self._cost = settings, network, cost
        self._archive, self._ledger = archive, ledger
        self._replicates = study.short_run.replicates
        self._verification_replicates = study.short_run.verification_replicates
        self._granularity = study.granularity
        self.space = SearchSpace(network.groups, study.max_rate, study.granularity, fits)
        self.gains = PairedGains()
        self._candidates: dict[KeptCounts, Candidate] = {}
        self._convergences: dict[KeptCounts, Convergence] = {}
        self._values: dict[KeptCounts, float] = {}
        self._failures: dict[KeptCounts, str] = {}
        self._races: dict[KeptCounts, Race] = {}
        self._enqueued = deque[dict[str, float]]()
        self._started = time.monotonic()
        self.finished, self.failed = 0, 0
        stored = archive.trials()
        # Samplers of Optuna that go on must not draw again what they drew before: hence the count.
        fresh = 0 if settings.sampler == DEFAULT else len(stored)
        self._sampler = make_sampler(
            settings.sampler,
            derive_seed(settings.seed, "sampler", fresh),
            problem=Problem(
                self._price, self.space.snapped, self._noise, tuple(self.space.distributions)
            ),
        )
        self._study = optuna.create_study(directions=DIRECTIONS, sampler=self._sampler)
        self._stored = [self._as_searched_now(trial) for trial in stored]
        self._study.add_trials(self._stored)
        for trial in stored:
            self._remember(trial, trial.number)
        self._others = NoOthers()
        if company is not None:
            self._others = Others(
                company, archive, self._study, self.space.distributions, self._name_of
            )

    def enqueue(self, vectors: Sequence[dict[str, float]]) -> None:
        """Have vectors tried before any other, unless they were tried already."""
        known = [trial.params for trial in self._stored]
        old = {
            self.space.counts(trial.params)
            for trial in self._stored
            if trial.system_attrs.get(EARLIER)
        }
        for params in vectors:
            if params not in known and self.space.counts(params) not in old:
                self._enqueued.append(params)

    def run(self, trials: int, listen: Listener) -> None:
        """Try vectors until so many trials are finished, or the time is up.

        Raises
        ------
        DistrealError
            If there is no trial that ended well.
        """
        listen(self.progress("search", self.finished, trials))
        self._others.begin(trials)
        while True:
            before = self.finished
            self._follow()
            goal = max(trials, self._others.goal)
            goes_on = self._begins_trials()
            if goes_on:
                self._begin_races(goal)
            if self._ledger.under_way:
                for run in self._ledger.completed():
                    self._take(run)
            elif not self._others.wait(begins := goes_on and self.finished < goal) and not begins:
                break  # else all that were asked for were known, or could not be priced
            if self.finished > before:
                listen(self.progress("search", self.finished, goal))
        if not self._candidates:
            failed = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            if not failed:
                raise DistrealError("no trial was begun: --timeout is too short")
            raise DistrealError(
                f"all {len(failed)} trials failed: expected at least one that trains; the last "
                f"one: {failed[-1].user_attrs['failure']}"
            )

    def goes_on(self) -> bool:
        """Whether neither the time is up nor as many short runs are done as there may be."""
        timeout, most = self._settings.timeout, self._settings.runs
        in_time = timeout is None or time.monotonic() - self._started < timeout
        return in_time and (most is None or self._ledger.trial_runs < most)

    def runs_left(self, trials: int) -> float:
        """How many short runs so many more trials take, about, and the verification after them."""
        runs = max(trials, 0) * (1 + self._replicates) / 2
        if self._settings.runs is not None:
            runs = min(runs, max(self._settings.runs - self._ledger.trial_runs, 0))
        return runs + (VERIFIED + FAMILY) * self._verification_replicates

    def candidates(self, only_uniform: bool = False) -> list[Candidate]:
        """Vectors to verify, by cost: the best of each budget, and one rate to hold against.

        The best by *expected* gains, since the best of noisy values looks better than it is. Of
        one rate there are more than were tried, so that none of the others lies far below the next
        dearer one.
        """
        found: dict[KeptCounts, Candidate] = {}
        for params in self.space.uniform(FAMILY):
            counts = self.space.counts(params)
            if counts in self._failures:
                continue
            if counts in self._candidates:
                found[counts] = self._candidates[counts]
            else:
                rates, price = self.space.rates(params), self._cost.estimate(counts)
                found[counts] = Candidate(rates, counts, price, True, None)
        if not only_uniform:
            tried = list(self._candidates.values())
            means = expected_gains(
                self.space.points(np.array([one.counts for one in tried])),
                np.array([self._values[one.counts] for one in tried]),
                self._noise_of({one.counts: self.gains.of(one.counts) for one in tried}),
            ).tolist()
            best = non_dominated([one.cost for one in tried], means)
            for index in spread([math.log(tried[index].cost) for index in best], VERIFIED):
                found.setdefault(tried[best[index]].counts, tried[best[index]])
        return sorted(found.values(), key=lambda candidate: candidate.cost)

    def progress(
        self, stage: str, done: int, total: int, failed: int | None = None
    ) -> SearchProgress:
        """How far the search is, with the quality of the trials so far."""
        pairs = [
            (candidate.cost, self._values[counts]) for counts, candidate in self._candidates.items()
        ]
        return SearchProgress(
            stage,
            done,
            total,
            self.failed if failed is None else failed,
            len(non_dominated(*zip(*pairs, strict=True))) if pairs else 0,
            hypervolume(pairs, self._cost.reference),
        )

    def _begins_trials(self) -> bool:
        """Whether the search goes on, or the next vector has short runs already, by the pilot."""
        while self._enqueued and self._others.knows(self._name_of(self._enqueued[0])):
            self._enqueued.popleft()
        if self.goes_on():
            return True
        return bool(self._enqueued) and self._ledger.knows(self._name_of(self._enqueued[0]), 0)

    def _name_of(self, params: Mapping[str, float]) -> str:
        return trial_run(self.space.counts(params))

    def _follow(self) -> None:
        """Take into account what others have begun and finished."""
        for trial, number in self._others.follow():
            self._remember(trial, number)
            if trial.params:
                counts = self.space.counts(trial.params)
                for own in self._others.waiting_for(trial_run(counts)):
                    self._finish(Race(counts, [own]), self._failures.get(counts, ""))

    def _ask(self) -> Trial:
        """Get a trial of the sampler, or of those that come before."""
        if given := self._others.next():
            name, trial = given
            self._ledger.recall(name)
            return trial
        if self._enqueued:
            self._study.enqueue_trial(self._enqueued.popleft())
        return self._study.ask(self.space.distributions)

    def _begin_races(self, trials: int) -> None:
        """Propose vectors and begin their first runs, as many as make sense at once."""
        if self._cost.alone and self._ledger.under_way:
            return
        asked: list[Race] = []
        while (
            self._ledger.under_way + len(asked) < self._ledger.capacity
            and self._begun < trials
            and self._begins_trials()
        ):
            trial = self._ask()
            counts = self.space.counts(trial.params)
            if counts in self._races:
                self._races[counts].trials.append(trial)
            elif counts in self._convergences:  # equal kept counts, equal seeds: equal result
                self._finish(Race(counts, [trial]))
            elif counts in self._failures:
                self._finish(Race(counts, [trial]), self._failures[counts])
            else:
                claim = self._others.claim(trial_run(counts), trial, self.finished, trials)
                if claim is Claim.ENOUGH:
                    break
                if claim is Claim.OURS:
                    self._races[counts] = Race(counts, [trial])
                    asked.append(self._races[counts])
        for race in asked:
            if failure := self._cost.price(race.counts):
                self._finish(race, failure)
        for race in asked:
            if race.counts in self._races:
                self._submit(race)

    @property
    def _begun(self) -> int:
        """Trials that are finished, or under way here or elsewhere."""
        own = sum(len(race.trials) for race in self._races.values())
        return self.finished + own + self._others.pending

    def _submit(self, race: Race) -> None:
        number = len(race.replicates)
        task = Task(race.counts, STREAM, (number,))
        self._ledger.submit(trial_run(race.counts), number, task)

    def _take(self, run: FinishedRun) -> None:
        """Take a run into account: the race goes on, or ends."""
        race = self._races[vector_of(run.name)]
        race.seconds += run.seconds
        if run.replicate is None:
            self._finish(race, run.failure)
            return
        race.replicates.append(run.replicate)
        if self._is_at_hand(race) or (self.goes_on() and not self._is_decided(race)):
            self._submit(race)
        else:
            self._finish(race)

    def _is_at_hand(self, race: Race) -> bool:
        """Whether the next replicate is done already, by the pilot, say."""
        number = len(race.replicates)
        name = trial_run(race.counts)
        return number < self._replicates and self._ledger.knows(name, number)

    def _is_decided(self, race: Race) -> bool:
        if self._is_control(race.counts):
            return len(race.replicates) >= self._replicates
        cost = self._cost.cost(race.counts)
        return self.gains.is_decided(race.counts, cost, race.gains, self._replicates)

    def _finish(self, race: Race, failure: str = "") -> None:
        """Tell Optuna, write the database, remember."""
        self._races.pop(race.counts, None)
        for trial in race.trials:
            if failure:
                trial.set_user_attr("failure", failure)
                told = self._study.tell(trial, state=TrialState.FAIL)
            else:
                known = self._convergences.get(race.counts)
                replicates = known.replicates if known else tuple(race.replicates)
                told = self._tell(trial, race.counts, Convergence(replicates), race.seconds)
            number = self._archive.add(told)
            self._remember(told, number)
            self._others.end(trial_run(race.counts), number)

    def _tell(
        self, trial: Trial, counts: KeptCounts, convergence: Convergence, seconds: float
    ) -> FrozenTrial:
        gains = [replicate.loss_gain for replicate in convergence.replicates]
        value = self._values.get(counts, self.gains.value(gains, self._replicates))
        error = convergence.standard_error
        if len(gains) < 2:  # of a single run, by the noise of all vectors; 0 while that is unknown
            variance = self.gains.variance(self._replicates)
            error = math.sqrt(variance) if variance > 0 else 0.0
        for key, attribute in {
            "kept channels": dict(
                zip((group.name for group in self._network.groups), counts, strict=True)
            ),
            **self._cost.trial_attributes(counts),
            "standard error": error,
            "accuracy": convergence.accuracy,
            "loss gains": gains,
            "accuracies": [replicate.accuracy for replicate in convergence.replicates],
            "seconds": seconds,
        }.items():
            trial.set_user_attr(key, attribute)
        return self._study.tell(trial, values=[self._cost.cost(counts), value])

    def _remember(self, trial: FrozenTrial, number: int) -> None:
        """Take a finished trial into account; ``number`` is that in the database."""
        self.finished += 1
        if trial.state == TrialState.FAIL:
            self.failed += 1
            if trial.params:
                counts = self.space.counts(trial.params)
                self._failures[counts] = trial.user_attrs.get("failure", "")
            return
        counts = self.space.counts(trial.params)
        if counts in self._candidates:
            return
        attributes = trial.user_attrs
        self._cost.restore(counts, attributes)
        cost, control = self._cost.cost(counts), self._is_control(counts)
        self._candidates[counts] = Candidate(
            self.space.rates(trial.params), counts, cost, control, number
        )
        self._convergences[counts] = Convergence(
            tuple(map(Replicate, attributes["loss gains"], attributes["accuracies"]))
        )
        self._values[counts] = trial.values[1]
        self.gains.add(counts, cost, attributes["loss gains"], control)

    def _is_control(self, counts: KeptCounts) -> bool:
        return uniform_rate(counts, self._network.full_counts, self._granularity) is not None

    def _as_searched_now(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial of an earlier version under the parameters of today, for the sampler."""
        if trial.params.keys() == self.space.distributions.keys() or not trial.params:
            return trial
        return optuna.trial.create_trial(
            state=trial.state,
            values=trial.values,
            params=self.space.params(self.space.rates(trial.params)),
            distributions=self.space.distributions,
            user_attrs=trial.user_attrs,
            system_attrs={**trial.system_attrs, EARLIER: True},
        )

    def _price(
        self, points: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return self._cost.predict(self.space.counts_at(points))

    def _noise(self, trials: Sequence[FrozenTrial]) -> npt.NDArray[np.float64] | None:
        """Variance of each trial's value; of these trials alone, so that any start draws alike."""
        runs = [trial.user_attrs["loss gains"] for trial in trials]
        counts = [self.space.counts(trial.params) for trial in trials]
        variances = self._noise_of(dict(zip(counts, runs, strict=True)))
        if variances is None:
            return None
        by_counts = dict(zip(dict.fromkeys(counts), variances.tolist(), strict=True))
        return np.array([by_counts[one] for one in counts])

    def _noise_of(
        self, gains: Mapping[KeptCounts, Sequence[float]]
    ) -> npt.NDArray[np.float64] | None:
        """Variance of the mean gain of each vector, pooled over them; None if it is unknown."""
        controls = [own for counts, own in gains.items() if self._is_control(counts)]
        pooled = pooled_variance(gains.values(), common_luck(controls, self._replicates))
        return np.array([pooled / len(own) for own in gains.values()]) if pooled > 0 else None


def spread(rising: Sequence[float], count: int) -> list[int]:
    """Indices of at most so many of some rising numbers, the largest of each of equal intervals."""
    if len(rising) <= count:
        return [*range(len(rising))]
    edges = np.linspace(rising[0], rising[-1], count + 1)[1:]
    edges[-1] = rising[-1]
    return sorted({int(np.searchsorted(rising, edge, side="right")) - 1 for edge in edges})

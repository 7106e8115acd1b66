"""The ask/tell loop: propose vectors, have them evaluated, remember what came of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.dropout import DroppableNetwork, KeptCounts, kept_counts, uniform_rate
from distreal_dse.errors import DistrealError
from distreal_dse.fronts import hypervolume, non_dominated
from distreal_dse.search._archive import DIRECTIONS, TrialArchive
from distreal_dse.search._costs import TrialCost
from distreal_dse.search._evaluation import Outcome, Task
from distreal_dse.search._executors import Executor
from distreal_dse.search._samplers import make_sampler
from distreal_dse.search._settings import Listener, SearchProgress, SearchSettings
from distreal_dse.search._space import SearchSpace
from distreal_dse.search._verification import Candidate
from distreal_dse.seeding import derive_seed
from distreal_dse.study import Study

STREAM = "search"


class Explorer:
    """The ask/tell loop over an Optuna study in memory, with a durable copy of what is finished."""

    def __init__(
        self,
        settings: SearchSettings,
        study: Study,
        network: DroppableNetwork,
        cost: TrialCost,
        archive: TrialArchive,
    ) -> None:
        self._settings, self._network, self._cost = settings, network, cost
        self._archive = archive
        self._replicates = tuple(range(study.short_run.replicates))
        self._space = SearchSpace(network.groups, study.max_rate)
        self._granularity = study.granularity
        stored = archive.trials()
        # A continued search must not draw again what it drew before: hence the trial count.
        seed = derive_seed(settings.seed, "sampler", len(stored))
        self._study = optuna.create_study(
            directions=DIRECTIONS, sampler=make_sampler(settings.sampler, seed)
        )
        self._study.add_trials(stored)
        self._candidates: dict[KeptCounts, Candidate] = {}
        self._convergences: dict[KeptCounts, Convergence] = {}
        self.finished, self.failed = 0, 0
        for trial in stored:
            self._remember(trial, trial.number)
        for params in self._space.uniform():
            if all(params != trial.params for trial in stored):
                self._study.enqueue_trial(params)

    def run(self, executor: Executor, listen: Listener) -> None:
        """Evaluate trials until there are enough, or the time is up."""
        started = time.monotonic()
        timeout = self._settings.timeout
        under_way: dict[int, Trial] = {}
        listen(self.progress("search", self.finished, self._settings.trials))
        while True:
            new: list[tuple[int, KeptCounts]] = []
            room = 0 if self._cost.alone and under_way else executor.capacity
            while (
                len(under_way) < room
                and self.finished + len(under_way) < self._settings.trials
                and (timeout is None or time.monotonic() - started < timeout)
            ):
                trial = self._study.ask(self._space.distributions)
                under_way[trial.number] = trial
                counts = self._counts(trial.params)
                if counts in self._convergences:  # equal kept counts, equal seeds: equal result
                    self._finish(under_way.pop(trial.number), Outcome((), 0.0))
                    listen(self.progress("search", self.finished, self._settings.trials))
                else:
                    new.append((trial.number, counts))
            for number, counts in new:
                if failure := self._cost.price(counts):
                    self._finish(under_way.pop(number), Outcome((), 0.0, failure))
                    listen(self.progress("search", self.finished, self._settings.trials))
            for number, counts in new:
                if number in under_way:
                    executor.submit(number, Task(counts, STREAM, self._replicates))
            if not under_way:
                if new:  # none of which could be priced
                    continue
                break
            for number, outcome in executor.completed():
                self._finish(under_way.pop(number), outcome)
                listen(self.progress("search", self.finished, self._settings.trials))
        if not self._candidates:
            failed = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            if not failed:
                raise DistrealError("no trial was begun: --timeout is too short")
            raise DistrealError(
                f"all {len(failed)} trials failed: expected at least one that trains; the last "
                f"one: {failed[-1].user_attrs['failure']}"
            )

    def candidates(self) -> list[Candidate]:
        """Vectors to verify: the non-dominated ones, and the uniform family to hold against."""
        candidates = list(self._candidates.values())
        gains = [self._convergences[candidate.counts].loss_gain for candidate in candidates]
        best = set(non_dominated([candidate.cost for candidate in candidates], gains))
        return [c for index, c in enumerate(candidates) if index in best or c.uniform]

    def progress(
        self, stage: str, done: int, total: int, failed: int | None = None
    ) -> SearchProgress:
        """How far the search is, with the quality of the trials so far."""
        pairs = [
            (candidate.cost, self._convergences[counts].loss_gain)
            for counts, candidate in self._candidates.items()
        ]
        return SearchProgress(
            stage,
            done,
            total,
            self.failed if failed is None else failed,
            len(non_dominated(*zip(*pairs, strict=True))) if pairs else 0,
            hypervolume(pairs, self._cost.reference),
        )

    def _counts(self, params: Mapping[str, Any]) -> KeptCounts:
        rates = self._space.rates(params)
        return kept_counts(rates, self._network.groups, self._granularity)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        """Tell Optuna, write the database, remember."""
        counts = self._counts(trial.params)
        if outcome.failure:
            trial.set_user_attr("failure", outcome.failure)
            told = self._study.tell(trial, state=TrialState.FAIL)
        else:
            convergence = self._convergences.get(counts) or Convergence(outcome.replicates)
            cost = self._cost.cost(counts)
            for key, value in {
                "kept channels": dict(
                    zip((group.name for group in self._network.groups), counts, strict=True)
                ),
                **self._cost.trial_attributes(counts),
                "standard error": convergence.standard_error,
                "accuracy": convergence.accuracy,
                "loss gains": [replicate.loss_gain for replicate in convergence.replicates],
                "accuracies": [replicate.accuracy for replicate in convergence.replicates],
                "seconds": outcome.seconds,
            }.items():
                trial.set_user_attr(key, value)
            told = self._study.tell(trial, values=[cost, convergence.loss_gain])
        self._remember(told, self._archive.add(told))

    def _remember(self, trial: FrozenTrial, number: int) -> None:
        """Take a finished trial into account; ``number`` is that in the database."""
        self.finished += 1
        if trial.state == TrialState.FAIL:
            self.failed += 1
            return
        rates = self._space.rates(trial.params)
        counts = self._counts(trial.params)
        if counts not in self._candidates:
            widths = self._network.full_counts
            uniform = uniform_rate(counts, widths, self._granularity) is not None
            self._cost.restore(counts, trial.user_attrs)
            cost = self._cost.cost(counts)
            self._candidates[counts] = Candidate(rates, counts, cost, uniform, number)
            attributes = trial.user_attrs
            self._convergences[counts] = Convergence(
                tuple(map(Replicate, attributes["loss gains"], attributes["accuracies"]))
            )

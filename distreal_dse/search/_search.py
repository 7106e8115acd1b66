"""The search: propose vectors, evaluate them, verify the best, store the front."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from distreal_dse.catalogue import StudySource
from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, KeptCounts, kept_counts
from distreal_dse.errors import DistrealError, InputError, StudyError, described
from distreal_dse.fronts import (
    Front,
    FrontGroup,
    check_front_name,
    hypervolume,
    non_dominated,
    open_database,
    save_front,
)
from distreal_dse.preparation import prepare
from distreal_dse.search._archive import DIRECTIONS, TrialArchive
from distreal_dse.search._evaluation import Evaluator, Outcome, Task
from distreal_dse.search._executors import Executor, InlineExecutor, ProcessExecutor
from distreal_dse.search._samplers import make_sampler
from distreal_dse.search._space import SearchSpace
from distreal_dse.search._verification import Candidate, verify
from distreal_dse.seeding import derive_seed
from distreal_dse.study import Study

STREAM = "search"


@dataclass(frozen=True)
class SearchSettings:
    """What the user asks for.

    Parameters
    ----------
    source
        The study.
    name
        Of the search and its front; the study's name where it is left empty.
    trials
        How many finished trials the search ends with, those of earlier starts included.
    timeout
        Seconds after which no new trial is begun; None for no limit.
    workers
        Local processes; 1 evaluates in this process.
    sampler
        One of `SAMPLERS`.
    seed
        Of the network's initialisation, data orders, masks and the sampler.
    device
        ``"cpu"`` or ``"cuda"``.
    """

    source: StudySource
    name: str = ""
    trials: int = 100
    timeout: float | None = None
    workers: int = 1
    sampler: str = "tpe"
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    ``stage`` is ``"warm-up"`` (mini-batches), ``"search"`` (trials) or ``"verification"`` (short
    runs); ``done`` of ``total`` are finished. ``non_dominated`` and ``hypervolume`` describe the
    trials so far.
    """

    stage: str
    done: int
    total: int
    failed: int = 0
    non_dominated: int = 0
    hypervolume: float = 0.0


Listener = Callable[[SearchProgress], None]


def search(
    settings: SearchSettings, storage: str, listen: Listener = lambda progress: None
) -> Front:
    """Find the Pareto front of a study and store it; continue a search that was begun.

    Finished trials and verification runs are in the database when ``listen`` hears of them, and
    stay there whatever happens: the same call goes on from there.

    Parameters
    ----------
    settings
        What to search, and how.
    storage
        URL of the database.
    listen
        Hears of every step.

    Returns
    -------
    Front
        As stored, with its version.

    Raises
    ------
    InputError
        If a setting, the study, its model or its data can't be used.
    StorageError
        If the database can't be written.
    DistrealError
        If every trial fails.
    """
    _check(settings)
    study = settings.source.load()
    name = settings.name or study.name
    check_front_name(name)
    engine = open_database(storage)
    network, data = prepare(study, settings.seed, settings.device)
    cost = MacCost(network.channels)
    comparable = _comparable(settings, study, network)
    attributes = {
        "study": f"{study.name}: {study.description}",
        "reference cost (training MACs)": cost.full,
        "channel groups": {group.name: group.channels for group in network.groups},
        "read": "value 0: training MACs per sample; value 1: fall of the validation loss of the "
        "full network in a short run, mean over replicates; a rate is level + offset, clipped",
    }
    with closing(TrialArchive(storage, name, comparable, attributes)) as archive:
        explorer = _Explorer(settings, study, network, cost, archive)
        executor: Executor
        if settings.workers > 1:
            executor = ProcessExecutor(
                settings.workers, settings.source, settings.seed, settings.device
            )
        else:
            evaluator = Evaluator(
                study,
                network,
                data,
                settings.seed,
                settings.device,
                lambda done, total: listen(SearchProgress("warm-up", done, total)),
            )
            executor = InlineExecutor(evaluator)
        with closing(executor):
            explorer.run(executor, listen)
            verified = verify(
                explorer.candidates(),
                study.short_run.verification_replicates,
                executor,
                engine,
                archive.key,
                settings.seed,
                lambda done, total: listen(explorer.progress("verification", done, total)),
            )
    best = non_dominated([p.cost for p in verified], [p.convergence for p in verified])
    front = Front(
        name=name,
        study=study.name,
        model_fingerprint=network.channels.fingerprint,
        groups=tuple(FrontGroup(group.name, group.channels) for group in network.groups),
        cost_metric="macs",
        device={},
        reference_cost=cost.full,
        settings={
            **comparable,
            "trials": explorer.finished,
            # What the front is held against, dominated or not.
            "uniform family": [
                {
                    "rate": point.rates[0],
                    "cost": point.cost,
                    "convergence": point.convergence,
                    "standard_error": point.standard_error,
                }
                for point in sorted(verified, key=lambda point: point.cost)
                if point.uniform
            ],
            "versions": _versions(),
        },
        points=tuple(verified[index] for index in best),
    )
    return save_front(engine, front)


class _Explorer:
    """The ask/tell loop over an Optuna study in memory, with a durable copy of what is finished."""

    def __init__(
        self,
        settings: SearchSettings,
        study: Study,
        network: DroppableNetwork,
        cost: MacCost,
        archive: TrialArchive,
    ) -> None:
        self._settings, self._network, self._cost = settings, network, cost
        self._archive = archive
        self._replicates = tuple(range(study.short_run.replicates))
        self._space = SearchSpace(network.groups, study.max_rate)
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
            while (
                len(under_way) < executor.capacity
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
                    executor.submit(trial.number, Task(counts, STREAM, self._replicates))
            if not under_way:
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

    def progress(self, stage: str, done: int, total: int) -> SearchProgress:
        """How far the search is, with the quality of the trials so far."""
        pairs = [
            (candidate.cost, self._convergences[counts].loss_gain)
            for counts, candidate in self._candidates.items()
        ]
        return SearchProgress(
            stage,
            done,
            total,
            self.failed,
            len(non_dominated(*zip(*pairs, strict=True))) if pairs else 0,
            hypervolume(pairs, self._cost.full),
        )

    def _counts(self, params: Mapping[str, Any]) -> KeptCounts:
        return kept_counts(self._space.rates(params), self._network.groups)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        """Tell Optuna, write the database, remember."""
        counts = self._counts(trial.params)
        if outcome.failure:
            trial.set_user_attr("failure", outcome.failure)
            told = self._study.tell(trial, state=TrialState.FAIL)
        else:
            convergence = self._convergences.get(counts) or Convergence(outcome.replicates)
            cost = self._cost.training(counts)
            for key, value in {
                "kept channels": dict(
                    zip((group.name for group in self._network.groups), counts, strict=True)
                ),
                "cost ratio": cost / self._cost.full,
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
            uniform = self._space.is_uniform(trial.params)
            cost = self._cost.training(counts)
            self._candidates[counts] = Candidate(rates, counts, cost, uniform, number)
            attributes = trial.user_attrs
            self._convergences[counts] = Convergence(
                tuple(map(Replicate, attributes["loss gains"], attributes["accuracies"]))
            )


def _check(settings: SearchSettings) -> None:
    for what, value in (("--trials", settings.trials), ("--workers", settings.workers)):
        if value < 1:
            raise InputError(f"{what} is {value}: expected 1 or more")
    if settings.timeout is not None and not settings.timeout > 0:
        raise InputError(f"--timeout is {settings.timeout}: expected more than 0 seconds")
    make_sampler(settings.sampler, 0)


def _comparable(
    settings: SearchSettings, study: Study, network: DroppableNetwork
) -> dict[str, Any]:
    """What has to be the same for trials to be comparable; all of it fits into JSON."""
    try:
        optimizer = study.optimizer(network.module.parameters())
    except Exception as error:  # the user's function may raise anything
        raise StudyError(f"optimizer() of study {study.name} fails: {described(error)}") from error
    return {
        "study": study.name,
        # Where the data lies does not matter, which data it is does.
        "options": {name: value for name, value in settings.source.options if name != "data"},
        "seed": settings.seed,
        "sampler": settings.sampler,
        "device": settings.device,
        "model": network.channels.fingerprint,
        "scaling": network.scaling,
        "batch size": study.batch_size,
        "max rate": study.max_rate,
        "short run": asdict(study.short_run),
        "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
    }


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("distreal-dse", "optuna", "torch")}
    return {"python": platform.python_version(), **packages}

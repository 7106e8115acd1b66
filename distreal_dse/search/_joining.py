"""Trials that others have begun or finished, in the Optuna study that this process has in memory.

A sampler has to know them: finished ones by their values, those under way by their parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from distreal_dse.search.ledger import POLL, Claim, Company, TrialArchive


class NoOthers:
    """The others of a search that one process carries out alone: there are none."""

    pending: int = 0
    """Trials that others have begun, and our own that wait for the same vectors."""

    def begin(self, trials: int) -> None:
        """Tell others that this process proposes vectors, up to so many trials."""

    @property
    def goal(self) -> int:
        """The most trials that others who propose vectors want."""
        return 0

    def follow(self) -> list[tuple[FrozenTrial, int]]:
        """Return trials that others finished since, with their numbers in the database."""
        return []

    def knows(self, name: str) -> bool:
        """Whether others have begun or finished what is called so."""
        return False

    def has_finished(self, name: str) -> bool:
        """Whether what is called so was finished before, here or by others."""
        return False

    def next(self) -> tuple[str, Trial] | None:
        """Return a trial that was proposed before and is to be begun here now, with its name."""
        return None

    def claim(self, name: str, trial: Trial, finished: int, goal: int) -> Claim:
        """Begin a trial. One that is not ours is remembered: as another's, or for `next`."""
        return Claim.OURS

    def waiting_for(self, name: str) -> list[Trial]:
        """Return, once, our trials that wait for what another has finished."""
        return []

    def end(self, name: str, number: int) -> None:
        """Note that a trial was stored, under which number."""

    def wait(self, begins: bool) -> bool:
        """Wait a moment if others may leave something to do; returns whether they may.

        Parameters
        ----------
        begins
            Whether this process would begin more trials, if it could.
        """
        return False


class Others(NoOthers):
    """The others of a search that many processes work on.

    Parameters
    ----------
    company
        What the database knows of them.
    archive
        Has the finished trials.
    study
        The study in memory; the trials of the archive so far are in it.
    distributions
        Of a trial's parameters.
    name_of
        From a trial's parameters to what its claim is called.
    """

    def __init__(
        self,
        company: Company,
        archive: TrialArchive,
        study: optuna.Study,
        distributions: dict[str, BaseDistribution],
        name_of: Callable[[Mapping[str, Any]], str],
    ) -> None:
        self._company, self._archive, self._study = company, archive, study
        self._distributions, self._name_of = distributions, name_of
        stored = archive.trials()
        self._newest = max((trial.number for trial in stored), default=-1)
        self._finished = {name_of(one.params): one.number for one in stored if one.params}
        self._own = set[int]()  # numbers of trials that were stored here
        self._theirs: dict[str, Trial] = {}  # under way, of others or of nobody any more
        self._lost: dict[str, dict[str, Any]] = {}  # of nobody any more
        self._doubles: dict[str, list[Trial]] = {}  # ours, of vectors that others have begun
        self._spare: list[Trial] = []  # asked for when there were enough
        self._goal, self._others_search = 0, False
        self._told: tuple[bool, int] | None = None
        self._trials = 0

    @property
    def pending(self) -> int:  # type: ignore[override]
        """See `NoOthers`; trials whose driver is gone are not among them."""
        return len(self._theirs.keys() - self._lost.keys()) + sum(map(len, self._doubles.values()))

    def begin(self, trials: int) -> None:
        """See `NoOthers`."""
        self._trials = trials
        self._tell(True)

    @property
    def goal(self) -> int:
        """See `NoOthers`."""
        return self._goal

    def follow(self) -> list[tuple[FrozenTrial, int]]:
        """See `NoOthers`."""
        # Claims before trials: what ends in between is then known as finished.
        begun = self._company.look()
        self._goal, self._others_search = begun.goal, begun.searching
        news = []
        for trial in self._archive.trials_after(self._newest):
            self._newest = trial.number
            if trial.number in self._own:
                continue
            news.append((self._heard(trial), trial.number))
        for name, params in {**begun.trials, **begun.lost}.items():
            if name not in self._finished and name not in self._theirs:
                self._study.enqueue_trial(params)
                self._theirs[name] = self._study.ask(self._distributions)
        self._lost = {}
        for name, params in begun.lost.items():
            if name in self._finished:  # its driver was lost just behind storing it
                self._company.end(name, self._finished[name])
            else:
                self._lost[name] = params
        return news

    def _heard(self, trial: FrozenTrial) -> FrozenTrial:
        """Put what another finished into the study in memory; return it as that has it."""
        name = self._name_of(trial.params)
        self._finished[name] = trial.number
        own = self._theirs.pop(name, None)
        if own is None:
            self._study.add_trial(trial)
            return trial
        for key, value in trial.user_attrs.items():
            own.set_user_attr(key, value)
        if trial.state == TrialState.FAIL:
            return self._study.tell(own, state=TrialState.FAIL)
        return self._study.tell(own, values=trial.values)

    def knows(self, name: str) -> bool:
        """See `NoOthers`."""
        return name in self._finished or name in self._theirs

    def has_finished(self, name: str) -> bool:
        """See `NoOthers`."""
        return name in self._finished

    def next(self) -> tuple[str, Trial] | None:
        """See `NoOthers`: one whose driver was lost, else one that there were enough without."""
        while self._lost:
            name, params = self._lost.popitem()
            if self._company.claim(name, params, 0, self._newest, 0) is Claim.OURS:
                return name, self._theirs.pop(name)
        while self._spare:
            trial = self._spare.pop()
            name = self._name_of(trial.params)
            if not self.knows(name):
                return name, trial
        return None

    def claim(self, name: str, trial: Trial, finished: int, goal: int) -> Claim:
        """See `NoOthers`."""
        claim = self._company.claim(name, trial.params, finished, self._newest, goal)
        if claim is Claim.ENOUGH:
            self._spare.append(trial)
        elif claim is Claim.TAKEN and name in self._theirs:
            self._doubles.setdefault(name, []).append(trial)
        elif claim is Claim.TAKEN:
            self._theirs[name] = trial
        return claim

    def waiting_for(self, name: str) -> list[Trial]:
        """See `NoOthers`."""
        return self._doubles.pop(name, [])

    def end(self, name: str, number: int) -> None:
        """See `NoOthers`."""
        self._own.add(number)
        if name not in self._finished:
            self._finished[name] = number
            self._company.end(name, number)

    def wait(self, begins: bool) -> bool:
        """See `NoOthers`."""
        self._tell(begins)
        if not self.pending and (begins or not self._others_search):
            return False
        time.sleep(POLL)
        return True

    def _tell(self, searching: bool) -> None:
        if self._told != (searching, self._trials):
            self._told = searching, self._trials
            self._company.propose(searching, self._trials)

"""A sampler that knows what vectors cost, and models only what has to be measured: the gain.

Costs are exact and instant, so that nothing about them has to be learned: a Gaussian process models
the gain alone, thousands of candidates are priced, and the one is proposed that is expected to
enlarge the dominated area (over the *logarithm* of the cost) most. With one known objective, that
expectation has a closed form.

References
----------
Emmerich, Giannakoglou, Naujoks: Single- and multiobjective evolutionary optimization assisted by
Gaussian random field metamodels, 2006 (expected hypervolume improvement).

Ginsbourger, Le Riche, Carraro: Kriging is well-suited to parallelize optimization, 2010, section
3.2 (trials that are under way count with the values that are expected of them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from distreal_dse.search.proposer._gain_model import GainModel, fitted_kernel
from distreal_dse.search.proposer._improvement import (
    expected_hypervolume_improvement,
    expected_improvement,
)
from distreal_dse.search.proposer._unit_cube import Params, UnitCube

Floats = npt.NDArray[np.float64]

# Candidates of one proposal: drawn at random, drawn around the best so far, and drawn around the
# best of those.
RANDOM, NEAR_BEST, REFINED = 512, 512, 256
# How far a candidate lies from what it is drawn around, as standard deviations per dimension of the
# unit cube, each drawn from this range; and how many of the dimensions move.
STEPS, SMALL_STEPS = (0.02, 0.3), (0.01, 0.1)
MOVED = 0.4
# How many of the best candidates are refined.
TOP = 8
# Hyperparameters are fitted again when there are so many times as many values.
GROWTH = 1.15


@dataclass(frozen=True)
class Problem:
    """What a sampler may know of a problem beside its trials.

    Parameters
    ----------
    price
        From points, [n, dimensions], to the mean and the standard deviation of the logarithm of
        their costs, [n] each; the deviation is 0 where costs are exact. The cost is the first value
        of a trial, above 0, and minimised. None for a single objective.
    snap
        From points to those that stand for them where several mean the same, [n, dimensions].
    noise
        From finished trials to the variance of the noise of their last value, [n]; None has one
        variance estimated for all.

    names
        Of the parameters, in the order of a point's dimensions; empty for alphabetical order.

    Points lie in the unit cube, evenly in the logarithm where a distribution is logarithmic.
    """

    price: Callable[[Floats], tuple[Floats, Floats]] | None = None
    snap: Callable[[Floats], Floats] = lambda points: points
    noise: Callable[[Sequence[FrozenTrial]], Floats | None] = lambda trials: None
    names: tuple[str, ...] = ()


class CostAwareSampler(BaseSampler):
    """Proposes by closed-form expected hypervolume improvement over the logarithm of a known cost.

    With a single objective, by expected improvement. A proposal is a function of the seed, the
    number of the trial, the trials that have ended and those that are under way: a search that is
    gone on with draws what it would have drawn. What fails counts with the worst gain so far.

    Parameters
    ----------
    seed
        Of random draws.
    start
        Trials before a model is fitted, those that were enqueued included; until then parameters
        are drawn at random.
    problem
        What is known of the problem.

    Raises
    ------
    ValueError
        From `sample_relative`, if there are several objectives and no price.
    """

    def __init__(self, seed: int = 0, start: int = 10, problem: Problem | None = None) -> None:
        self._seed, self._start = seed, start
        self._problem = problem or Problem()
        self._independent = RandomSampler(seed=seed)
        self._fitted: dict[int, Any] = {}

    def reseed_rng(self) -> None:
        """Nothing: draws depend on the trial's number."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Parameters that all finished trials have, if more than one value is possible."""
        space = intersection_search_space(
            study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        )
        # Optuna sorts by name; points have an order of their own.
        names = self._problem.names or [name for name, one in space.items() if not one.single()]
        return {name: space[name] for name in names} if space.keys() >= set(names) else {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter at random that not all finished trials have."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """Propose the parameters of a trial."""
        if not search_space:
            return {}
        if self._problem.names:
            search_space = {name: search_space[name] for name in self._problem.names}
        if len(study.directions) > 1 and self._problem.price is None:
            raise ValueError("CostAwareSampler: expected a price for the first of two objectives")
        cube = UnitCube(search_space)
        random = np.random.default_rng([self._seed, trial.number])
        finished, under_way, failed = self._known(study, search_space, cube)
        known = set(map(_key, self._snapped(cube.points([*finished, *under_way, *failed]))))
        if len(finished) < max(self._start, 2):
            points = self._snapped(random.random((RANDOM, cube.dimensions)))
            return cube.params(_first_new(points, known))
        score = self._score(study, cube, finished, under_way, failed)
        best = score.best_so_far()
        drawn = [random.random((RANDOM, cube.dimensions)), _moved(best, NEAR_BEST, STEPS, random)]
        points = self._snapped(np.vstack(drawn))
        scores = score(points)
        top = points[np.argsort(-scores)[:TOP]]
        refined = self._snapped(_moved(top, REFINED, SMALL_STEPS, random))
        points, scores = np.vstack([points, refined]), np.concatenate([scores, score(refined)])
        return cube.params(_first_new(points[np.argsort(-scores, kind="stable")], known))

    def _snapped(self, points: Floats) -> Floats:
        return self._problem.snap(points)

    def _known(
        self, study: Study, search_space: Mapping[str, BaseDistribution], cube: UnitCube
    ) -> tuple[list[FrozenTrial], list[FrozenTrial], list[FrozenTrial]]:
        """Finished trials with finite values, those under way, and failed ones, in the space."""
        states = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL)
        trials = [
            trial
            for trial in study.get_trials(deepcopy=False, states=states)
            if all(
                name in trial.params and one._contains(one.to_internal_repr(trial.params[name]))
                for name, one in search_space.items()
            )
        ]
        complete = [
            trial
            for trial in trials
            if trial.state == TrialState.COMPLETE and all(map(math.isfinite, trial.values))
        ]
        # The same point with the same values tells nothing new, and cost time to model.
        distinct: dict[tuple[Any, ...], FrozenTrial] = {}
        for trial, point in zip(complete, self._snapped(cube.points(complete)), strict=True):
            distinct.setdefault((_key(point), *trial.values), trial)
        finished = [*distinct.values()]
        under_way = [trial for trial in trials if trial.state == TrialState.RUNNING]
        return finished, under_way, [one for one in trials if one.state == TrialState.FAIL]

    def _score(
        self,
        study: Study,
        cube: UnitCube,
        finished: Sequence[FrozenTrial],
        under_way: Sequence[FrozenTrial],
        failed: Sequence[FrozenTrial],
    ) -> _Score:
        sign = 1.0 if study.directions[-1] == StudyDirection.MAXIMIZE else -1.0
        gains = sign * np.array([trial.values[-1] for trial in finished])
        tried = self._snapped(cube.points(finished))
        kernel = self._kernel(tried, gains, finished)
        model = GainModel(tried, gains, self._problem.noise(finished), kernel)
        pending = self._snapped(cube.points(under_way))
        if len(pending):
            model = model.given(pending, model(pending)[0])
        if failed:  # their neighbours are likely to fail, too
            lost = self._snapped(cube.points(failed))
            model = model.given(lost, np.full(len(lost), gains.min()))
        price, costs = self._problem.price, None
        if price is not None:
            costs = np.log([trial.values[0] for trial in finished])
        return _Score(model, tried, costs, price)

    def _kernel(self, points: Floats, gains: Floats, trials: Sequence[FrozenTrial]) -> Any:
        """Hyperparameters of so many of the first trials as the schedule of fits says."""
        size = float(max(self._start, 2))
        while size * GROWTH <= len(points):
            size *= GROWTH
        first = int(size)
        if first not in self._fitted:
            noise = self._problem.noise(trials[:first])
            self._fitted = {first: fitted_kernel(points[:first], gains[:first], noise)}
        return self._fitted[first]


def _key(point: Floats) -> tuple[float, ...]:
    return tuple(point.round(9).tolist())


def _first_new(points: Floats, known: Set[tuple[float, ...]]) -> Floats:
    """The first point that is not known; the first of all where a small space was tried whole."""
    new = (point for point in points if _key(point) not in known)
    return next(new, points[0])


def _moved(
    around: Floats, count: int, steps: tuple[float, float], random: np.random.Generator
) -> Floats:
    """Points near others: some of their dimensions moved."""
    centres = around[random.integers(len(around), size=count)]
    smallest, largest = steps
    size = smallest * (largest / smallest) ** random.random((count, 1))
    moves = random.random(centres.shape) < MOVED
    moves[np.arange(count), random.integers(centres.shape[1], size=count)] = True
    moved: Floats = np.clip(centres + moves * size * random.standard_normal(centres.shape), 0, 1)
    return moved


class _Score:
    """What points are expected to add to the best so far.

    Parameters
    ----------
    gain
        The model.
    tried
        Points that were measured.
    costs
        Logarithms of what ``tried`` cost; None for a single objective.
    price
        See `Problem`.
    """

    def __init__(
        self,
        gain: GainModel,
        tried: Floats,
        costs: Floats | None,
        price: Callable[[Floats], tuple[Floats, Floats]] | None,
    ) -> None:
        self._gain, self._price, self._costs = gain, price, costs
        self._tried = tried
        # Expected gains: the best of noisy values looks better than it is.
        self._means = gain(tried)[0]
        if costs is None:
            self._front = np.array([int(self._means.argmax())])
        else:
            self._front = rising(costs, self._means)

    def best_so_far(self) -> Floats:
        """Points of the front by expected gains, [n, dimensions]."""
        best: Floats = self._tried[self._front]
        return best

    def __call__(self, points: Floats) -> Floats:
        """Return expected improvements, [n]."""
        mean, deviation = self._gain(points)
        if self._price is None or self._costs is None:
            return expected_improvement(mean, deviation, self._means[self._front])[:, 0]
        costs, errors = self._price(points)
        starts, levels = self._costs[self._front], self._means[self._front]
        return expected_hypervolume_improvement(
            mean, deviation, costs, errors, starts, levels, float(self._costs.max())
        )


def rising(costs: Floats, gains: Floats) -> npt.NDArray[np.intp]:
    """Return which points gain more than all that cost no more, by rising cost, [m].

    Parameters
    ----------
    costs, gains
        [n] each, n ≥ 1.
    """
    order = np.lexsort((-gains, costs))
    best = np.maximum.accumulate(gains[order])
    front: npt.NDArray[np.intp] = order[np.concatenate([[True], best[1:] > best[:-1]])]
    return front

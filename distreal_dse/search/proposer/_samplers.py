"""Samplers by name, always explicit and seeded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import SBXCrossover

from distreal_dse.search.proposer._cost_aware import CostAwareSampler, Problem
from distreal_dse.search.proposer._space import UNIFORM_VECTORS
from distreal_dse.support.specs import unknown_name

# Trials drawn at random before a model is fitted: as many as Optuna takes by itself. It counts
# all that are complete, and the uniform ones, which lie on a line, tell a model little.
RANDOM_START = 10
START = UNIFORM_VECTORS + RANDOM_START

DEFAULT = "cost-aware"
SAMPLERS: Mapping[str, Callable[[int, int, Problem], BaseSampler]] = {
    DEFAULT: CostAwareSampler,
    "gp": lambda seed, start, _: GPSampler(n_startup_trials=start, seed=seed),
    "nsga2": lambda seed, *_: NSGAIISampler(
        population_size=20, crossover=SBXCrossover(), seed=seed
    ),
    "random": lambda seed, *_: RandomSampler(seed=seed),
    "tpe": lambda seed, start, _: TPESampler(n_startup_trials=start, multivariate=True, seed=seed),
}


def make_sampler(
    name: str, seed: int, start: int = START, problem: Problem | None = None
) -> BaseSampler:
    """Make a sampler.

    Parameters
    ----------
    name
        One of `SAMPLERS`.
    seed
        Of its draws.
    start
        Trials before a model is fitted, those that are enqueued included.
    problem
        What is known of it beside the trials; only the cost-aware sampler makes use of it.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, name, SAMPLERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[name](seed % 2**32, start, problem or Problem())

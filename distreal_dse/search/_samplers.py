"""Samplers by name, always explicit and seeded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import SBXCrossover

from distreal_dse.search._space import UNIFORM_RATES
from distreal_dse.specs import unknown_name

# Trials drawn at random before a model is fitted: as many as Optuna takes by itself. It counts
# all that are complete, and the uniform ones, which lie on a line, tell a model little.
RANDOM_START = 10
START = UNIFORM_RATES + RANDOM_START

SAMPLERS: Mapping[str, Callable[[int, int], BaseSampler]] = {
    "gp": lambda seed, start: GPSampler(n_startup_trials=start, seed=seed),
    "nsga2": lambda seed, _: NSGAIISampler(population_size=20, crossover=SBXCrossover(), seed=seed),
    "random": lambda seed, _: RandomSampler(seed=seed),
    "tpe": lambda seed, start: TPESampler(n_startup_trials=start, multivariate=True, seed=seed),
}


def make_sampler(name: str, seed: int, start: int = START) -> BaseSampler:
    """Make a sampler.

    Parameters
    ----------
    name
        One of `SAMPLERS`.
    seed
        Of its draws.
    start
        Trials before a model is fitted, those that are enqueued included.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, name, SAMPLERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[name](seed % 2**32, start)

"""Samplers by name, always explicit and seeded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import SBXCrossover

from distreal_dse.errors import InputError

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "gp": lambda seed: GPSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(population_size=20, crossover=SBXCrossover(), seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(multivariate=True, seed=seed),
}


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Make a sampler.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in SAMPLERS:
        raise InputError(f"sampler '{name}' is not known: expected {', '.join(SAMPLERS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[name](seed % 2**32)

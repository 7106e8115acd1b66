"""Proposals by BoTorch, for `benchmarks.search --samplers qlognehvi` (``pip install botorch``).

The same candidates, prices, noise and start as those of `CostAwareSampler`; what differs is the
model of the gain and what candidates are ranked by: a list of a Gaussian process and the known
cost, and noisy expected hypervolume improvement by samples of it.

References
----------
Ament, Daulton, Eriksson, Balandat, Bakshy: Unexpected improvements to expected improvement for
Bayesian optimization, NeurIPS 2023 (qLogNEHVI).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from botorch.acquisition.multi_objective.logei import (
    qLogNoisyExpectedHypervolumeImprovement,
)
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.model import ModelList
from botorch.models.transforms import Standardize
from botorch.sampling import ListSampler, SobolQMCNormalSampler
from botorch.sampling.index_sampler import IndexSampler
from gpytorch.mlls import ExactMarginalLogLikelihood
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from torch import Tensor

from distreal_dse.search.proposer import CostAwareSampler
from distreal_dse.search.proposer._cost_aware import rising
from distreal_dse.search.proposer._unit_cube import UnitCube

Floats = npt.NDArray[np.float64]

SAMPLES = 64  # of the gains, quasi-random
AT_ONCE = 256  # candidates, for the memory


class QLogNEHVISampler(CostAwareSampler):
    """`CostAwareSampler` with candidates ranked by BoTorch; for MACs, whose costs are exact."""

    def _score(
        self,
        study: Study,
        cube: UnitCube,
        finished: Sequence[FrozenTrial],
        under_way: Sequence[FrozenTrial],
        failed: Sequence[FrozenTrial],
    ) -> _Ranking:
        price = self._problem.price
        assert price is not None and study.directions[-1] == StudyDirection.MAXIMIZE
        return _Ranking(
            self._snapped(cube.points(finished)),
            np.array([trial.values[-1] for trial in finished]),
            self._problem.noise(finished),
            self._snapped(cube.points(under_way)),
            price,
        )


class _Ranking:
    def __init__(
        self,
        tried: Floats,
        gains: Floats,
        noise: Floats | None,
        pending: Floats,
        price: Callable[[Floats], tuple[Floats, Floats]],
    ) -> None:
        points = torch.from_numpy(tried)
        variances = None if noise is None else torch.from_numpy(np.asarray(noise))[:, None]
        gain = SingleTaskGP(
            points, torch.from_numpy(gains)[:, None], variances, outcome_transform=Standardize(1)
        )
        fit_gpytorch_mll(ExactMarginalLogLikelihood(gain.likelihood, gain))

        def cheapness(at: Tensor) -> Tensor:
            logs = price(at.reshape(-1, at.shape[-1]).numpy())[0]
            return -torch.from_numpy(logs).reshape(*at.shape[:-1], 1)

        with torch.no_grad():
            means = gain.posterior(points).mean[:, 0].numpy()
        costs = price(tried)[0]
        self._best: Floats = tried[rising(costs, means)]
        self._value = qLogNoisyExpectedHypervolumeImprovement(
            ModelList(gain, GenericDeterministicModel(cheapness, num_outputs=1)),
            ref_point=[float(means.min()), -float(costs.max())],
            X_baseline=points,
            X_pending=torch.from_numpy(pending) if len(pending) else None,
            sampler=ListSampler(
                SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=0),
                IndexSampler(torch.Size([SAMPLES]), seed=0),
            ),
            prune_baseline=True,
        )

    def best_so_far(self) -> Floats:
        """Points of the front by expected gains, [n, dimensions]."""
        return self._best

    def __call__(self, points: Floats) -> Floats:
        """Return the logarithm of the expected improvement, [n]."""
        with torch.no_grad():
            parts = torch.from_numpy(points)[:, None].split(AT_ONCE)
            return np.asarray(torch.cat([self._value(part) for part in parts]).numpy())

"""Searches in which nothing is to be found: gains follow the cost alone, with recorded noise."""

from __future__ import annotations

import math
import zlib
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from distreal_dse.convergence import Replicate, ShortRuns
from distreal_dse.cost import MacCost
from distreal_dse.search import Executor, Outcome, SearchSpace, Task
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare

VECTORS, REPLICATES = 32, 8


@dataclass(frozen=True)
class Recorded:
    """What real short runs gained: ``gains`` of shape [vectors, replicates], and their costs."""

    costs: npt.NDArray[np.float64]
    gains: npt.NDArray[np.float64]

    @property
    def residuals(self) -> npt.NDArray[np.float64]:
        """Noise: what is left once each vector's mean and each replicate's luck are taken away."""
        own = self.gains - self.gains.mean(1, keepdims=True)
        left = own - own.mean(0)
        rows, columns = left.shape
        # As wide as they were before the means were taken away.
        widened: npt.NDArray[np.float64] = left * math.sqrt(
            rows * columns / ((rows - 1) * (columns - 1))
        )
        return widened

    @property
    def luck(self) -> npt.NDArray[np.float64]:
        """What each replicate gained more than the others, whatever the vector."""
        means: npt.NDArray[np.float64] = self.gains.mean(0) - self.gains.mean()
        return means


def record(study_name: str) -> Recorded:
    """Train short runs of one-rate vectors and of random ones."""
    torch.set_num_threads(1)
    study = StudySource(study_name).load()
    network, data = prepare(study, 0)
    runs, macs = ShortRuns(study, data, network, 0), MacCost(network.channels)
    space = SearchSpace(network.groups, study.max_rate, study.granularity)
    points = np.random.default_rng(0).random((VECTORS - 9, len(network.groups)))
    vectors = [space.counts(params) for params in space.uniform()]
    vectors += [tuple(row) for row in space.counts_at(points).tolist()]
    gains = [[runs.run(one, "noise", r).loss_gain for r in range(REPLICATES)] for one in vectors]
    return Recorded(np.array([macs.training(one) for one in vectors]), np.array(gains))


class MadeUpExecutor(Executor):
    """Gives gains that depend on the cost alone, with recorded luck and noise drawn anew.

    Parameters
    ----------
    recorded
        Real short runs.
    macs
        Prices vectors.
    seed
        Of the draws.
    """

    def __init__(self, recorded: Recorded, macs: MacCost, seed: int) -> None:
        self._recorded, self._macs, self._seed = recorded, macs, seed
        logs, means = np.log(recorded.costs), recorded.gains.mean(1)
        self._curve = np.polynomial.Polynomial.fit(logs, means, 2)
        self._waiting: deque[tuple[int, Task]] = deque()

    def snapshot_losses(self) -> list[float]:
        """Always the same."""
        return [1.0]

    def submit(self, key: int, task: object) -> None:
        """Remember the task."""
        assert isinstance(task, Task)
        self._waiting.append((key, task))

    def completed(self) -> list[tuple[int, Outcome]]:
        """Make up the oldest one."""
        key, task = self._waiting.popleft()
        (number,) = task.replicates
        made = Replicate(self._gain(task.counts, task.stream, number), 0.5)
        return [(key, Outcome((made,), 0.01))]

    def _gain(self, counts: tuple[int, ...], stream: str, number: int) -> float:
        common = np.random.default_rng([self._seed, zlib.crc32(stream.encode()), number])
        own = np.random.default_rng([self._seed, zlib.crc32(stream.encode()), number, *counts])
        luck = common.choice(self._recorded.luck)
        noise = own.choice(self._recorded.residuals.ravel())
        return float(self._curve(math.log(self._macs.training(counts))) + luck + noise)

    def close(self) -> None:
        """Forget what is waiting."""
        self._waiting.clear()

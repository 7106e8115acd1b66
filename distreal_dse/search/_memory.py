"""What a training step of the vectors of a search takes of memory, and how much it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from distreal_dse.cost import MemoryCost
from distreal_dse.data.batches import fetch
from distreal_dse.dropout import DroppableNetwork, KeptCounts, kept_counts
from distreal_dse.errors import DistrealError, InputError
from distreal_dse.fronts import memory_text
from distreal_dse.search._costs import Settled
from distreal_dse.search.proposer import CurveSpace
from distreal_dse.study import Data, Study

Counts = npt.NDArray[np.int64]
Fits = Callable[[Counts], npt.NDArray[np.bool_]]

# Among the settings of a search, in bytes.
MEMORY = "memory"


class SearchMemory:
    """What vectors need, where that can be told, and which of them may be tried.

    Parameters
    ----------
    study, network, data
        What is searched.
    limit
        Bytes that a training step may take; None for no limit.
    of_tables
        Whether tables are searched, whose smallest vector is smaller than ``max_rate`` allows.

    Raises
    ------
    InputError
        If not even the smallest vector fits.
    StudyError
        If there is a limit, and what vectors need can't be told.
    """

    def __init__(
        self,
        study: Study,
        network: DroppableNetwork,
        data: Data,
        limit: int | None,
        of_tables: bool = False,
    ) -> None:
        self.limit = limit
        self.cost: MemoryCost | None = None
        inputs, _ = fetch(data.train, torch.tensor([0]))
        try:
            self.cost = MemoryCost(study, network, inputs.shape[1:])
        except DistrealError:
            if limit is not None:
                raise
        if limit is not None and self.cost is not None:
            _check_limit(limit, self.cost, study, network, of_tables)

    @property
    def comparable(self) -> dict[str, int]:
        """What trials have in common; empty where there is no limit, as it always was."""
        return {} if self.limit is None else {MEMORY: self.limit}

    @property
    def fits(self) -> Fits | None:
        """Tells which vectors [n, groups] fit, shape [n]; None where all do."""
        cost, limit = self.cost, self.limit
        if cost is None or limit is None:
            return None
        return lambda counts: cost.peak_many(counts) <= limit

    @property
    def peak(self) -> Callable[[KeptCounts], int] | None:
        """What a vector needs, in bytes; None where that can't be told."""
        return self.cost.peak if self.cost else None

    def told(self, settled: Settled) -> Settled:
        """Points with what they need; nothing but points of the space was verified."""
        if self.cost is None:
            return settled
        points = tuple(replace(p, memory=self.cost.peak(p.kept_counts)) for p in settled.points)
        return replace(settled, points=points)


def _check_limit(
    limit: int, cost: MemoryCost, study: Study, network: DroppableNetwork, of_tables: bool
) -> None:
    if of_tables:
        one_rate = (1.0,) * len(network.groups)
        smallest = CurveSpace(network.groups, study.granularity).vectors(one_rate)[0]
        what = "kept channels " + "-".join(map(str, smallest))
    else:
        rates = [study.max_rate] * len(network.groups)
        smallest = kept_counts(rates, network.groups, study.granularity)
        what = f"rate {study.max_rate:g} in all layers"
    least = cost.peak(smallest)
    if least > limit:
        raise InputError(
            f"--memory is {memory_text(limit)}: expected at least {memory_text(least)}, what a "
            f"training step of the smallest vector takes ({what}, "
            f"mini-batches of {cost.batch_size}); give more, or lower the study's batch_size"
        )

"""How many devices fit into memory at once, said before any of it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from distreal_dse.cost import MemoryCost
from distreal_dse.dropout import KeptCounts, stacked_bytes
from distreal_dse.errors import StudyError
from fl.client import VirtualTraining, device_optimizer
from fl.cohort.planned import PlannedRound
from fl.strategies.base import Work

# Of what a GPU has free; the rest is for what lies within operations, such as the workspaces of
# convolutions, and for memory that is in pieces. Our own choice, not measured on a GPU.
USABLE = 0.8
# What the stacked step of K devices takes over K times that of one: weights are scaled and
# rearranged for grouped operations. Our own choice; sums of tensors on a CPU stayed below what it
# predicts (docs/performance.md).
STACKING = 2.0


class CohortMemory:
    """Predicts the bytes of a cohort from its plans.

    Parameters
    ----------
    training
        The run's common part.
    limit
        Bytes that may be taken; None for what is free on a GPU, and no limit on a CPU.
    """

    def __init__(self, training: VirtualTraining, limit: int | None) -> None:
        self._training, self._limit = training, limit
        self._device = next(training.network.module.parameters()).device
        self._of_one: MemoryCost | None = None
        self._steps: dict[tuple[KeptCounts, ...], int] = {}
        self._bytes: tuple[int, int] | None = None

    def fitting(self, rounds: Sequence[PlannedRound]) -> int:
        """Return how many of some devices can be trained at once; 0 or 1 where no two can."""
        limit = self.free()
        if limit is None:
            return len(rounds)
        most = max(map(self.of_device, rounds), default=0)
        return min(len(rounds), max(0, limit - self._spare()) // max(1, most))

    def of_cohort(self, rounds: Sequence[PlannedRound]) -> int:
        """Return the bytes of all of them at once."""
        return self._spare() + len(rounds) * max(map(self.of_device, rounds), default=0)

    def _spare(self) -> int:
        """Bytes of two rows that are nobody's (`StackedTrainer`)."""
        return 2 * self._stacked()[0]

    def of_device(self, planned: PlannedRound) -> int:
        """Return the bytes that one more device takes: its values, and its largest mini-batch."""
        largest = max((self._of_step(one.work) for one in planned.steps), default=0)
        return self._stacked()[0] + largest

    def said(self) -> str:
        """What there is, for a message."""
        limit = self.free()
        return "there is" if limit is None else f"the {limit / 2**20:.1f} MiB that there are"

    def _of_step(self, work: Work) -> int:
        networks = (work.kept_counts, *([work.inner.kept_counts] if work.inner else []))
        if networks not in self._steps:
            cost = self._cost()
            parts = [cost.parts(counts) for counts in networks] if cost else []
            found = sum(round(STACKING * (one.subnetwork + one.step)) for one in parts)
            self._steps[networks] = found + self._stacked()[1]
        return self._steps[networks]

    def _cost(self) -> MemoryCost | None:
        """Of whole mini-batches; None where it can't be told, and the GPU will tell."""
        if self._of_one is None:
            training = self._training
            shape = training.network.example.shape[1:]
            with suppress(StudyError):
                self._of_one = MemoryCost(training.study, training.network, shape)
        return self._of_one

    def _stacked(self) -> tuple[int, int]:
        if self._bytes is None:
            training = self._training
            optimizer = device_optimizer(training.study, training.network, training.strategy)
            self._bytes = stacked_bytes(training.network, optimizer)
        return self._bytes

    def free(self) -> int | None:
        """Return the bytes that may be taken now; None for no limit."""
        if self._limit is not None or self._device.type != "cuda":
            return self._limit
        free, _ = torch.cuda.mem_get_info(self._device)
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return int(USABLE * (free + kept))


def chunks(devices: int, size: int) -> list[int]:
    """Return sizes of parts of at most ``size`` devices, as equal as may be, the largest first."""
    many = -(-devices // size)
    return [devices // many + (part < devices % many) for part in range(many)]

"""What a training step of vectors takes of memory on this device, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distreal_dse.cost import MemoryCost, measured_memory
from distreal_dse.dropout import KeptCounts
from distreal_dse.pricing._subject import Subject


@dataclass(frozen=True)
class VectorMemory:
    """Bytes at the peak of a training step.

    Parameters
    ----------
    predicted
        Of tensors: see `MemoryCost`.
    measured
        That PyTorch gave out: see `measured_memory`.
    """

    predicted: int
    measured: int


def memory_of(
    subject: Subject, vectors: Sequence[KeptCounts], batch_size: int
) -> dict[KeptCounts, VectorMemory]:
    """Predict and measure the peak memory of vectors of the subject's network.

    Raises
    ------
    InputError
        If the batch size is out of range.
    StudyError
        If the study's code fails, or its steps differ in more than sizes.
    """
    study, network, shape = subject.study, subject.network, subject.input_shape
    cost = MemoryCost(study, network, shape, batch_size)
    return {
        counts: VectorMemory(
            cost.peak(counts), measured_memory(study, network, shape, counts, batch_size)
        )
        for counts in vectors
    }

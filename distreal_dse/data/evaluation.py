"""Validation loss and accuracy of a full network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from distreal_dse.data.batches import fetch, in_order, size_of
from distreal_dse.dropout import BATCH_NORMS, NORMS_WITH_STATISTICS

EVALUATION_BATCH = 256
# Samples that running statistics are measured on before an evaluation.
CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class Score:
    """Mean loss and share of correct predictions (in [0, 1]) over a data set.

    ``by_label`` holds the latter for each label that occurs.
    """

    loss: float
    accuracy: float
    by_label: Mapping[int, float] = field(default_factory=dict)


def evaluate(
    module: nn.Module,
    dataset: Dataset[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    calibration: Dataset[Any] | None,
    device: torch.device | None = None,
) -> Score:
    """Score the full network, its running statistics measured on ``calibration``.

    Without calibration data (None), the running statistics are used as they are.

    Running statistics gathered in sub-networks do not fit the full network: a sum over fewer
    inputs, scaled up, keeps its mean but has another variance. So they are measured again, for
    this evaluation only, on samples of ``calibration`` (our own choice; slimmable
    networks do the same, Yu & Huang, ICCV 2019, section 3.3).

    A batch normalisation without running statistics takes those of the batch. So the score depends
    on who shares a batch, and data that are stored class by class would be scored far too low: they
    are taken in a fixed random order then, in batches of nearly equal size.
    """
    total_loss, seen, right = 0.0, Counter[int](), Counter[int]()
    with torch.no_grad(), _recalibrated(module, calibration, device):
        for inputs, targets in _batches(module, dataset):
            inputs, targets = inputs.to(device), targets.to(device)
            outputs = module(inputs)
            total_loss += loss(outputs, targets).item() * len(targets)
            seen.update(targets.tolist())
            right.update(targets[outputs.argmax(1) == targets].tolist())
    return Score(
        total_loss / size_of(dataset),
        right.total() / size_of(dataset),
        {label: right[label] / count for label, count in sorted(seen.items())},
    )


def _batches(module: nn.Module, dataset: Dataset[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    mixes = any(
        isinstance(part, BATCH_NORMS) and part.running_mean is None for part in module.modules()
    )
    if not mixes:
        yield from in_order(dataset, EVALUATION_BATCH)
        return
    samples = size_of(dataset)
    for indices in _shuffled(samples).tensor_split(math.ceil(samples / EVALUATION_BATCH)):
        yield fetch(dataset, indices)


def _shuffled(samples: int) -> Tensor:
    """The same random order whenever it is asked for."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0))


@contextmanager
def _recalibrated(
    module: nn.Module, calibration: Dataset[Any] | None, device: torch.device | None
) -> Iterator[None]:
    """Evaluation mode with measured statistics inside the block; all is put back behind it."""
    modes = [(part, part.training) for part in module.modules()]
    norms = _norms(module) if calibration is not None and size_of(calibration) > 1 else []
    saved = [(norm.momentum, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    try:
        measure_statistics(module, calibration, device)
        yield
    finally:
        for norm, (momentum, buffers) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            for buffer, value in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(value)
        for part, training in modes:
            part.training = training


@torch.no_grad()
def measure_statistics(
    module: nn.Module, calibration: Dataset[Any] | None, device: torch.device | None = None
) -> None:
    """Measure running statistics on samples of ``calibration``; leave evaluation mode behind.

    Without calibration data (None, or a single sample), they stay as they are.
    """
    module.eval()
    samples = 0 if calibration is None else size_of(calibration)
    norms = _norms(module) if samples > 1 else []
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    try:
        if norms and calibration is not None:
            batches = _shuffled(samples)[:CALIBRATION_SAMPLES].split(EVALUATION_BATCH)
            for number, indices in enumerate(batches, start=1):
                for norm in norms:
                    norm.momentum = 1 / number  # the mean over the batches
                if len(indices) > 1:  # there are no statistics of a single sample
                    module(fetch(calibration, indices)[0].to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()


def _norms(module: nn.Module) -> list[Any]:
    return [
        part
        for part in module.modules()
        if isinstance(part, NORMS_WITH_STATISTICS) and part.track_running_stats
    ]

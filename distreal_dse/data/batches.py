"""Mini-batches from map-style data sets, and the check that a data set can be learned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from distreal_dse.errors import DataError
from distreal_dse.study import Data

# Enough to see a second class with near certainty, few enough to load in a moment.
LABELS_LOOKED_AT = 256


def size_of(dataset: Dataset[Any]) -> int:
    """Number of samples of a map-style data set."""
    return len(dataset)  # type: ignore[arg-type]


def fetch(dataset: Dataset[Any], indices: Tensor) -> tuple[Tensor, Tensor]:
    """The samples ``indices`` (shape [N]) as ``(inputs [N, ...], targets [N])``.

    A `TensorDataset`, and a `Subset` of one as `random_split` makes it, gives them all at once;
    other data sets are asked for one sample after the other.
    """
    while type(dataset) is Subset:  # a class made of it may do something else
        indices = torch.tensor([dataset.indices[index] for index in indices.tolist()])
        dataset = dataset.dataset
    if isinstance(dataset, TensorDataset):
        inputs, targets = dataset[indices]
        return inputs, targets
    inputs, targets = default_collate([dataset[index] for index in indices.tolist()])
    return inputs, targets


def in_order(dataset: Dataset[Any], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All samples once, in batches of ``batch_size``; the last may be smaller."""
    for indices in torch.arange(size_of(dataset)).split(batch_size):
        yield fetch(dataset, indices)


def shuffled_forever(
    samples: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Indices of mini-batches, drawn without replacement within each pass over ``samples``.

    The last batch of a pass is left out where it is smaller than ``batch_size``, unless it is the
    only one. ``samples`` must not be empty.
    """
    size = min(batch_size, len(samples))
    while True:
        order = samples[torch.randperm(len(samples), generator=generator)]
        yield from (batch for batch in order.split(size) if len(batch) == size)


def check_data(data: Data, study: str) -> None:
    """Refuse data sets that nothing can be learned from.

    Raises
    ------
    DataError
        If a part is empty, its samples are not ``(input tensor, class index)`` pairs, or all
        training labels that are looked at are the same.
    """
    for part in ("train", "validation", "test"):
        dataset = getattr(data, part)
        try:
            empty = size_of(dataset) == 0
        except TypeError as error:
            raise DataError(
                f"{part} data of study {study} has no length: expected a map-style data set with "
                "__len__ and __getitem__"
            ) from error
        if empty:
            raise DataError(f"{part} data of study {study} is empty: expected at least one sample")
        try:
            inputs, targets = fetch(dataset, torch.tensor([0]))
        except Exception as error:  # the user's data set may raise anything
            raise _unreadable(part, study, error) from error
        if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
            raise DataError(
                f"{part} data of study {study} gives {type(inputs).__name__} and "
                f"{type(targets).__name__}: expected samples of (input tensor, class index)"
            )
        if targets.dim() != 1 or targets.is_floating_point():
            raise DataError(
                f"{part} data of study {study} has targets of type {targets.dtype} and shape "
                f"{tuple(targets.shape[1:])}: expected one class index per sample"
            )
    total = size_of(data.train)
    looked_at = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    try:
        _, labels = fetch(data.train, looked_at[:LABELS_LOOKED_AT])
    except Exception as error:  # likewise
        raise _unreadable("train", study, error) from error
    if len(labels.unique()) < 2:
        raise DataError(
            f"train data of study {study} has one class ({len(labels)} of {total} samples looked "
            f"at, all of class {labels[0].item()}): expected at least two"
        )


def _unreadable(part: str, study: str, error: Exception) -> DataError:
    return DataError(
        f"{part} data of study {study} can't be read ({type(error).__name__}: {error}): expected "
        "samples of one shape, of the form (input tensor, class index)"
    )

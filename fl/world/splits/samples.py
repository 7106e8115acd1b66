"""Labels and owners of the samples of a data set, and its split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from distreal_dse.data.batches import size_of
from distreal_dse.errors import DataError, described
from distreal_dse.support.seeding import seeded
from fl.world.splits.base import Owners, Split


def split_dataset(
    split: Split, dataset: Dataset[Any], device_classes: Sequence[str], seed: int
) -> list[Tensor]:
    """Deal the samples of a data set; reads labels and owners only where the split needs them.

    Parameters
    ----------
    split
        Who gets what.
    dataset
        Map-style, of ``(input, class index)`` pairs.
    device_classes
        Name of the class of each device, in the order of the devices' indices.
    seed
        Of the run.

    Returns
    -------
    list of Tensor
        As `Split.split` does.

    Raises
    ------
    InputError
        If labels or owners can't be read, or the split refuses them.
    """
    labels = labels_of(dataset) if split.needs_labels else torch.zeros(size_of(dataset)).long()
    owners = owners_of(dataset) if split.needs_owners else None
    return split.split(labels, device_classes, owners, seed)


def labels_of(dataset: Dataset[Any]) -> Tensor:
    """Class index of each sample, shape [N], int64, on the CPU.

    Without reading the inputs for a `TensorDataset`, for a data set with an attribute ``targets``
    or ``labels``, as torchvision's have, and for a `Subset` of these, as long as three samples say
    the same; else all samples are read.

    Raises
    ------
    DataError
        If the samples can't be read, or their targets are no class indices.
    """
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset)[torch.as_tensor(dataset.indices)]
    try:
        # Random augmentation draws from the global generator, which is the user's.
        with seeded(0, "labels"):
            return _labels(dataset)
    except Exception as error:  # the user's data set may raise anything
        raise DataError(
            f"labels of the training data can't be read ({described(error)}): expected samples of "
            "the form (input tensor, class index)"
        ) from error


def _labels(dataset: Dataset[Any]) -> Tensor:
    stated, size = _stated(dataset), size_of(dataset)
    if stated is not None and stated.shape == (size,) and not stated.is_floating_point():
        # What is stated may lack a transform of the targets.
        places = {0, size // 2, size - 1} if size else set()
        if all(int(dataset[place][1]) == int(stated[place]) for place in places):
            return stated.long().cpu()
    read = [torch.as_tensor(dataset[place][1]) for place in range(size)]
    for label in read:
        if label.dim() or label.is_floating_point():
            raise TypeError(f"a target of type {label.dtype} and shape {tuple(label.shape)}")
    return torch.tensor([int(label) for label in read], dtype=torch.int64)


def _stated(dataset: Dataset[Any]) -> Tensor | None:
    """What the data set says that its labels are, if anything."""
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    stated = getattr(dataset, "targets", getattr(dataset, "labels", None))
    try:
        return None if stated is None else torch.as_tensor(stated)
    except (TypeError, ValueError, RuntimeError):  # targets of another kind, such as names
        return None


def owners_of(dataset: Dataset[Any]) -> Owners:
    """Owner of each sample: the attribute ``owners`` of the data set, also through a `Subset`.

    Raises
    ------
    DataError
        If it has none, or not one per sample.
    """
    if isinstance(dataset, Subset):
        whole = owners_of(dataset.dataset)
        if isinstance(whole, Tensor):
            return whole[torch.as_tensor(dataset.indices)]
        return [whole[index] for index in dataset.indices]
    owners: Owners | None = getattr(dataset, "owners", None)
    if owners is None:
        raise DataError(
            f"training data ({type(dataset).__name__}) has no owners: expected an attribute "
            "'owners' with one owner per sample; add it to the data set, or take another split"
        )
    if len(owners) != size_of(dataset):
        raise DataError(
            f"training data ({type(dataset).__name__}) has {size_of(dataset)} samples and "
            f"{len(owners)} owners: expected one owner per sample"
        )
    return owners

"""Where the mini-batches of a cohort come from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from fl.cohort.turns import Group


class Samples:
    """Gives the samples of several mini-batches at once, on the device of the network.

    A `TensorDataset`, and a `Subset` of one, is copied there once, if it fits. Samples of others
    are fetched when rounds are planned, as they may be drawn anew each time.

    Parameters
    ----------
    dataset
        The training data.
    device
        Of the network.
    most
        Bytes that they may take there; None for no limit.
    """

    def __init__(
        self, dataset: Dataset[Any], device: torch.device, most: int | None = None
    ) -> None:
        self._device = device
        self._tensors: tuple[Tensor, ...] | None = None
        places: Tensor | None = None
        while type(dataset) is Subset:  # as in `fetch`
            indices = torch.as_tensor(dataset.indices)
            places = indices if places is None else indices[places]
            dataset = dataset.dataset
        if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
            tensors = dataset.tensors if places is None else [t[places] for t in dataset.tensors]
            size = sum(one.numel() * one.element_size() for one in tensors)
            if most is None or size <= most:
                self._tensors = tuple(one.to(device) for one in tensors)

    @property
    def fetching(self) -> bool:
        """Whether samples have to be fetched when rounds are planned."""
        return self._tensors is None

    def of(self, group: Group, indices: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return inputs, shape [K, N, ...], and targets, shape [K, N], of a group.

        Parameters
        ----------
        group
            Who trains.
        indices
            Of its samples on the device, shape [K · N]; None where they were fetched.
        """
        if self._tensors is None or indices is None:
            pairs = [one.fetched for one in group.steps if one.fetched is not None]
            inputs, targets = (torch.stack(parts) for parts in zip(*pairs, strict=True))
            # Without waiting for what the GPU is at.
            inputs, targets = (one.to(self._device, non_blocking=True) for one in (inputs, targets))
            return inputs, targets
        many, size = len(group.rows), len(indices) // len(group.rows)
        inputs, targets = (
            one.index_select(0, indices).view(many, size, *one.shape[1:]) for one in self._tensors
        )
        return inputs, targets

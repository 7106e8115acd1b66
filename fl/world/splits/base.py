"""The base class of splits, and what several of them use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from distreal_dse.errors import InputError

Owners = Sequence[Any] | Tensor
"""One owner per sample: all texts or all whole numbers."""

SMALLEST = 2
"""Samples that every device gets: batch normalisation can't train on one."""


class Split(ABC):
    """Deals the training samples to the devices, once, at the start of a run."""

    needs_labels: ClassVar[bool] = True
    """Whether ``split`` looks at the labels: reading them may take a pass over the data."""
    needs_owners: ClassVar[bool] = False
    """Whether ``split`` looks at the owners."""

    @property
    def spec(self) -> str:
        """Text that names the split and its settings: equal text, equal splits.

        It is kept with runs. The text of a split that a package offers as a plug-in begins with
        the name of the entry point, and `make_split` makes an equal split of it.
        """
        return type(self).__name__

    @abstractmethod
    def split(
        self, labels: Tensor, device_classes: Sequence[str], owners: Owners | None, seed: int
    ) -> list[Tensor]:
        """Deal the samples; must follow from the arguments alone.

        Parameters
        ----------
        labels
            Class index of each sample, shape [N], int64; what they are does not count where
            ``needs_labels`` is false.
        device_classes
            Name of the class of each device, in the order of the devices' indices.
        owners
            Owner of each sample; None where ``needs_owners`` is false.
        seed
            Of the run. Randomness is to be derived from it and the split's own name, so that it is
            independent of that of other splits (`distreal_dse.support.seeding.generator`).

        Returns
        -------
        list of Tensor
            For each device the indices of its samples, shape [≥ 2], int64, in any order. No index
            occurs twice; it depends on the split whether each occurs.

        Raises
        ------
        InputError
            If the samples can't be dealt so.
        """


def check_enough(size: int, devices: int) -> None:
    """Refuse fewer than two samples per device.

    Raises
    ------
    InputError
        Naming both numbers.
    """
    if size < SMALLEST * devices:
        raise InputError(
            f"training data has {size} samples: expected at least two for each of the {devices} "
            "devices; take fewer devices"
        )


def by_label(labels: Tensor, random: torch.Generator) -> Tensor:
    """Indices of all samples by ascending label, in random order within a label, shape [N].

    Who builds on positions in this order deals numbers of samples per class that follow from the
    sizes of the classes alone, whatever the order of the samples.
    """
    shuffled = torch.randperm(len(labels), generator=random)
    return shuffled[labels[shuffled].argsort(stable=True)]


def gather(samples: Tensor, holders: Tensor, devices: int) -> list[Tensor]:
    """Put together what each device holds.

    Parameters
    ----------
    samples
        Indices of samples, shape [N].
    holders
        For each of them the device that holds it, 0 … devices − 1, shape [N].
    devices
        How many there are.
    """
    sizes = torch.bincount(holders, minlength=devices)
    return list(samples[holders.argsort(stable=True)].split(sizes.tolist()))

"""The owners of the samples as devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import generator
from fl.world.splits.base import SMALLEST, Owners, Split


@dataclass(frozen=True)
class OwnersSplit(Split):
    """Each device holds all samples of one natural owner, such as a writer of FEMNIST.

    The owners are taken at random, so that they don't go with the devices' classes; the first
    devices of a larger number of devices have the same ones. Owners of a single sample are left
    out. Device sizes are as unequal as the owners'.

    References
    ----------
    Caldas et al.: LEAF: A Benchmark for Federated Settings, 2018, arXiv 1812.01097.
    """

    needs_labels: ClassVar[bool] = False
    needs_owners: ClassVar[bool] = True

    @property
    def spec(self) -> str:
        """Its name."""
        return "owners"

    def split(
        self, labels: Tensor, device_classes: Sequence[str], owners: Owners | None, seed: int
    ) -> list[Tensor]:
        """Deal the samples of as many owners as there are devices; which ones are whose counts."""
        devices = len(device_classes)
        number = _numbered(owners, len(labels))  # 0, 1 … by rising name
        sizes = torch.bincount(number)
        able = (sizes >= SMALLEST).nonzero().flatten()
        if devices > len(able):
            raise InputError(
                f"training data has {len(able)} owners of two or more samples: expected at least "
                f"one for each of the {devices} devices; take fewer devices or another split"
            )
        chosen = able[torch.randperm(len(able), generator=generator(seed, "split", "owners"))]
        samples = number.argsort(stable=True).split(sizes.tolist())
        return [samples[owner] for owner in chosen[:devices].tolist()]


def _numbered(owners: Owners | None, size: int) -> Tensor:
    if owners is None:
        raise InputError(
            "split 'owners': expected an owner of each sample, found none; take another split or "
            "give the data set an attribute 'owners'"
        )
    names = owners.numpy(force=True) if isinstance(owners, Tensor) else np.asarray(owners)
    if names.shape != (size,) or names.dtype.kind not in "iuU":
        raise InputError(
            f"split 'owners': expected one owner, a text or a whole number, for each of the {size} "
            f"samples, found shape {names.shape} of {names.dtype}"
        )
    return torch.from_numpy(np.unique(names, return_inverse=True)[1])

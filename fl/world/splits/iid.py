"""Samples dealt at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import generator
from fl.world.splits.base import Owners, Split, check_enough


@dataclass(frozen=True)
class IidSplit(Split):
    """All samples at random, as evenly as possible: device sizes differ by one at most."""

    needs_labels: ClassVar[bool] = False

    @property
    def spec(self) -> str:
        """Its name."""
        return "iid"

    def split(
        self, labels: Tensor, device_classes: Sequence[str], owners: Owners | None, seed: int
    ) -> list[Tensor]:
        """Deal each sample once; only how many samples there are counts."""
        check_enough(len(labels), len(device_classes))
        return split_iid(len(labels), len(device_classes), seed)


def split_iid(size: int, devices: int, seed: int) -> list[Tensor]:
    """Deal ``size`` samples to devices at random, as evenly as possible.

    Returns
    -------
    list of Tensor
        For each device the indices of its samples, shape [size // devices] or one more; each
        index occurs once.

    Raises
    ------
    InputError
        If there are more devices than samples.
    """
    if devices > size:
        raise InputError(
            f"training data has {size} samples: expected at least one for each of the {devices} "
            "devices; take fewer devices"
        )
    order = torch.randperm(size, generator=generator(seed, "split"))
    return list(order.tensor_split(devices))

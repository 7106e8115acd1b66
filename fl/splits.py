"""Who holds which training samples."""

from __future__ import annotations

import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.seeding import generator


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

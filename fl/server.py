"""The server's half of a round: who takes part, which updates count, how they are averaged.

References
----------
McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-efficient learning of deep networks
from decentralized data, AISTATS 2017, algorithm 1 (FedAvg).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.seeding import generator
from fl.devices import Device
from fl.results import Update


def select_cohort(
    devices: Sequence[Device],
    count: int,
    round_number: int,
    seed: int,
    is_available: Callable[[Device], bool] = lambda device: True,
) -> list[Device]:
    """Draw ``count`` of the available devices uniformly without replacement, in their order.

    Fewer, if fewer are available. Asks for no more devices than it needs to.
    """
    order = torch.randperm(len(devices), generator=generator(seed, "cohort", round_number))
    available = (i for i in order.tolist() if is_available(devices[i]))
    return [devices[i] for i in sorted(islice(available, count))]


def is_finite(update: Update) -> bool:
    """Whether the loss and every value of an update are finite numbers."""
    return math.isfinite(update.loss) and all(
        bool(tensor.isfinite().all()) for tensor in update.state.values()
    )


def fedavg(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Average the states of updates, weighted by their samples.

    Parameters
    ----------
    updates
        At least one, with at least one sample in all.

    Returns
    -------
    dict
        By name: for floating-point tensors Σ samples·value / Σ samples, summed in double
        precision in the order of the updates; for integer ones, which are counters such as batch
        normalisation's ``num_batches_tracked``, the largest value.

    Raises
    ------
    InputError
        If there are no updates, or the states differ in names or shapes.
    """
    total = sum(update.samples for update in updates)
    if total < 1:
        raise InputError(
            f"averaging {len(updates)} updates of {total} samples: expected at least one of each"
        )
    _check_alike(updates)
    return {name: _mean(name, updates, total) for name in updates[0].state}


def _mean(name: str, updates: Sequence[Update], total: int) -> Tensor:
    tensors = [update.state[name] for update in updates]
    if not tensors[0].is_floating_point():
        return torch.stack(tensors).amax(0)
    mean = torch.zeros_like(tensors[0], dtype=torch.float64)
    for update, tensor in zip(updates, tensors, strict=True):
        mean += tensor.double() * (update.samples / total)
    return mean.to(tensors[0].dtype)


def _check_alike(updates: Sequence[Update]) -> None:
    first = updates[0]
    for update in updates[1:]:
        where = f"update of device {update.device}"
        if odd := first.state.keys() ^ update.state.keys():
            raise InputError(
                f"{where}: expected the tensors that device {first.device} has, found "
                f"{', '.join(sorted(odd))} in one of them only"
            )
        for name, tensor in first.state.items():
            if update.state[name].shape != tensor.shape:
                raise InputError(
                    f"{where}: tensor {name}: expected shape {tuple(tensor.shape)} as device "
                    f"{first.device} has, found {tuple(update.state[name].shape)}"
                )

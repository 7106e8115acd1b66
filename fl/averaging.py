"""How the server averages updates: over all devices, over those that trained, by local steps.

All are plain functions of updates and leave their arguments as they are. They weight devices
by their samples, sum in double precision in the order of the updates, and take the largest of each
integer, as these are counters such as batch normalisation's ``num_batches_tracked``.

References
----------
McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-efficient learning of deep networks
from decentralized data, AISTATS 2017, algorithm 1 (FedAvg).

Diao, Ding, Tarokh: HeteroFL, ICLR 2021, section 3 (each element over those that hold it).

Wang, Liu, Liang, Joshi, Poor: Tackling the objective inconsistency problem in heterogeneous
federated optimization, NeurIPS 2020 (FedNova: what devices change, over their local steps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from distreal_dse.dropout import ChannelMap
from distreal_dse.errors import InputError
from distreal_dse.support.specs import unknown_name
from fl.results import State, Update

Averaging: TypeAlias = Callable[[State, Sequence[Update], ChannelMap], dict[str, Tensor]]
"""From the state that a round started from, its updates and the channels to the new state."""

# How many times the plain average of the changes may count; our own choice, within 2 to 4.
POOLED_CAP = 4.0

# Names that PyTorch's batch and instance normalisations give to their statistics.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def make_averaging(name: str) -> Averaging:
    """Return what a name stands for: ``plain``, ``contributors`` or ``pooled``.

    Raises
    ------
    InputError
        If it stands for nothing.
    """
    if name not in _NAMED:
        raise unknown_name("averaging", name, name, _NAMED)
    return _NAMED[name]


def is_statistic(name: str) -> bool:
    """Whether a tensor of a state is measured by a normalisation rather than learned."""
    return name.rpartition(".")[2] in _STATISTICS


def fedavg(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Average the states of updates, weighted by their samples.

    Parameters
    ----------
    updates
        At least one, with at least one sample in all.

    Returns
    -------
    dict
        By name: Σ samples·value / Σ samples for floating-point tensors.

    Raises
    ------
    InputError
        If there are no updates, or the states differ in names or shapes.
    """
    total = _total_samples(updates)
    return _means(updates, [update.samples / total for update in updates])


def average_over_contributors(
    state: State, updates: Sequence[Update], channels: ChannelMap
) -> dict[str, Tensor]:
    """Average each element over the devices that trained it in at least one mini-batch.

    A running statistic counts as trained where its unit was kept. Where nobody drops anything, the
    result is that of `fedavg`, bit by bit.

    Parameters
    ----------
    state
        Where elements are taken from that nobody trained.
    updates, channels
        At least one update; their masks say what was trained. Tensors that ``channels`` does not
        name are trained whole in every mini-batch.

    Raises
    ------
    InputError
        As `fedavg` does.
    """
    _total_samples(updates)
    steps = [LocalSteps(update) for update in updates]
    merged = {}
    for name, old in state.items():
        trained = _weighted(updates, steps, old, channels.axes.get(name, ()), of_steps=False)
        samples = trained.sum(0)
        shares = trained / samples.clamp(min=1)
        merged[name] = torch.where(samples > 0, _mean(name, updates, shares.unbind(0)), old)
    return merged


def average_classes(
    average: Callable[[State, Sequence[Update], ChannelMap], State],
    state: State,
    updates: Sequence[Update],
    channels: ChannelMap,
    rows: Sequence[str],
    holds: Tensor,
) -> dict[str, Tensor]:
    """Average the rows of classes over the devices that hold samples of the class.

    What belongs to a masked loss (HeteroFL, section 3): devices don't train the outputs of classes
    that they have not, so their rows say nothing and would only slow the others down. Of a class
    that nobody holds, the row stays.

    Parameters
    ----------
    average
        Averages all else, and each row among the devices that hold its class.
    state, updates, channels
        As for `average_over_contributors`.
    rows
        Tensors of ``state`` whose first axis is that of the classes.
    holds
        Whether a device has samples of a class, shape [updates, classes].
    """
    merged = dict(average(state, updates, channels))
    old = {name: state[name] for name in rows}
    merged |= {name: tensor.clone() for name, tensor in old.items()}
    holders, of_class = torch.unique(holds, dim=1, return_inverse=True)
    for number, some in enumerate(holders.T.tolist()):
        own = [
            replace(update, state={name: update.state[name] for name in rows})
            for update, holds_them in zip(updates, some, strict=True)
            if holds_them
        ]
        if own:
            classes = (of_class == number).nonzero().flatten()
            averaged = average(old, own, channels)
            for name in rows:
                places = classes.to(old[name].device)
                merged[name][places] = averaged[name][places]
    return merged


def average_pooled_steps(
    state: State, updates: Sequence[Update], channels: ChannelMap, cap: float = POOLED_CAP
) -> dict[str, Tensor]:
    """Move each element as if every local step had trained it.

    With wₖ samples and Tₖ local steps of device k, of which nₖ trained the element and changed it
    by Δₖ, the mean change per step that trained it is Σ wₖΔₖ / Σ wₖnₖ, and a device takes
    Σ wₖTₖ / Σ wₖ steps on average. Their product is the plain average of the changes times
    Σ wₖTₖ / Σ wₖnₖ, a ratio of at least 1, and that is how far the element moves:

        new = old + min(cap, Σ wₖTₖ / Σ wₖnₖ) · Σ wₖΔₖ / Σ wₖ

    Where nobody drops anything, the ratio is 1 whatever the Tₖ are, and the result is that of
    `fedavg`, bit by bit. It is also with a cap of 1, apart from running statistics: these are
    averages over mini-batches and no sums of steps, and so are averaged over contributors.

    The ratio is capped because few steps that trained an element tell its direction badly.

    Parameters
    ----------
    state, updates, channels
        As for `average_over_contributors`.
    cap
        Largest ratio, ≥ 1.

    Raises
    ------
    InputError
        As `fedavg` does, or if the cap is less than 1.
    """
    if not cap >= 1:
        raise InputError(f"cap of pooled averaging: expected 1 or more, found {cap}")
    total = _total_samples(updates)
    steps = [LocalSteps(update) for update in updates]
    all_steps = sum(update.samples * len(update.masks) for update in updates)
    statistics = {name: tensor for name, tensor in state.items() if is_statistic(name)}
    merged = average_over_contributors(statistics, updates, channels)
    means = _means(updates, [update.samples / total for update in updates])
    for name, old in state.items():
        if name in merged:
            continue
        mean = means[name]
        if not old.is_floating_point():
            merged[name] = mean
            continue
        axes = channels.axes.get(name, ())
        active = _weighted(updates, steps, old, axes, of_steps=True).sum(0)
        # Written so that a ratio of 1 adds nothing to the mean, not even a rounding error.
        extra = (all_steps / active.clamp(min=1)).clamp(1, cap) - 1
        moved = mean.double() + extra * (mean.double() - old.double())
        merged[name] = torch.where(active > 0, moved.to(old.dtype), old)
    return {name: merged[name] for name in state}


class LocalSteps:
    """How many local steps of a device trained each element of a tensor.

    Equal masks are counted once: a device whose mask lasts for a round has one of them.
    """

    def __init__(self, update: Update) -> None:
        masks, times = update.masks, torch.ones(len(update.masks), dtype=torch.int64)
        if masks.numel():
            masks, times = torch.unique(masks, dim=0, return_counts=True)
        # One more column for what is always kept. Single precision counts up to 2^24 steps.
        self._kept = torch.cat([masks, masks.new_ones(len(masks), 1)], 1).float()
        self._times = times.float()

    def of(self, tensor: Tensor, axes: Sequence[object]) -> Tensor:
        """Steps by element, where the tensor is; the shape broadcasts to that of the tensor."""
        return self.counted(tensor, axes).to(tensor.device)

    def counted(self, tensor: Tensor, axes: Sequence[object]) -> Tensor:
        """The same on the CPU.

        Those in which both the unit of its row and that of its column were kept: the entries of
        keptᵀ · diag(times) · kept.
        """
        sizes = [1] * tensor.dim()
        along = []
        for axis, units in enumerate((*axes, None, None)[:2]):
            if units is None:
                along.append(self._times.new_ones(len(self._times), 1))
            else:
                along.append(self._kept[:, torch.as_tensor(units)])
                sizes[axis] = tensor.shape[axis]
        rows, columns = along
        counts = (rows * self._times[:, None]).T @ columns
        return counts.reshape(sizes)


def _weighted(
    updates: Sequence[Update],
    steps: Sequence[LocalSteps],
    tensor: Tensor,
    axes: Sequence[object],
    of_steps: bool,
) -> Tensor:
    """Samples of each device times its steps, or times whether there are any, by element.

    Shape [updates, …], the rest broadcasts to that of the tensor. Whole numbers, so that sums are
    exact in any order, and copied to where the tensor is at once.
    """
    counts = torch.stack([one.counted(tensor, axes) for one in steps])
    samples = torch.tensor([update.samples for update in updates], dtype=torch.float64)
    weighted = (counts if of_steps else counts > 0) * samples.view(-1, *[1] * tensor.dim())
    return weighted.to(tensor.device)


def _means(updates: Sequence[Update], shares: Sequence[float]) -> dict[str, Tensor]:
    """Σ share·value of all tensors; all of a type in a row, as each call costs time of its own."""
    like = updates[0].state
    rows: dict[torch.dtype, list[str]] = {}
    for name, tensor in like.items():
        rows.setdefault(tensor.dtype, []).append(name)
    found: dict[str, Tensor] = {}
    for dtype, names in rows.items():
        if not dtype.is_floating_point:
            found |= {name: _mean(name, updates, shares) for name in names}
            continue
        sizes = [like[name].numel() for name in names]
        mean = torch.zeros(sum(sizes), dtype=torch.float64, device=like[names[0]].device)
        for update, share in zip(updates, shares, strict=True):
            row = torch.cat([update.state[name].reshape(-1) for name in names])
            mean += row.double() * share
        parts = mean.to(dtype).split(sizes)
        found |= {n: part.view(like[n].shape) for n, part in zip(names, parts, strict=True)}
    return {name: found[name] for name in like}


def _mean(name: str, updates: Sequence[Update], shares: Sequence[float | Tensor]) -> Tensor:
    """Σ share·value; shares of an element over all updates sum to 1."""
    tensors = [update.state[name] for update in updates]
    if not tensors[0].is_floating_point():
        return torch.stack(tensors).amax(0)
    mean = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        mean += tensor.double() * share
    return mean.to(tensors[0].dtype)


def _total_samples(updates: Sequence[Update]) -> int:
    total = sum(update.samples for update in updates)
    if total < 1:
        raise InputError(
            f"averaging {len(updates)} updates of {total} samples: expected at least one of each"
        )
    _check_alike(updates)
    return total


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


def _plain(state: State, updates: Sequence[Update], channels: ChannelMap) -> dict[str, Tensor]:
    return fedavg(updates)


_NAMED: Mapping[str, Averaging] = {
    "plain": _plain,
    "contributors": average_over_contributors,
    "pooled": partial(average_pooled_steps, cap=POOLED_CAP),
}

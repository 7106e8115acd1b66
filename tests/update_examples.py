"""Updates made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from distreal_dse.dropout import ChannelMap, DroppableNetwork, make_policy
from fl.results import Update


def update(
    device: int,
    samples: int,
    state: Mapping[str, Tensor],
    masks: Tensor | None = None,
    loss: float = 1.0,
) -> Update:
    """An update of a device that dropped nothing in one mini-batch, or what ``masks`` say."""
    masks = torch.ones(1, 0, dtype=torch.bool) if masks is None else masks
    return Update(
        device=device,
        samples=samples,
        state=state,
        masks=masks,
        loss=loss,
        seconds=1.0,
        complete=True,
        training_macs=1.0,
        cost_shares=(1.0,) * len(masks),
        over_budget=0,
        bytes_down=8,
        bytes_up=8,
    )


def random_updates(
    network: DroppableNetwork, shapes: Sequence[tuple[int, int, float]], seed: int = 0
) -> list[Update]:
    """Of devices with so many samples and local steps that keep so large a share of the units.

    Values change where a mini-batch trained them, and only there.
    """
    draws, channels = torch.Generator().manual_seed(seed), network.channels
    state = network.module.state_dict()
    found = []
    for device, (samples, steps, keep) in enumerate(shapes):
        counts = tuple(max(1, round(keep * width)) for width in channels.widths)
        policy = make_policy("random")
        masks = [policy.draw(channels.widths, counts, draws) for _ in range(steps)]
        values = {name: tensor.clone() for name, tensor in state.items()}
        for mask in masks:
            for name, tensor in values.items():
                if not tensor.is_floating_point():
                    tensor += 1
                    continue
                for index in np.ndindex(tuple(tensor.shape)):
                    if is_kept(channels, name, index, mask):
                        tensor[index] += torch.randn((), generator=draws).item()
        found.append(update(device, samples, values, torch.stack(masks)))
    return found


def is_kept(channels: ChannelMap, name: str, index: tuple[int, ...], mask: Tensor) -> bool:
    """Whether a mask keeps one element of a tensor; element by element, with plain indexing."""
    for place, units in zip(index, channels.axes.get(name, ()), strict=False):
        if units is not None and int(units[place]) != len(mask) and not mask[int(units[place])]:
            return False
    return True

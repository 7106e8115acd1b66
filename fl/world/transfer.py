"""How much is sent to a device and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from distreal_dse.dropout import ChannelMap, KeptCounts
from fl.results import State


def state_sizes(state: State, channels: ChannelMap) -> Callable[[KeptCounts], int]:
    """Return the function from kept counts to the bytes of a sub-network's parameters and buffers.

    Parameters
    ----------
    state
        Of the network that is trained.
    channels
        Of the same network.
    """
    group_of = channels.group_of_unit()
    widths = (*channels.widths, 1)
    tensors = []
    for name, tensor in state.items():
        axes = []  # of each axis: which groups its channels are of, and how many there are
        for size, units in zip(tensor.shape, channels.axes.get(name, ()), strict=False):
            if units is not None:
                groups = group_of[units].tolist()
                axes.append((size, [(g, groups.count(g) / widths[g]) for g in set(groups)]))
        tensors.append((tensor.numel() * tensor.element_size(), axes))

    @lru_cache(maxsize=4096)
    def size_of(counts: KeptCounts) -> int:
        kept = (*counts, 1)
        total = 0.0
        for full, axes in tensors:
            shares = (
                sum(kept[group] * per_unit for group, per_unit in parts) / length
                for length, parts in axes
            )
            total += full * math.prod(shares)
        return round(total)

    return size_of

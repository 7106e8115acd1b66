"""A sub-network as a network of its own."""

from __future__ import annotations

import copy

import torch
from torch import nn

from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._policy_specs import make_policy
from distreal_dse.dropout._subnetwork import SubNetwork
from distreal_dse.dropout._vector import KeptCounts


@torch.no_grad()
def extracted(full: DroppableNetwork, counts: KeptCounts) -> nn.Module:
    """Copy the first filters of each group out of a network; nothing is shared with it.

    Parameters
    ----------
    full
        The network; not changed.
    counts
        Filters to keep of each group.
    """
    channels = full.channels
    small = SubNetwork(full.module, channels, counts, scaling="none")
    small.load(
        small.select(make_policy("ordered").draw(channels.widths, counts, torch.Generator()))
    )
    module = copy.deepcopy(small.module)
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.clone())  # a copy of the small part, not of all it lay in
    return module

"""A network whose filters can be dropped, checked numerically before it is trusted."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelGroup, ChannelMap
from distreal_dse.dropout._subnetwork import SubNetwork, Workspace
from distreal_dse.dropout._tracing import trace_channels
from distreal_dse.dropout._vector import KeptCounts
from distreal_dse.dropout._zeroing import check_dropping_equals_zeroing

# A front has tens of vectors; each costs some modules, and tables of positions, in this cache.
CACHED_SUBNETWORKS = 32


class DroppableNetwork:
    """A full network together with its channel groups and its sub-networks.

    Parameters
    ----------
    module
        The full network. It is used as it is: sub-networks read from it and write to it.
    example
        A batch of inputs, shape [N, C, ...], N ≥ 2, on the device of the network.
    scaling
        See `SubNetwork`.

    Raises
    ------
    UnsupportedModelError
        If filters of this network can't be dropped, or dropping them does not equal zeroing them.
    """

    def __init__(self, module: nn.Module, example: Tensor, scaling: str = "inverted") -> None:
        self.module = module
        self.example = example
        """What it was traced with; a network like it takes inputs of the same shape."""
        self.scaling = scaling
        self.channels: ChannelMap = trace_channels(module, example)
        self._subnetworks: OrderedDict[KeptCounts, SubNetwork] = OrderedDict()
        self._workspace: Workspace | None = None
        check_dropping_equals_zeroing(module, self.channels, example, scaling)

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The channel groups, in the order of a dropout vector."""
        return self.channels.groups

    @property
    def full_counts(self) -> KeptCounts:
        """The kept counts of the full network."""
        return self.channels.widths

    def subnetwork(self, counts: KeptCounts) -> SubNetwork:
        """The sub-network of ``counts``, built at its first use.

        All sub-networks of a network share the memory of their values: those loaded last are there.
        """
        if self._workspace is None:
            self._workspace = Workspace(self.module, self.channels)
        if counts not in self._subnetworks:
            self._subnetworks[counts] = SubNetwork(
                self.module, self.channels, counts, self.scaling, self._workspace
            )
            if len(self._subnetworks) > CACHED_SUBNETWORKS:
                self._subnetworks.popitem(last=False)
        self._subnetworks.move_to_end(counts)
        return self._subnetworks[counts]

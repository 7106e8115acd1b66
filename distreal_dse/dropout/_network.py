"""A network whose filters can be dropped, checked numerically before it is trusted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelGroup, ChannelMap
from distreal_dse.dropout._subnetwork import SubNetwork, Workspace
from distreal_dse.dropout._tracing import trace_channels
from distreal_dse.dropout._vector import KeptCounts
from distreal_dse.dropout._zeroing import check_dropping_equals_zeroing
from distreal_dse.errors import InputError

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

    @cached_property
    def parameter_names(self) -> dict[int, str]:
        """The name of each parameter by its ``id``; parameters stay the objects that they are."""
        return {id(p): name for name, p in self.module.named_parameters()}

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.module.state_dict(keep_vars=True))

    def copy_state(self) -> dict[str, Tensor]:
        """Return copies of the full network's parameters and buffers by name."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Give parameters and buffers the values of a state of the same names, shapes and types.

        Several times as fast as ``load_state_dict``, which looks at every module.

        Raises
        ------
        InputError
            If a tensor is missing, or has another shape.
        """
        names = self._tensors.keys()
        for name, tensor in self._tensors.items():
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "none"
                raise InputError(
                    f"state of the network: tensor {name}: expected shape {tuple(tensor.shape)}, "
                    f"found {found}; it is of another network"
                )
        torch._foreach_copy_(list(self._tensors.values()), [state[name] for name in names])

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

"""A network whose filters can be dropped, checked numerically before it is trusted."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelGroup, ChannelMap
from distreal_dse.dropout._following import Structure
from distreal_dse.dropout._numbering import check_tensors, named_tensors
from distreal_dse.dropout._subnetwork import SubNetwork, Workspace
from distreal_dse.dropout._tracing import trace_channels
from distreal_dse.dropout._vector import KeptCounts, check_counts
from distreal_dse.dropout._zeroing import check_dropping_equals_zeroing
from distreal_dse.errors import InputError

# A front has tens of vectors; each costs some modules, and tables of positions, in this cache.
CACHED_SUBNETWORKS = 32
# Attributes that a copy of a network makes anew.
OF_THIS_NETWORK = ("_structure", "_tensors", "_names", "_subnetworks", "_workspace")


class DroppableNetwork:
    """A full network together with its channel groups and its sub-networks.

    Parameters
    ----------
    module
        The full network. It is used as it is: sub-networks read from it and write to it. Which
        parameters are trained may change later, but MACs count those that are trained now.
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
        check_dropping_equals_zeroing(module, self.channels, example, scaling)
        self.times = 0
        """How often it began anew, as of the last `follow`."""
        self._begin()

    def _begin(self) -> None:
        """Know the network as it is now, without sub-networks."""
        self._structure = Structure(self.module)
        self._tensors = dict(self.module.state_dict(keep_vars=True))
        self._names = {id(p): name for name, p in self.module.named_parameters()}
        self._subnetworks: OrderedDict[KeptCounts, SubNetwork] = OrderedDict()
        self._workspace: Workspace | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out all that refers to the tensors of this very network."""
        if self._workspace is not None:
            self._workspace.packed.move_out()
        return {name: value for name, value in vars(self).items() if name not in OF_THIS_NETWORK}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def follow(self) -> int:
        """Begin anew if layers, parameters or buffers were exchanged for others of the same shapes.

        All that works on the network asks for it. Values, ``requires_grad``, modes and plain
        settings of layers need nothing: sub-networks follow them when they are filled.

        Returns
        -------
        int
            How often it began anew. Names of parameters and sub-networks are of this time.

        Raises
        ------
        InputError
            If a tensor has another shape or is shared, or other filters can be dropped now.
        """
        if not self._structure.is_current():
            self._check_exchanged()
            if self._workspace is not None:
                self._workspace.is_current = False
            self._begin()
            self.times += 1
        return self.times

    def _check_exchanged(self) -> None:
        what_to_do = "make a new DroppableNetwork of the changed network"
        tensors = named_tensors(self.module)
        found = {name: tuple(one.shape) for name, one in tensors.items()}
        for name in (*self.channels.shapes, *found):
            expected = self.channels.shapes.get(name, "none")
            if found.get(name, "none") != expected:
                raise InputError(
                    f"tensor {name} of the network is {found.get(name, 'missing')} now: expected "
                    f"{expected}, as when its filters were traced; {what_to_do}"
                )
        check_tensors(tensors, self.channels.axes)
        modules = list(self.module.modules())
        if len(modules) == len(self._structure.modules) and all(
            map(operator.is_, modules, self._structure.modules)
        ):
            return
        channels = trace_channels(self.module, self.example)
        if channels.fingerprint != self.channels.fingerprint:
            raise InputError(
                "layers of the network were exchanged, and other filters can be dropped or cost "
                f"other MACs now: expected layers like those before; {what_to_do}"
            )
        check_dropping_equals_zeroing(self.module, channels, self.example, self.scaling)
        self.channels = channels

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The channel groups, in the order of a dropout vector."""
        return self.channels.groups

    @property
    def full_counts(self) -> KeptCounts:
        """The kept counts of the full network."""
        return self.channels.widths

    @property
    def parameter_names(self) -> dict[int, str]:
        """The name of each parameter by its ``id``, as of the last `follow`."""
        return self._names

    def copy_state(self) -> dict[str, Tensor]:
        """Return copies of the full network's parameters and buffers by name."""
        self.follow()
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
        self.follow()
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

        Raises
        ------
        InputError
            See `follow`.
        VectorError
            If they are no sequence that fits the groups.
        """
        self.follow()
        if not isinstance(counts, tuple):  # which has no place in the cache
            counts = check_counts(counts, self.groups)
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

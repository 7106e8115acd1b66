"""Nested sub-networks that compute the same alone and inside of larger ones.

Where the weights from later filters to earlier ones are zero, dropping the later ones changes
nothing about the earlier: neither their outputs nor what batch normalisation measures there. The
outputs of the network are then a sum over levels, each of which adds to those before it.

References
----------
Vu, Eder, Price, Frahm: Any-width networks, CVPR workshops 2020 (lower-triangular weights, so that
narrower networks are exact parts of wider ones).

He, Zhang, Ren, Sun: Delving deep into rectifiers, ICCV 2015, section 2.2 (variance of initial
weights over the number of inputs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distreal_dse.dropout._channels import ChannelMap, Units, WeightedLayer
from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._vector import KeptCounts, check_counts
from distreal_dse.errors import InputError, UnsupportedModelError


class Nesting:
    """Levels of filters in a network; none takes inputs from a higher level.

    Parameters
    ----------
    network
        Ends in a linear layer whose outputs are those of the network, shape [N, classes].
    levels
        Kept counts of each level with those below it, rising in every group, the full network's
        last; at least one.

    Raises
    ------
    InputError
        If the levels don't rise up to the full network.
    UnsupportedModelError
        If the network doesn't end in a linear layer, if another layer takes filters that can be
        dropped to channels that can't, or if a normalisation mixes filters.
    """

    def __init__(self, network: DroppableNetwork, levels: Sequence[KeptCounts]) -> None:
        channels = network.channels
        _check_levels(levels, channels)
        self._network = network
        self.levels = tuple(levels)
        self._level_of = _levels_of_units(channels, self.levels)
        self._head = _head_of(network)
        self._closed = {
            layer.name: closed
            for layer in channels.layers
            if layer is not self._head and (closed := self._closed_in(layer)) is not None
        }
        self._columns: dict[tuple[KeptCounts, torch.device], list[Tensor]] = {}
        self._beyond: dict[tuple[str, KeptCounts, torch.device], Tensor | None] = {}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self._network.module.parameters()).device

    @torch.no_grad()
    def begin(self) -> None:
        """Make initial weights those of nested levels; once, before any training.

        Weights from higher levels are set to zero, and so are those of the outputs for all levels
        but the first: the network begins as its first level. What is left of the inputs of a filter
        is scaled by √(all inputs / inputs left), so that it spreads as if it had been initialised
        for so many inputs.
        """
        module = self._network.module
        for name, closed in self._closed.items():
            weight = module.get_submodule(name).get_parameter("weight")
            wider = (closed.shape[1] / (~closed).sum(1)).double().sqrt()
            weight.mul_(wider.to(weight).view(-1, *[1] * (weight.dim() - 1)))
        self.hold()
        head = module.get_submodule(self._head.name).get_parameter("weight")
        first = self._level_of[self._head.inputs] == 0
        head.mul_(math.sqrt(len(first) / int(first.sum())))
        head[:, torch.from_numpy(~first).to(head.device)] = 0

    @torch.no_grad()
    def hold(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Set the weights from higher levels to zero again; after each step of an optimiser.

        Those of the network, or of others like it: by name, the first axes of their shapes free.

        For optimisers that work on each element alone, this is as if these weights weren't there,
        but that their gradients count in `DropoutTrainer`'s ``clip_norm``.
        """
        for name, closed in self._closed.items():
            weight = self._network.module.get_submodule(name).get_parameter("weight")
            kernel_axes = [1] * (weight.dim() - 2)
            held = weight if parameters is None else parameters[f"{name}.weight"]
            if closed.device != held.device:  # once: whoever copies to a GPU waits for it
                self._closed[name] = closed = closed.to(held.device)
            held.masked_fill_(closed.view(*closed.shape, *kernel_axes), 0)

    def outputs(self, module: nn.Module, inputs: Tensor, counts: KeptCounts) -> list[Tensor]:
        """Return what each level adds to the outputs of a sub-network.

        Parameters
        ----------
        module
            The full network, or the sub-network of a level.
        inputs
            Shape [N, ...].
        counts
            Those of the level.

        Returns
        -------
        list of Tensor
            Shape [N, classes] each, the first with the bias. Their sum is ``module(inputs)``.
        """
        head = module.get_submodule(self._head.name)
        seen: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            module(inputs)
        finally:
            handle.remove()
        assert isinstance(head, nn.Linear)
        weight = head.weight
        parts = []
        for level, columns in enumerate(self._columns_of(counts, weight.device)):
            taken, weights = seen[0].index_select(1, columns), weight.index_select(1, columns)
            parts.append(functional.linear(taken, weights, None if level else head.bias))
        return parts

    def beyond_core(self, loss: Tensor, module: nn.Module, counts: KeptCounts) -> Tensor:
        """Return a loss of the same value that teaches nothing to the first level.

        Its gradient is that of the loss for the parameters of higher levels, and 0 for all others.
        It is worked out here, so that the graph of the loss is run through once more by whoever
        calls ``backward``.

        Parameters
        ----------
        loss
            Of the outputs of the module, a scalar.
        module
            The full network, or the sub-network of a level.
        counts
            Those of the level.
        """
        named = {name: one for name, one in module.named_parameters() if one.requires_grad}
        gradients = torch.autograd.grad(
            loss, list(named.values()), retain_graph=True, allow_unused=True
        )
        teaches = loss.detach()
        for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
            beyond = self.elements_beyond_core(counts, name, parameter)
            if gradient is not None and beyond is not None:
                given = (parameter * torch.where(beyond, gradient, 0)).sum()
                teaches = teaches + (given - given.detach())
        return teaches

    def elements_beyond_core(
        self, counts: KeptCounts, name: str, parameter: Tensor
    ) -> Tensor | None:
        """Return which elements of a parameter of a level's sub-network are not the first level's.

        A mask of its shape; None for no element.
        """
        key = (name, counts, parameter.device)
        if key not in self._beyond:
            last, beyond = self.levels.index(counts), None
            for axis, units in enumerate(self._network.channels.axes.get(name, ())):
                if units is None:
                    continue
                levels = self._level_of[units]
                own = torch.from_numpy(levels[levels <= last] > 0).to(parameter.device)
                own = own.view(-1, *[1] * (parameter.dim() - 1 - axis))
                beyond = own if beyond is None else beyond | own
            self._beyond[key] = None if beyond is None else beyond.expand(parameter.shape)
        return self._beyond[key]

    def _columns_of(self, counts: KeptCounts, device: torch.device) -> list[Tensor]:
        """Columns of the head's weight in the sub-network of a level, by level."""
        key = (counts, device)
        if key not in self._columns:
            last = self.levels.index(counts)
            levels = self._level_of[self._head.inputs]
            kept = levels[levels <= last]
            self._columns[key] = [
                torch.from_numpy(np.flatnonzero(kept == level)).to(device)
                for level in range(last + 1)
            ]
        return self._columns[key]

    def _closed_in(self, layer: WeightedLayer) -> Tensor | None:
        """Weights of a layer from higher levels, shape [outputs, inputs]; None for no such."""
        axes = self._network.channels.axes.get(f"{layer.name}.weight", ())
        rows, columns = (*axes, None, None)[:2]
        if columns is None:  # no input can be dropped; depthwise, say
            return None
        if rows is None:
            raise UnsupportedModelError(
                f"layer {layer.name} takes filters that can be dropped to channels that can't: "
                "nested levels need such channels at the network's inputs and outputs alone"
            )
        return torch.from_numpy(self._level_of[columns][None] > self._level_of[rows][:, None])


def _check_levels(levels: Sequence[KeptCounts], channels: ChannelMap) -> None:
    for counts in levels:
        check_counts(counts, channels.groups)
    rising = all(
        all(a <= b for a, b in zip(lower, upper, strict=True))
        for lower, upper in zip(levels, levels[1:], strict=False)
    )
    if not levels or not rising or tuple(levels[-1]) != channels.widths:
        raise InputError(
            "nested levels: expected kept counts that rise in every group up to the full "
            f"network's {channels.widths}, found {list(levels)}"
        )
    for norm in channels.norms:
        if norm.groups is not None:
            raise UnsupportedModelError(
                f"layer {norm.name} normalises over several filters at once: nested levels need "
                "batch or instance normalisation"
            )


def _levels_of_units(channels: ChannelMap, levels: Sequence[KeptCounts]) -> Units:
    """The level of each unit, and 0 for what is always kept; shape [units + 1]."""
    found = [
        np.searchsorted([counts[group] for counts in levels], np.arange(width), side="right")
        for group, width in enumerate(channels.widths)
    ]
    return np.concatenate([*found, np.zeros(1, dtype=np.int64)]).astype(np.int64)


def _head_of(network: DroppableNetwork) -> WeightedLayer:
    """The linear layer whose outputs are those of the network."""
    layer = network.channels.layers[-1]
    head = network.module.get_submodule(layer.name)
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda _, given, result: seen.append(result))
    training = network.module.training
    network.module.eval()  # so that no running statistic is touched
    try:
        with torch.no_grad():
            outputs = network.module(network.example)
    finally:
        handle.remove()
        network.module.train(training)
    last = seen[-1] if seen else None
    fits = isinstance(head, nn.Linear) and isinstance(outputs, Tensor) and outputs.dim() == 2
    if not fits or last is None or not torch.equal(last, outputs):
        raise UnsupportedModelError(
            f"the last layer, {layer.name}: nested levels need a network that ends in a linear "
            "layer whose outputs, shape [N, classes], are those of the network"
        )
    return layer

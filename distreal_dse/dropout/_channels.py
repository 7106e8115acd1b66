"""What can be dropped in a network: channel groups, and where their channels lie in each tensor.

Every channel that may be dropped is a *unit*. Channels that a residual addition (or a depthwise
or grouped convolution, or group normalisation) ties together are one unit. Units are numbered
through the network so that each group holds a contiguous range; one more number,
``ChannelMap.fixed``, stands for all channels that are always kept (the network's input and output,
hidden features of linear layers on flat input, channels that are split or shuffled by count).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Units = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels with one dropout rate.

    ``name`` is the first layer that produces them, ``layers`` are all of them, and ``channels``
    counts the units, each of which is kept or dropped as a whole.
    """

    name: str
    channels: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class WeightedLayer:
    """A convolution or linear layer: which units it sums over and which it produces.

    ``inputs`` are the units along the input axis of its weight (for a grouped convolution those
    of one convolution group), ``outputs`` those along the output axis. ``positions`` is the number
    of multiply-accumulates per sample for one input and one output channel: kernel size × output
    positions (of a linear layer on [N, …, features]: the product of the axes in between).
    ``weight_gradient`` is false for a frozen layer, ``input_gradient`` where nothing trainable lies
    before it, so that back-propagation stops there.
    """

    name: str
    inputs: Units
    outputs: Units
    positions: int
    weight_gradient: bool
    input_gradient: bool


@dataclass(frozen=True)
class NormLayer:
    """A norm layer whose sizes can't be read from its tensors, or that mixes channels.

    ``units`` lie along ``axis`` of its input. It takes its statistics over the *kept* channels in
    each of ``groups`` equal parts of them; ``groups`` is None where no statistics are taken over
    several units (instance normalisation; group normalisation whose groups are units).
    """

    name: str
    units: Units
    axis: int
    groups: int | None


@dataclass(frozen=True)
class ChannelMap:
    """The channel groups of a network and the units along each axis of its tensors.

    ``axes`` maps the name of a parameter or buffer to the units along its first axes, ``None``
    for an axis that is always whole; tensors that are not named are always whole. ``norms`` are
    group, layer and instance normalisations; batch normalisations are known by their tensors.
    """

    groups: tuple[ChannelGroup, ...]
    axes: Mapping[str, tuple[Units | None, ...]]
    layers: tuple[WeightedLayer, ...]
    shapes: Mapping[str, tuple[int, ...]]
    norms: tuple[NormLayer, ...] = ()

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Units of each group: the kept counts of the full network."""
        return tuple(group.channels for group in self.groups)

    @cached_property
    def channels_per_unit(self) -> tuple[int, ...]:
        """Channels of a unit of each group, in the layer that the group is named after.

        More than one under group normalisation and in grouped convolutions.
        """
        outputs = {layer.name: layer.outputs for layer in self.layers}
        group_of = self.group_of_unit()
        return tuple(
            int((group_of[outputs[group.layers[0]]] == index).sum()) // group.channels
            for index, group in enumerate(self.groups)
        )

    @property
    def fixed(self) -> int:
        """The number that stands for channels that are always kept (= number of units)."""
        return sum(self.widths)

    @property
    def fingerprint(self) -> str:
        """Hash of what a front belongs to: tensors, groups, and the sums that layers take.

        Another width makes another network, and so does another stride or pooling.
        """
        described = {
            "layers": [
                [layer.name, layer.inputs.tolist(), layer.outputs.tolist(), layer.positions]
                for layer in self.layers
            ],
            "groups": [[group.name, group.channels, *group.layers] for group in self.groups],
            "tensors": sorted([name, *shape] for name, shape in self.shapes.items()),
        }
        canonical = json.dumps(described, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def group_of_unit(self) -> Units:
        """The index of the group of each unit; ``len(groups)`` for the fixed one.  Shape [U+1]."""
        return np.repeat(np.arange(len(self.groups) + 1), (*self.widths, 1))

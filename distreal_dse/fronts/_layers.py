"""What kept counts are in each layer, in channels and MACs: for readers of a front."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distreal_dse.fronts._front import Front, kept_counts_key

LAYERS = "layers"
"""The name, among the settings of a front, under which a search stores what `layer_costs` reads."""

FIXED = "fixed"
"""Stands for channels that are always kept, beside the indices of channel groups."""


@dataclass(frozen=True)
class LayerCost:
    """Training MACs of a convolution or linear layer as a function of the kept counts.

    Parameters
    ----------
    name
        Of the layer.
    macs
        Of forward and backward pass of one sample, for one input and one output channel.
    inputs, outputs
        Channels along the input and output axis for each kept unit of a channel group, by the index
        of the group as text; those under `FIXED` are always there.
    """

    name: str
    macs: float
    inputs: Mapping[str, float]
    outputs: Mapping[str, float]

    def training(self, kept_counts: Sequence[int]) -> float:
        """MACs of the forward and backward pass of one sample."""
        return (
            self.macs * _channels(self.inputs, kept_counts) * _channels(self.outputs, kept_counts)
        )


def layer_costs(front: Front) -> tuple[LayerCost, ...]:
    """The layers of the network of a front; empty where the front doesn't tell."""
    try:
        layers = tuple(
            LayerCost(
                str(entry["name"]),
                float(entry["macs"]),
                _weights(entry["inputs"]),
                _weights(entry["outputs"]),
            )
            for entry in front.settings[LAYERS]
        )
        for layer in layers:  # an index beyond the groups
            layer.training([group.channels for group in front.groups])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return ()  # settings are free, e.g. of an imported front
    return layers


# What `distreal_dse.dropout` appends to the name of a layer that begins several groups.
_ORDINAL = re.compile(r":\d+$")


@dataclass(frozen=True)
class ChannelCounts:
    """Turns kept counts, which are of units, into channels, which people count.

    A unit is what is kept or dropped as a whole: mostly one channel, but all channels of a norm
    group under group normalisation, and one of each convolution group of a grouped convolution.

    Parameters
    ----------
    per_unit
        Channels of a unit of each channel group, in the layer that the group is named after; None
        where it is not known, so that units are all that can be told.
    """

    per_unit: tuple[int, ...] | None

    @property
    def noun(self) -> str:
        """What the counts are of, for people: ``channels``, or ``units`` where that is unknown."""
        return "units" if self.per_unit is None else "channels"

    def of(self, kept_counts: Sequence[int]) -> tuple[int, ...]:
        """Return the channels that are kept of each group, or the units where that is unknown."""
        if self.per_unit is None:
            return tuple(kept_counts)
        return tuple(n * size for n, size in zip(kept_counts, self.per_unit, strict=True))

    def text(self, kept_counts: Sequence[int]) -> str:
        """Return the same as text, such as ``32-16``."""
        return kept_counts_key(self.of(kept_counts))


def channel_counts(front: Front) -> ChannelCounts:
    """Return how many channels the units of a front have, as far as its layers tell."""
    outputs = {layer.name: layer.outputs for layer in reversed(layer_costs(front))}
    sizes = []
    for index, group in enumerate(front.groups):
        layer = outputs.get(group.name) or outputs.get(_ORDINAL.sub("", group.name)) or {}
        size = layer.get(str(index), 0.0)
        if not (size >= 1 and size.is_integer()):  # an imported front may say anything
            return ChannelCounts(None)
        sizes.append(int(size))
    return ChannelCounts(tuple(sizes))


def _weights(entry: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): float(value) for key, value in entry.items()}


def _channels(weights: Mapping[str, float], kept_counts: Sequence[int]) -> float:
    return sum(
        weight * (1 if key == FIXED else kept_counts[int(key)]) for key, weight in weights.items()
    )

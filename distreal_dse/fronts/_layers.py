"""What each layer of a network costs, from the kept counts alone: for readers of a front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distreal_dse.fronts._front import Front

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


def _weights(entry: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): float(value) for key, value in entry.items()}


def _channels(weights: Mapping[str, float], kept_counts: Sequence[int]) -> float:
    return sum(
        weight * (1 if key == FIXED else kept_counts[int(key)]) for key, weight in weights.items()
    )

"""Training multiply-accumulates (MACs), exact, from the kept counts alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distreal_dse.dropout import ChannelMap, KeptCounts, WeightedLayer

Floats = npt.NDArray[np.float64]

# Federated devices ask before each mini-batch, for few different vectors.
KNOWN_VECTORS = 4096


class MacCost:
    """MACs of a network as a function of its kept counts.

    Counted are convolutions and linear layers, per sample. The forward pass of a layer takes
    ``positions · inputs · outputs`` MACs; the gradient of its weight as many again unless it is
    frozen, and the gradient of its input as many again unless nothing trainable lies before it (a
    product of matrices in each case; Goodfellow et al., Deep Learning, section 6.5).

    Parameters
    ----------
    channels
        The channel map of the network.
    """

    def __init__(self, channels: ChannelMap) -> None:
        self._inputs = positions_per_group(channels, [layer.inputs for layer in channels.layers])
        self._outputs = positions_per_group(channels, [layer.outputs for layer in channels.layers])
        self._forward = np.array([layer.positions for layer in channels.layers], dtype=np.float64)
        self._training = self._forward * [
            1 + layer.weight_gradient + layer.input_gradient for layer in channels.layers
        ]
        self.layers: tuple[WeightedLayer, ...] = channels.layers
        self._known: dict[KeptCounts, float] = {}
        self.full: float = self.training(channels.widths)

    def forward(self, counts: Sequence[int]) -> float:
        """MACs of the forward pass of one sample."""
        return float(self.forward_many([counts])[0])

    def training(self, counts: Sequence[int]) -> float:
        """MACs of the forward and backward pass of one sample."""
        counts = tuple(counts)
        macs = self._known.get(counts)
        if macs is None:
            if len(self._known) >= KNOWN_VECTORS:
                self._known.clear()
            macs = self._known[counts] = float(self.training_many([counts])[0])
        return macs

    def forward_many(self, counts: Sequence[Sequence[int]] | npt.NDArray[np.int64]) -> Floats:
        """MACs of the forward pass for each of ``n`` vectors, shape [n]."""
        return self._products(counts) @ self._forward

    def training_many(self, counts: Sequence[Sequence[int]] | npt.NDArray[np.int64]) -> Floats:
        """MACs of forward and backward pass for each of ``n`` vectors, shape [n]."""
        return self._products(counts) @ self._training

    def training_per_layer(self, counts: Sequence[int]) -> dict[str, float]:
        """MACs of forward and backward pass of one sample, by layer."""
        macs = self._products([counts])[0] * self._training
        return dict(zip((layer.name for layer in self.layers), macs.tolist(), strict=True))

    def terms(self) -> list[tuple[str, float, tuple[float, ...], tuple[float, ...]]]:
        """What the training MACs of each layer are the product of.

        Returns
        -------
        list of tuple
            For each layer its name, the MACs for one input and one output channel, and the channels
            along its input and its output axis for each kept unit of a group. The last of these
            [groups + 1] numbers counts the channels that are always kept.
        """
        return [
            (layer.name, float(macs), tuple(inputs.tolist()), tuple(outputs.tolist()))
            for layer, macs, inputs, outputs in zip(
                self.layers, self._training, self._inputs, self._outputs, strict=True
            )
        ]

    def _products(self, counts: Sequence[Sequence[int]] | npt.NDArray[np.int64]) -> Floats:
        """Inputs × outputs of each layer for each vector, shape [n, layers]."""
        extended = np.ones((len(counts), self._inputs.shape[1]))  # the last one: fixed channels
        extended[:, :-1] = counts
        products: Floats = (extended @ self._inputs.T) * (extended @ self._outputs.T)
        return products


def positions_per_group(channels: ChannelMap, axes: Sequence[npt.NDArray[np.int64]]) -> Floats:
    """How many channels along each axis one kept unit of each group brings, [axes, groups + 1]."""
    group_of = channels.group_of_unit()
    widths = np.array([*channels.widths, 1])
    return np.stack(
        [np.bincount(group_of[units], minlength=len(widths)) / widths for units in axes]
    )

"""From what a walk over the graph found to channel groups and numbered units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from distreal_dse.dropout._channels import (
    ChannelGroup,
    ChannelMap,
    NormLayer,
    Units,
    WeightedLayer,
)
from distreal_dse.dropout._identities import FIXED, Identities, Traced
from distreal_dse.dropout._sharing import sharing
from distreal_dse.errors import UnsupportedModelError


class TracedLayer(NamedTuple):
    """A `WeightedLayer` in the making, with identities in place of units."""

    name: str
    inputs: Tensor
    outputs: Tensor
    positions: int
    weight_gradient: bool
    input_gradient: bool


class TracedNorm(NamedTuple):
    """A `NormLayer` in the making, with identities in place of units."""

    name: str
    channels: Tensor
    axis: int
    groups: int | None


@dataclass
class Findings:
    """What a walk over the graph found, by channel identities.

    ``axes`` holds the identities along the first axes of layers' tensors, ``attributes`` those of
    parameters that forward() uses itself. ``produced`` maps a layer to those of its filters, and
    ``refusals`` are the messages to give if any of the identities beside them can be dropped.
    """

    identities: Identities = field(default_factory=Identities)
    axes: dict[str, tuple[Tensor | None, ...]] = field(default_factory=dict)
    attributes: dict[str, Traced] = field(default_factory=dict)
    layers: list[TracedLayer] = field(default_factory=list)
    norms: list[TracedNorm] = field(default_factory=list)
    produced: dict[str, Tensor] = field(default_factory=dict)
    refusals: list[tuple[Tensor, str]] = field(default_factory=list)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def numbered_map(model: nn.Module, found: Findings) -> ChannelMap:
    """Turn merged identities into groups (same producing layers) and numbered units.

    Raises
    ------
    UnsupportedModelError
        If droppable channels entered what can't be followed, or if there are none.
    """
    tensors = named_tensors(model)
    roots_of = found.identities.roots
    producers: dict[int, list[str]] = {}
    for layer, identities in found.produced.items():
        for root in dict.fromkeys(roots_of(identities).tolist()):
            if root != FIXED:
                producers.setdefault(root, []).append(layer)
    for identities, message in found.refusals:
        if not producers.keys().isdisjoint(roots_of(identities).tolist()):
            raise UnsupportedModelError(message)
    members: dict[tuple[str, ...], list[int]] = {}
    for root, producing in producers.items():
        members.setdefault(tuple(producing), []).append(root)

    groups, unit_of, taken = [], dict[int, int](), dict[str, int]()
    for layers, roots in members.items():
        taken[layers[0]] = taken.get(layers[0], 0) + 1
        suffix = f":{taken[layers[0]]}" if taken[layers[0]] > 1 else ""
        groups.append(ChannelGroup(layers[0] + suffix, len(roots), layers))
        first = len(unit_of)
        unit_of.update((root, first + i) for i, root in enumerate(sorted(roots)))
    if not groups:
        raise UnsupportedModelError(
            f"model {type(model).__name__} has no filters that can be dropped: expected "
            "a convolution that is not the network's output, and whose channels are not split "
            "by count"
        )
    fixed = len(unit_of)

    def numbered(identities: Tensor) -> Units:
        return np.array([unit_of.get(root, fixed) for root in roots_of(identities).tolist()])

    for name, traced in found.attributes.items():
        (axis,) = traced.varying
        along = traced.identities.flatten()
        found.axes.setdefault(name, (along,) if axis == 0 else (None, along))
    axes: dict[str, tuple[Units | None, ...]] = {}
    for name, of_axes in found.axes.items():
        units = [None if ids is None else numbered(ids) for ids in of_axes]
        cut = tuple(u if u is not None and (u != fixed).any() else None for u in units)
        if any(u is not None for u in cut):
            axes[name] = cut
    check_tensors(tensors, axes)
    return ChannelMap(
        groups=tuple(groups),
        axes=axes,
        layers=tuple(
            WeightedLayer(
                layer.name,
                numbered(layer.inputs),
                numbered(layer.outputs),
                layer.positions,
                layer.weight_gradient,
                layer.input_gradient,
            )
            for layer in found.layers
        ),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        norms=tuple(
            NormLayer(norm.name, numbered(norm.channels), norm.axis, norm.groups)
            for norm in found.norms
        ),
    )


def check_tensors(
    tensors: Mapping[str, Tensor], axes: Mapping[str, tuple[Units | None, ...]]
) -> None:
    """Make sure that each tensor that is cut is the network's own, under one name.

    Raises
    ------
    UnsupportedModelError
        Naming those that are not.
    """
    for name in axes:
        if name not in tensors:
            raise UnsupportedModelError(
                f"layer {name.rpartition('.')[0]} computes its {name.rpartition('.')[2]} from "
                "other parameters: expected an ordinary one; remove its parametrisation"
            )
    names_of: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names_of.setdefault(id(tensor), []).append(name)
    for names in names_of.values():
        if len(names) > 1:
            raise UnsupportedModelError(
                f"tensors {' and '.join(names)} are the same: expected layers to share no "
                "parameters or buffers"
            )
    for pair in sharing(tensors):
        if not axes.keys().isdisjoint(pair):  # whole tensors may: they stay where they are
            raise UnsupportedModelError(
                f"tensors {' and '.join(pair)} share memory: expected each that filters are cut "
                "from to have its own; make one of them from a clone()"
            )

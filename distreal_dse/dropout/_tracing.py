"""Finds the channel groups of a network by following its channels through `torch.fx`.

Each tensor of the traced graph carries the identity of the channel of each of its elements. A
convolution makes new identities, data movement moves them, an addition merges those of its
operands (union-find). What remains distinct at the end can be dropped on its own. What splits or
shuffles channels by their count keeps all that enter it; operations that this tracing does not
know are refused where droppable channels enter them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from distreal_dse.dropout._channels import ChannelMap
from distreal_dse.dropout._graph import Shape, describe, traced_graph
from distreal_dse.dropout._identities import FIXED, Traced, reshape
from distreal_dse.dropout._numbering import (
    Findings,
    TracedLayer,
    TracedNorm,
    named_tensors,
    numbered_map,
)
from distreal_dse.dropout._operations import (
    AXIS_FUNCTIONS,
    BATCH_NORMS,
    CONCATENATIONS,
    CONVOLUTIONS,
    ELEMENTWISE_FUNCTIONS,
    FLATTENINGS,
    INSTANCE_NORMS,
    INTERLEAVING_FUNCTIONS,
    INTERLEAVING_MODULES,
    POINTWISE_FUNCTIONS,
    POINTWISE_MODULES,
    REASONS,
    REDUCTIONS,
    RESHAPES,
    SPATIAL_FUNCTIONS,
    SPATIAL_MODULES,
    SPLITS,
    SQUEEZES,
    UNFLATTENINGS,
    has_forward_of_its_kind,
    is_stochastic_depth,
)
from distreal_dse.errors import UnsupportedModelError

# What a node gives: a tensor, or several.
Followed = Traced | list[Traced]


def trace_channels(model: nn.Module, example: Tensor) -> ChannelMap:
    """Discover the channel groups of ``model``, as it is wired in training mode.

    Parameters
    ----------
    model
        Any CNN that `torch.fx` can trace; it is not changed.
    example
        A batch of inputs, shape [N, C, ...], N ≥ 1.

    Raises
    ------
    UnsupportedModelError
        If the model can't be traced or an operation can't be followed.
    """
    return _ChannelTracer(model, *traced_graph(model, example)).run()


class _ChannelTracer:
    """One walk over the graph in execution order.

    What can't be followed is noted and judged at the end, when it is known which of the channels
    that entered it can be dropped; until then the walk goes on as if they were always kept.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, results: Mapping[fx.Node, Any]) -> None:
        self._model = model
        self._graph = graph
        self._results = results
        self._modules = dict(model.named_modules())
        self._tensors = named_tensors(model)
        self._found = Findings()
        self._traced: dict[fx.Node, Followed] = {}
        self._trainable: dict[fx.Node, bool] = {}
        self._seen: set[str] = set()

    def run(self) -> ChannelMap:
        for node in self._graph.nodes:
            self._trainable[node] = any(self._trainable[source] for source in node.all_input_nodes)
            if node.op == "output":
                for source in self._sources(node):
                    self._found.identities.keep(self._all_identities(source))
            elif self._shape(node) is not None or isinstance(self._results[node], list):
                self._traced[node] = self._follow(node)
        return numbered_map(self._model, self._found)

    def _follow(self, node: fx.Node) -> Followed:
        """The channels of ``node``, from those of its inputs."""
        if node.op == "placeholder":
            return self._fixed(node)
        if node.op == "get_attr":
            return self._attribute(node)
        sources = self._sources(node)
        if not sources:  # a tensor made from sizes alone
            return self._fixed_results(node)
        target: Any = node.target
        if target is operator.getitem and isinstance(self._traced.get(sources[0]), list):
            part: int = self._values(node.args[1])
            return self._several(sources[0])[part]
        if node.op != "call_module" and target in CONCATENATIONS:
            return self._concatenate(node, sources)
        if any(isinstance(self._traced[source], list) for source in sources):
            return self._refuse(node, sources, "this operation is not known")
        if node.op == "call_module":
            return self._follow_module(node, str(target), self._modules[target], sources)
        if target in POINTWISE_FUNCTIONS or is_stochastic_depth(target):
            return self._of(sources[0])
        if target in ELEMENTWISE_FUNCTIONS:
            return self._merge(node, sources)
        if target in SPATIAL_FUNCTIONS:
            return self._pool(node, sources[0], SPATIAL_FUNCTIONS[target])
        if target is torch.nn.functional.pad:
            padding = self._values(self._argument(node, 1, "pad"))
            return self._pool(node, sources[0], len(padding) // 2)
        if target in AXIS_FUNCTIONS:
            return self._move_axes(node, sources[0])
        if target in SQUEEZES:
            return self._squeeze(node, sources[0])
        if target in RESHAPES:
            sizes: Any = node.args[1:] or (node.kwargs.get("shape", ()),)
            sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
            return self._reshape(node, sources[0], sizes)
        if target in UNFLATTENINGS:
            axis = self._values(self._argument(node, 1, "dim"))
            return self._unflatten(node, sources[0], axis, self._argument(node, 2, "sizes"))
        if target in FLATTENINGS:
            return self._reshape(node, sources[0], ())
        if target is operator.getitem:
            return self._index(node, sources[0], self._values(node.args[1]))
        if target in SPLITS:
            axis = self._values(self._argument(node, SPLITS[target], "dim", 0))
            return self._split(node, sources[0], axis)
        if target in INTERLEAVING_FUNCTIONS:
            return self._keep_whole(node, sources[0])
        if target in REDUCTIONS:
            return self._reduce(node, sources[0])
        return self._refuse(node, sources, "this operation is not known")

    def _follow_module(
        self, node: fx.Node, name: str, module: nn.Module, sources: Sequence[fx.Node]
    ) -> Followed:
        sized = isinstance(module, (*INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm))
        if sized or any(True for _ in module.parameters()):
            if any(parameter.requires_grad for parameter in module.parameters()):
                self._trainable[node] = True
            if name in self._seen:
                raise UnsupportedModelError(
                    f"layer {name} is called more than once: expected layers with parameters to "
                    "be used once per forward(); give each use its own layer"
                )
            self._seen.add(name)
        if len(sources) != 1:
            return self._refuse(node, sources, "it takes several tensors")
        source = sources[0]
        if isinstance(module, CONVOLUTIONS):
            return self._convolve(node, name, module, source)
        if isinstance(module, nn.Linear):
            return self._project(node, name, module, source)
        if isinstance(module, BATCH_NORMS):
            return self._normalize(node, name, module, source)
        if isinstance(module, INSTANCE_NORMS):
            self._found.norms.append(TracedNorm(name, self._channels(node, source, 1), 1, None))
            return self._normalize(node, name, module, source)
        if isinstance(module, nn.GroupNorm):
            return self._normalize_groups(node, name, module, source)
        if isinstance(module, nn.LayerNorm):
            return self._normalize_channels(node, name, module, source)
        if isinstance(module, nn.PReLU):
            if module.num_parameters == 1:
                return self._of(source)
            self._found.axes[f"{name}.weight"] = (self._channels(node, source, 1),)
            return self._of(source)
        if isinstance(module, nn.Flatten):
            return self._reshape(node, source, ())
        if isinstance(module, nn.Unflatten):
            return self._unflatten(node, source, module.dim, module.unflattened_size)
        if isinstance(module, POINTWISE_MODULES):
            return self._of(source)
        if type(module) in SPATIAL_MODULES:
            return self._pool(node, source, SPATIAL_MODULES[type(module)])
        if isinstance(module, INTERLEAVING_MODULES):
            return self._keep_whole(node, source)
        return self._refuse(node, [source], REASONS.get(type(module), "this layer is not known"))

    # --- Layers with weights ----------------------------------------------------------------------

    def _convolve(self, node: fx.Node, name: str, conv: nn.Module, source: fx.Node) -> Traced:
        assert isinstance(conv, CONVOLUTIONS)
        incoming, shape = self._channels(node, source, 1), self._shape(node)
        assert shape is not None
        if conv.groups == 1:
            outputs, summed = self._found.identities.new(conv.out_channels), incoming
            self._found.produced[name] = outputs
        elif conv.groups == conv.in_channels:
            multiplier = conv.out_channels // conv.in_channels
            outputs = incoming.repeat_interleave(multiplier)
            summed = torch.tensor([FIXED])  # each filter sees the one channel that it filters
        else:
            # All convolution groups keep the same channels, so that they stay equally large.
            outputs = self._found.identities.new(conv.out_channels)
            self._found.produced[name] = outputs
            for identities in (incoming, outputs):
                self._tie(identities.chunk(conv.groups))
            summed = incoming.chunk(conv.groups)[0]
        self._found.axes[f"{name}.weight"] = (outputs, summed)
        if conv.bias is not None:
            self._found.axes[f"{name}.bias"] = (outputs,)
        positions = math.prod(conv.kernel_size) * math.prod(shape[2:])
        self._add_layer(node, name, conv.weight, source, summed, outputs, positions)
        return Traced.along_axis(outputs, 1, shape)

    def _project(self, node: fx.Node, name: str, linear: nn.Linear, source: fx.Node) -> Traced:
        """Follow a linear layer: on [N, …, features], a pointwise convolution.

        Of flat features [N, features] only those are dropped that a convolution's channels are
        tied to, such as a gate per channel.
        """
        shape = self._shape(node)
        assert shape is not None
        incoming = self._channels(node, source, len(shape) - 1)
        outputs = self._found.identities.new(linear.out_features)
        if len(shape) > 2:
            self._found.produced[name] = outputs
        self._found.axes[f"{name}.weight"] = (outputs, incoming)
        if linear.bias is not None:
            self._found.axes[f"{name}.bias"] = (outputs,)
        positions = math.prod(shape[1:-1])
        self._add_layer(node, name, linear.weight, source, incoming, outputs, positions)
        return Traced.along_axis(outputs, len(shape) - 1, shape)

    def _add_layer(
        self,
        node: fx.Node,
        name: str,
        weight: Tensor,
        source: fx.Node,
        summed: Tensor,
        outputs: Tensor,
        positions: int,
    ) -> None:
        self._found.layers.append(
            TracedLayer(
                name, summed, outputs, positions, weight.requires_grad, self._trainable[source]
            )
        )

    # --- Normalisation ----------------------------------------------------------------------------

    def _normalize(self, node: fx.Node, name: str, norm: nn.Module, source: fx.Node) -> Traced:
        incoming = self._channels(node, source, 1)
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            if getattr(norm, tensor, None) is not None:
                self._found.axes[f"{name}.{tensor}"] = (incoming,)
        return self._of(source)

    def _normalize_groups(
        self, node: fx.Node, name: str, norm: nn.GroupNorm, source: fx.Node
    ) -> Traced:
        incoming = self._channels(node, source, 1)
        parts = incoming.chunk(norm.num_groups)
        whole = norm.num_groups >= len(parts[0])
        # Many small norm groups are dropped whole; few large ones stay, and stay equally large.
        self._tie(torch.stack(parts).unbind(1) if whole else parts)
        groups = None if whole else norm.num_groups
        self._found.norms.append(TracedNorm(name, incoming, 1, groups))
        return self._normalize(node, name, norm, source)

    def _normalize_channels(
        self, node: fx.Node, name: str, norm: nn.LayerNorm, source: fx.Node
    ) -> Followed:
        traced, count = self._of(source), len(norm.normalized_shape)
        last = len(traced.shape) - 1
        axis = last
        if not has_forward_of_its_kind(norm) and len(traced.varying) == 1:
            # A subclass may move the axes, as torchvision's LayerNorm2d does. That it normalises
            # over the channels is an assumption, which the numerical check puts to the test.
            axis = traced.varying[0]
        if (
            count == 1
            and traced.varying == (axis,)
            and traced.shape[axis] == norm.normalized_shape[0]
        ):
            incoming = self._channels(node, source, axis)
            self._found.norms.append(TracedNorm(name, incoming, axis, 1))
            for tensor in ("weight", "bias"):
                if getattr(norm, tensor, None) is not None:
                    self._found.axes[f"{name}.{tensor}"] = (incoming,)
        elif any(varying > last - count for varying in traced.varying) or (
            traced.varying and axis != last
        ):
            return self._refuse(
                node, [source], "it normalises over channels and other axes together"
            )
        return traced

    # --- Operations without weights ---------------------------------------------------------------

    def _attribute(self, node: fx.Node) -> Traced:
        """A parameter or buffer that forward() uses itself, such as a scale per channel."""
        name, shape = str(node.target), self._shape(node)
        assert shape is not None
        tensor = self._tensors.get(name)
        self._trainable[node] = tensor is not None and tensor.requires_grad
        wide = [axis for axis, size in enumerate(shape) if size > 1]
        if tensor is None or len(wide) != 1 or wide[0] > 1:
            return self._fixed(node)
        if name not in self._found.attributes:
            identities = self._found.identities.new(shape[wide[0]])
            self._found.attributes[name] = Traced.along_axis(identities, wide[0], shape)
        return self._found.attributes[name]

    def _merge(self, node: fx.Node, sources: Sequence[fx.Node]) -> Followed:
        """Tie the operands of an element-wise operation; those that are broadcast are left."""
        shape = self._shape(node)
        assert shape is not None
        if not shape:
            return self._fixed(node)
        operands = []
        for source in sources:
            traced, missing = self._of(source), len(shape) - len(self._of(source).shape)
            index = (None,) * missing
            operands.append(Traced(traced.identities[(*index, ...)], (1,) * missing + traced.shape))
        axes = {axis for traced in operands for axis in traced.varying}
        if len(axes) > 1:
            return self._refuse(node, sources, "its operands carry channels along different axes")
        axis = axes.pop() if axes else min(1, len(shape) - 1)
        whole = [
            operand.identities
            for operand, source in zip(operands, sources, strict=True)
            if operand.shape[axis] == shape[axis]
            and (shape[axis] > 1 or len(self._of(source).shape) == len(shape))
        ]
        for other in whole[1:]:
            self._found.identities.merge(*torch.broadcast_tensors(whole[0], other))
        return Traced(max(whole, key=Tensor.numel), shape)

    def _pool(self, node: fx.Node, source: fx.Node, count: int | None) -> Followed:
        traced, shape = self._of(source), self._shape(node)
        if shape is None:
            return self._refuse(node, [source], "it gives several tensors")
        count = len(traced.shape) - 2 if count is None else count
        if len(shape) != len(traced.shape) or any(
            axis >= len(shape) - count for axis in traced.varying
        ):
            return self._refuse(node, [source], "it works along the axis of the channels")
        return Traced(traced.identities, shape)

    def _move_axes(self, node: fx.Node, source: fx.Node) -> Traced:
        arguments, options = self._arguments(node, self._of(source).identities)
        target: Any = node.target
        if isinstance(target, str):
            moved = getattr(arguments[0], target)(*arguments[1:], **options)
        else:
            moved = target(*arguments, **options)
        return Traced(moved, self._shape(node) or ())

    def _squeeze(self, node: fx.Node, source: fx.Node) -> Followed:
        traced, axes = self._of(source), self._values(self._argument(node, 1, "dim"))
        axes = [axes] if isinstance(axes, int) else axes
        if axes is None or any(traced.shape[axis] > 1 for axis in axes):
            return self._refuse(
                node, [source], "it could drop the axis of a single channel; name axes of size 1"
            )
        gone = {axis % len(traced.shape) for axis in axes}
        sizes = [size for axis, size in enumerate(traced.identities.shape) if axis not in gone]
        return Traced(traced.identities.reshape(sizes), self._shape(node) or ())

    def _reshape(self, node: fx.Node, source: fx.Node, sizes: Any) -> Followed:
        shape = self._shape(node)
        assert shape is not None
        found = reshape(self._of(source), shape)
        if found is None:
            return self._keep_whole(node, source)
        traced, holding = found
        if isinstance(sizes, Sequence) and len(sizes) == len(shape):
            for axis in holding:
                if isinstance(sizes[axis], int) and sizes[axis] != -1:
                    return self._refuse(
                        node,
                        [source],
                        f"its size {shape[axis]} is hard-coded; write -1 or use flatten",
                    )
        return traced

    def _unflatten(self, node: fx.Node, source: fx.Node, axis: Any, sizes: Any) -> Followed:
        before = len(self._of(source).shape)
        if not isinstance(axis, int) or not isinstance(sizes, Sequence):  # named axes
            return self._reshape(node, source, ())
        axis %= before
        return self._reshape(node, source, [-1] * axis + [*sizes] + [-1] * (before - axis - 1))

    def _index(self, node: fx.Node, source: fx.Node, index: Any) -> Followed:
        traced = self._of(source)
        index = index if isinstance(index, tuple) and not isinstance(index, Shape) else (index,)
        if not all(part is None or part is ... or isinstance(part, (int, slice)) for part in index):
            return self._refuse(node, [source], "it takes elements by a tensor or list")
        named = sum(part is not None and part is not ... for part in index)
        where = index.index(...) if ... in index else len(index)
        rest = [slice(None)] * (len(traced.shape) - named)
        index = (*index[:where], *rest, *index[where + 1 :])
        of_axes = [part for part in index if part is not None]
        if any(of_axes[axis] != slice(None) for axis in traced.varying):
            return self._keep_whole(node, source)
        return Traced.of(traced.full[index])

    def _split(self, node: fx.Node, source: fx.Node, axis: int) -> Followed:
        traced = self._of(source)
        if axis % len(traced.shape) in traced.varying:
            self._found.identities.keep(traced.identities)
            return self._fixed_results(node)
        return [
            Traced(traced.identities.squeeze(axis), tuple(shape))
            if len(shape) < len(traced.shape)
            else Traced(traced.identities, tuple(shape))
            for shape in self._results[node]
        ]

    def _concatenate(self, node: fx.Node, sources: Sequence[fx.Node]) -> Traced:
        tensors, shape = self._argument(node, 0, "tensors"), self._shape(node)
        assert shape is not None
        if isinstance(tensors, fx.Node):
            parts = self._several(tensors)
        else:
            parts = [self._of(tensor) for tensor in tensors]
        axis = self._values(self._argument(node, 1, "dim", 0)) % len(shape)
        if node.target is torch.stack:
            parts = [
                Traced(part.identities.unsqueeze(axis), (*part.shape[:axis], 1, *part.shape[axis:]))
                for part in parts
            ]
        wide = {axis, *(varying for part in parts for varying in part.varying)}
        joined = torch.cat(
            [
                part.identities.expand([s if a in wide else 1 for a, s in enumerate(part.shape)])
                for part in parts
            ],
            axis,
        )
        if wide != {axis}:  # joined along positions: a channel goes through all of them
            first = joined.narrow(axis, 0, 1)
            self._found.identities.merge(first.expand_as(joined), joined)
            joined = first
        return Traced(joined, shape)

    def _reduce(self, node: fx.Node, source: fx.Node) -> Followed:
        traced, shape = self._of(source), self._shape(node)
        assert shape is not None
        axes = self._values(self._argument(node, 1, "dim"))
        count = len(traced.shape)
        axes = range(count) if axes is None else [axes] if isinstance(axes, int) else axes
        reduced = {axis % count for axis in axes}
        if not reduced.isdisjoint(traced.varying):
            return self._refuse(node, [source], "it mixes channels")
        sizes = [
            size
            for axis, size in enumerate(traced.identities.shape)
            if axis not in reduced or len(shape) == count
        ]
        return Traced(traced.identities.reshape(sizes), shape)

    # --- Helpers ----------------------------------------------------------------------------------

    def _shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """Shape of the tensor that ``node`` gives; None where it gives something else."""
        result = self._results[node]
        return tuple(result) if isinstance(result, Shape) else None

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        return [source for source in node.all_input_nodes if source in self._traced]

    def _of(self, node: fx.Node) -> Traced:
        traced = self._traced[node]
        assert isinstance(traced, Traced)
        return traced

    def _several(self, node: fx.Node) -> list[Traced]:
        traced = self._traced[node]
        assert isinstance(traced, list)
        return traced

    def _all_identities(self, node: fx.Node) -> Tensor:
        traced = self._traced[node]
        parts = traced if isinstance(traced, list) else [traced]
        return torch.cat([part.identities.flatten() for part in parts])

    def _channels(self, node: fx.Node, source: fx.Node, axis: int) -> Tensor:
        """Identities along ``axis`` of what enters a layer, shape [channels]."""
        traced = self._of(source)
        channels = traced.channels(axis)
        if channels is None:
            self._refuse(node, [source], f"it expects channels along axis {axis} of its input only")
            return torch.full([traced.shape[axis]], FIXED)
        return channels

    def _tie(self, parts: Sequence[Tensor]) -> None:
        for other in parts[1:]:
            self._found.identities.merge(parts[0], other)

    def _argument(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        if len(node.args) > position:
            return node.args[position]
        return node.kwargs.get(name, default)

    def _values(self, argument: Any) -> Any:
        """An argument with the recorded values in place of nodes."""
        return fx.node.map_arg(argument, self._results.__getitem__)

    def _arguments(self, node: fx.Node, first: Tensor) -> tuple[list[Any], dict[str, Any]]:
        """Arguments of a call on ``first`` in place of the tensor that it is called on."""
        arguments = [self._values(argument) for argument in node.args]
        options = {name: self._values(argument) for name, argument in node.kwargs.items()}
        if arguments:
            arguments[0] = first
        else:
            options["input"] = first
        return arguments, options

    def _fixed(self, node: fx.Node) -> Traced:
        return Traced.fixed(self._shape(node) or ())

    def _fixed_results(self, node: fx.Node) -> Followed:
        result = self._results[node]
        if isinstance(result, Shape):
            return self._fixed(node)
        return [Traced.fixed(part) for part in result if isinstance(part, Shape)]

    def _keep_whole(self, node: fx.Node, source: fx.Node) -> Traced:
        """Never drop the channels of ``source``: ``node`` splits or orders them by count."""
        self._found.identities.keep(self._all_identities(source))
        return self._fixed(node)

    def _refuse(self, node: fx.Node, sources: Sequence[fx.Node], why: str) -> Followed:
        """Refuse ``node`` if droppable channels enter it, which is known at the end."""
        for source in sources:
            message = f"filters can't be dropped through {describe(node)}: {why}"
            self._found.refusals.append((self._all_identities(source), message))
        return self._fixed_results(node)

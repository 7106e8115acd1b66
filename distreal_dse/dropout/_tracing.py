"""Finds the channel groups of a network by following its channels through `torch.fx`.

Each tensor of the traced graph carries the identities of its channels as an integer array. A
convolution makes new identities, a concatenation chains arrays, an addition merges the identities
of its operands (union-find). What remains distinct at the end can be dropped on its own.
Operations that this tracing does not know are refused where droppable channels enter them.
"""

from __future__ import annotations

import copy
import io
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from distreal_dse.dropout._channels import ChannelGroup, ChannelMap, Units, WeightedLayer
from distreal_dse.errors import UnsupportedModelError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

# Modules and functions that treat every channel on its own and have no parameters.
CHANNELWISE_MODULES = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AlphaDropout,
    nn.AvgPool1d, nn.AvgPool2d, nn.CELU, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.ELU, nn.GELU,
    nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU, nn.MaxPool1d,
    nn.MaxPool2d, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh,
    nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip
CHANNELWISE_FUNCTIONS: frozenset[Any] = frozenset({
    functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d, functional.avg_pool2d,
    functional.dropout, functional.dropout2d, functional.elu, functional.gelu,
    functional.hardsigmoid, functional.hardswish, functional.hardtanh, functional.interpolate,
    functional.leaky_relu, functional.max_pool2d, functional.mish, functional.relu,
    functional.relu6, functional.sigmoid, functional.silu, functional.softplus, functional.tanh,
    torch.abs, torch.neg, torch.relu, torch.relu_, torch.sigmoid, torch.tanh,
    "clamp", "contiguous", "relu", "relu_", "sigmoid", "tanh",
})  # fmt: skip
ELEMENTWISE_FUNCTIONS: frozenset[Any] = frozenset({
    operator.add, operator.iadd, operator.imul, operator.isub, operator.mul, operator.sub,
    operator.truediv, torch.add, torch.div, torch.mul, torch.sub,
    "add", "add_", "div", "mul", "mul_", "sub", "sub_",
})  # fmt: skip
CONCATENATIONS = frozenset({torch.cat, torch.concat, torch.concatenate})
FLATTENINGS: frozenset[Any] = frozenset(
    {torch.flatten, torch.reshape, "flatten", "reshape", "view"}
)
MEANS: frozenset[Any] = frozenset({torch.mean, "mean"})


def trace_channels(model: nn.Module, example: Tensor) -> ChannelMap:
    """Discover the channel groups of ``model``.

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
    network = copy.deepcopy(model).eval()
    try:
        graph_module = fx.symbolic_trace(network)
    except Exception as error:  # tracing runs the user's forward(), which may raise anything
        raise UnsupportedModelError(
            f"model {type(model).__name__} can't be traced by torch.fx ({_first_line(error)}): "
            "expected a forward() without control flow on tensor values"
        ) from error
    try:
        # ShapeProp prints a traceback of its own before it raises.
        with torch.no_grad(), redirect_stderr(io.StringIO()):
            ShapeProp(graph_module).propagate(example)
    except Exception as error:  # likewise
        raise UnsupportedModelError(
            f"model {type(model).__name__} does not run on an input of shape "
            f"{tuple(example.shape)}: {_first_line(error.__cause__ or error)}"
        ) from error
    return _Tracer(model, graph_module).run()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Identities:
    """Union-find over channel identities; merged identities are kept or dropped together."""

    def __init__(self) -> None:
        self._parents: list[int] = []

    def new(self, count: int) -> Units:
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def root(self, identity: int) -> int:
        while self._parents[identity] != identity:
            self._parents[identity] = self._parents[self._parents[identity]]
            identity = self._parents[identity]
        return identity

    def merge(self, left: Units, right: Units) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted((self.root(one), self.root(other)))
            self._parents[second] = first

    def roots(self, identities: Units) -> Units:
        return np.array([self.root(identity) for identity in identities.tolist()], dtype=np.int64)


class _Tracer:
    """One walk over the graph in execution order."""

    def __init__(self, model: nn.Module, graph_module: fx.GraphModule) -> None:
        self._model = model
        self._graph_module = graph_module
        self._modules = dict(model.named_modules())
        self._identities = _Identities()
        self._always_kept: list[Units] = []
        self._channels: dict[fx.Node, Units] = {}  # identities along axis 1
        self._trainable: dict[fx.Node, bool] = {}
        self._axes: dict[str, tuple[Units | None, ...]] = {}
        self._layers: list[WeightedLayer] = []
        self._produced: dict[str, Units] = {}  # convolution → identities of its filters
        self._seen: set[str] = set()

    def run(self) -> ChannelMap:
        for node in self._graph_module.graph.nodes:
            self._trainable[node] = any(self._trainable[source] for source in node.all_input_nodes)
            if node.op == "output":
                self._always_kept += [self._of(source) for source in node.all_input_nodes]
            elif _shape(node) is not None:
                self._channels[node] = self._follow(node)
            elif "tensor_meta" in node.meta:
                sources = [source for source in node.all_input_nodes if source in self._channels]
                self._refuse_unless_kept(node, sources, "it gives several tensors")
        return self._number_units()

    def _follow(self, node: fx.Node) -> Units:
        """Identities of the channels of ``node``, from those of its inputs."""
        if node.op in ("placeholder", "get_attr"):
            self._trainable[node] = node.op == "get_attr"
            return self._keep_all(node)
        sources = [source for source in node.all_input_nodes if source in self._channels]
        if node.op == "call_module":
            name = str(node.target)
            return self._follow_module(node, name, self._modules[name], sources)
        target = node.target
        if target in CHANNELWISE_FUNCTIONS:
            return self._of(sources[0])
        if target in ELEMENTWISE_FUNCTIONS:
            return self._merge(node, sources)
        if target in CONCATENATIONS:
            return self._concatenate(node, sources)
        if target in FLATTENINGS:
            return self._flatten(node, sources[0])
        if target is operator.getitem and _keeps_channels(node.args[1]):
            return self._of(sources[0])
        if target in MEANS:
            return self._mean(node, sources[0])
        return self._refuse_unless_kept(node, sources, "this operation is not known")

    def _follow_module(
        self, node: fx.Node, name: str, module: nn.Module, sources: Sequence[fx.Node]
    ) -> Units:
        if any(True for _ in module.parameters()):
            if any(parameter.requires_grad for parameter in module.parameters()):
                self._trainable[node] = True
            if name in self._seen:
                raise UnsupportedModelError(
                    f"layer {name} is called more than once: expected layers with parameters to "
                    "be used once per forward(); give each use its own layer"
                )
            self._seen.add(name)
        if len(sources) != 1:
            return self._refuse_unless_kept(node, sources, "it takes several tensors")
        incoming = self._of(sources[0])
        if isinstance(module, CONVOLUTIONS):
            return self._convolve(node, name, module, incoming, self._trainable[sources[0]])
        if isinstance(module, nn.Linear):
            return self._project(node, name, module, sources[0])
        if isinstance(module, BATCH_NORMS):
            for tensor in ("weight", "bias", "running_mean", "running_var"):
                if getattr(module, tensor) is not None:
                    self._axes[f"{name}.{tensor}"] = (incoming,)
            return incoming
        if isinstance(module, nn.Flatten):
            return self._flatten(node, sources[0])
        if isinstance(module, CHANNELWISE_MODULES):
            return incoming
        return self._refuse_unless_kept(node, sources, "this layer is not known")

    def _convolve(
        self, node: fx.Node, name: str, conv: nn.Module, incoming: Units, input_gradient: bool
    ) -> Units:
        assert isinstance(conv, CONVOLUTIONS)
        if conv.groups == 1:
            outputs, summed = self._identities.new(conv.out_channels), incoming
            self._produced[name] = outputs
        elif conv.groups == conv.in_channels:
            outputs, summed = np.repeat(incoming, conv.out_channels // conv.in_channels), None
        else:
            # All convolution groups keep the same channels, so that they stay equally large.
            outputs = self._identities.new(conv.out_channels)
            self._produced[name] = outputs
            for identities in (incoming, outputs):
                first, *others = np.split(identities, conv.groups)
                for other in others:
                    self._identities.merge(first, other)
            summed = np.split(incoming, conv.groups)[0]
        self._axes[f"{name}.weight"] = (outputs, summed)
        if conv.bias is not None:
            self._axes[f"{name}.bias"] = (outputs,)
        shape = _shape(node)
        assert shape is not None
        self._layers.append(
            WeightedLayer(
                name=name,
                inputs=self._one_kept() if summed is None else summed,
                outputs=outputs,
                positions=math.prod(conv.kernel_size) * math.prod(shape[2:]),
                weight_gradient=conv.weight.requires_grad,
                input_gradient=input_gradient,
            )
        )
        return outputs

    def _project(self, node: fx.Node, name: str, linear: nn.Linear, source: fx.Node) -> Units:
        shape = _shape(node)
        assert shape is not None
        if len(shape) != 2:
            return self._refuse_unless_kept(
                node, [source], "a linear layer needs flat input of shape [N, features]"
            )
        outputs, incoming = self._keep_all(node), self._of(source)
        self._axes[f"{name}.weight"] = (None, incoming)
        self._layers.append(
            WeightedLayer(
                name, incoming, outputs, 1, linear.weight.requires_grad, self._trainable[source]
            )
        )
        return outputs

    def _merge(self, node: fx.Node, sources: Sequence[fx.Node]) -> Units:
        """Channels of an element-wise operation; those of broadcast operands are left alone."""
        shape = _shape(node)
        assert shape is not None
        whole = []
        for source in sources:
            of_source = _shape(source)
            assert of_source is not None
            if len(of_source) == len(shape) and _axis_1(of_source) == _axis_1(shape):
                whole.append(self._of(source))
            elif math.prod(of_source) != 1 and (
                len(of_source) != len(shape) or _axis_1(of_source) != 1
            ):
                return self._refuse_unless_kept(node, sources, "its operands differ in channels")
        for other in whole[1:]:
            self._identities.merge(whole[0], other)
        return whole[0]

    def _concatenate(self, node: fx.Node, sources: Sequence[fx.Node]) -> Units:
        axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if axis != 1:
            return self._refuse_unless_kept(node, sources, "it concatenates another axis than 1")
        tensors = node.kwargs.get("tensors", node.args[0] if node.args else ())
        assert isinstance(tensors, Sequence)
        return np.concatenate([self._of(tensor) for tensor in tensors])

    def _flatten(self, node: fx.Node, source: fx.Node) -> Units:
        before, after = _shape(source), _shape(node)
        assert before is not None and after is not None
        if len(before) < 2 or after != (before[0], math.prod(before[1:])):
            return self._refuse_unless_kept(node, [source], "only [N, C, …] → [N, C · …] is known")
        sizes = [size for size in node.args[1:] if isinstance(size, int)]
        is_flatten = node.op == "call_module" or node.target in (torch.flatten, "flatten")
        if not is_flatten and after[1] in sizes:
            return self._refuse_unless_kept(
                node, [source], f"its size {after[1]} is hard-coded; write -1 or use flatten"
            )
        return np.repeat(self._of(source), math.prod(before[2:]))

    def _mean(self, node: fx.Node, source: fx.Node) -> Units:
        before, axes = _shape(source), node.kwargs.get("dim", [*node.args, None][1])
        assert before is not None
        reduced = axes if isinstance(axes, Sequence) else [axes]
        if any(not isinstance(axis, int) or axis % len(before) < 2 for axis in reduced):
            return self._refuse_unless_kept(node, [source], "it averages over channels")
        return self._of(source)

    def _of(self, node: Any) -> Units:
        return self._channels[node]

    def _one_kept(self) -> Units:
        identity = self._identities.new(1)
        self._always_kept.append(identity)
        return identity

    def _keep_all(self, node: fx.Node) -> Units:
        """New identities along axis 1 of ``node`` that are always kept."""
        identities = self._identities.new(_axis_1(_shape(node) or ()))
        self._always_kept.append(identities)
        return identities

    def _refuse_unless_kept(self, node: fx.Node, sources: Sequence[fx.Node], why: str) -> Units:
        """Follow an unknown operation where no droppable channel enters it; else refuse it."""
        kept = {self._identities.root(i) for ids in self._always_kept for i in ids.tolist()}
        for source in sources:
            if not kept.issuperset(self._identities.roots(self._of(source)).tolist()):
                raise UnsupportedModelError(
                    f"filters can't be dropped through {_describe(node)}: {why}"
                )
        return self._keep_all(node)

    def _number_units(self) -> ChannelMap:
        """Turn merged identities into groups (same producing layers) and numbered units."""
        roots_of = self._identities.roots
        kept = {root for ids in self._always_kept for root in roots_of(ids).tolist()}
        producers: dict[int, list[str]] = {}
        for layer, identities in self._produced.items():
            for root in dict.fromkeys(roots_of(identities).tolist()):
                if root not in kept:
                    producers.setdefault(root, []).append(layer)
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
                f"model {type(self._model).__name__} has no filters that can be dropped: expected "
                "a convolution that is not the network's output"
            )
        fixed = len(unit_of)

        def numbered(identities: Units) -> Units:
            return np.array([unit_of.get(root, fixed) for root in roots_of(identities).tolist()])

        axes: dict[str, tuple[Units | None, ...]] = {}
        for name, units in self._axes.items():
            along = tuple(None if ids is None else numbered(ids) for ids in units)
            along = tuple(u if u is not None and (u != fixed).any() else None for u in along)
            if any(u is not None for u in along):
                axes[name] = along
        tensors: Mapping[str, Tensor] = {
            **dict(self._model.named_parameters(remove_duplicate=False)),
            **dict(self._model.named_buffers(remove_duplicate=False)),
        }
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
                for layer in self._layers
            ),
            shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        )


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the tensor that ``node`` gives; None where it gives something else."""
    meta = node.meta.get("tensor_meta")
    shape = getattr(meta, "shape", None)
    return None if shape is None else tuple(shape)


def _keeps_channels(index: Any) -> bool:
    """Whether indexing with ``index`` takes all samples and all channels, such as [:, :, 0]."""
    whole = slice(None)
    return isinstance(index, tuple) and len(index) > 2 and index[0] == index[1] == whole


def _axis_1(shape: Sequence[int]) -> int:
    return shape[1] if len(shape) > 1 else 1


def _describe(node: fx.Node) -> str:
    target: str | Callable[..., Any] = node.target
    if node.op == "call_module":
        return f"layer {target}"
    scope = [str(name) for name in node.meta.get("nn_module_stack", {}) if name]
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return f"{name}() in {scope[-1] if scope else 'the model'}"

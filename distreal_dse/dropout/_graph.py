"""The traced graph of a network, and the shapes and values that its nodes give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from distreal_dse.dropout._copying import copied, refuse_lazy_layers
from distreal_dse.dropout._operations import has_forward_of_its_kind
from distreal_dse.errors import UnsupportedModelError


def traced_graph(model: nn.Module, example: Tensor) -> tuple[fx.Graph, Mapping[fx.Node, Any]]:
    """Graph of ``model`` in training mode, and what each node gives on ``example``.

    In place of tensors the results have their `Shape`.

    Raises
    ------
    UnsupportedModelError
        If the model can't be traced or does not run on the example.
    """
    refuse_lazy_layers(model)
    network = copied(model).train()
    try:
        graph_module = fx.GraphModule(network, _GraphTracer().trace(network))
    except Exception as error:  # tracing runs the user's forward(), which may raise anything
        raise UnsupportedModelError(
            f"model {type(model).__name__} can't be traced by torch.fx ({_first_line(error)}): "
            "expected a forward() without control flow on tensor values"
        ) from error
    # Batch normalisation in training mode would refuse a batch of one.
    recorder = _Recorder(graph_module.eval())
    try:
        with torch.no_grad(), torch.random.fork_rng(device_indices(example.device)):
            recorder.run(example)
    except Exception as error:  # likewise
        raise UnsupportedModelError(
            f"model {type(model).__name__} does not run on an input of shape "
            f"{tuple(example.shape)}: {_first_line(error)}"
        ) from error
    return graph_module.graph, recorder.results


def device_indices(device: torch.device) -> list[torch.device]:
    """What `torch.random.fork_rng` has to put back beside the CPU's generator."""
    return [device] if device.type == "cuda" else []


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _GraphTracer(fx.Tracer):
    """Takes subclasses of known layers whole, such as torchvision's LayerNorm2d."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            super().is_leaf_module(m, module_qualified_name)
            or isinstance(m, nn.LayerNorm)
            or has_forward_of_its_kind(m)
        )


class Shape(tuple[int, ...]):
    """The shape of a recorded tensor; a plain tuple is a value of the forward pass."""


class _Recorder(fx.Interpreter):
    """Runs the graph and records what each node gives, with shapes in place of tensors."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.results: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.results[n] = _without_tensors(result)
        return result


def _without_tensors(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Shape(value.shape)
    if isinstance(value, (list, tuple)) and any(isinstance(part, Tensor) for part in value):
        return [_without_tensors(part) for part in value]
    return value


def describe(node: fx.Node) -> str:
    """What a message calls ``node``: the layer, or the function and the layer it is called in."""
    target: str | Callable[..., Any] = node.target
    if node.op == "call_module":
        return f"layer {target}"
    scope = [str(name) for name in node.meta.get("nn_module_stack", {}) if name]
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return f"{name}() in {scope[-1] if scope else 'the model'}"

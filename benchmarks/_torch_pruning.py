"""Torch-Pruning beside our tracer: its groups, its pruning, and its groups as our channel map."""

from __future__ import annotations

import copy
import importlib
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from distreal_dse.dropout import (
    BATCH_NORMS,
    ChannelGroup,
    ChannelMap,
    NormLayer,
    WeightedLayer,
)

INSTALL = "torch-pruning is not installed: pip install --no-deps 'torch-pruning>=1.6,<1.7'"
WEIGHTED = (nn.Conv2d, nn.Linear)
Units = npt.NDArray[np.int64]


def library() -> Any:
    """The package, imported when it is needed: it is no dependency of ours."""
    try:
        return importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        if error.name != "torch_pruning":
            raise
        sys.exit(INSTALL)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings: Torch-Pruning announces parameters that it prunes by default rules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def output_layer(model: nn.Module) -> nn.Module:
    """The layer that gives the network's output; Torch-Pruning has to be told to leave it."""
    return [part for part in model.modules() if isinstance(part, WEIGHTED)][-1]


def find_groups(model: nn.Module, example: Tensor) -> tuple[Any, list[Any]]:
    """Dependency graph and groups that start at a convolution, as our tracer's do."""
    with quiet():
        graph = library().DependencyGraph().build_dependency(model.eval(), example)
    ignored = [output_layer(model)]
    return graph, list(graph.get_all_groups(ignored, root_module_types=[nn.Conv2d]))


def filters_of(graph: Any, groups: list[Any]) -> dict[nn.Conv2d, int]:
    """How many filters of each convolution the groups can drop."""
    found: dict[nn.Conv2d, set[int]] = {}
    for dependency, indices in (item for group in groups for item in group.items):
        layer = dependency.layer
        if isinstance(layer, nn.Conv2d) and graph.is_out_channel_pruning_fn(dependency.pruning_fn):
            # Behind a split it may list more channels than there are.
            inside = (index for index in indices if index < layer.out_channels)
            found.setdefault(layer, set()).update(inside)
    return {layer: len(indices) for layer, indices in found.items()}


def pruned_half(model: nn.Module, example: Tensor) -> tuple[nn.Module, dict[str, Tensor]]:
    """Prune half of the channels of every group of a copy.

    This is its pruner with random importance, which treats the groups of grouped convolutions
    alike, as its authors mean it to be used.

    Returns
    -------
    tuple
        The pruned copy, and for each of its tensors the flat positions that its elements had in
        the full tensor: before pruning each element is overwritten by its own position.
    """
    package, small = library(), copy.deepcopy(model).eval()
    values = {name: value.clone() for name, value in model.state_dict().items() if value.dim()}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pruner = package.pruner.BasePruner(
            small,
            example,
            importance=package.importance.RandomImportance(),
            pruning_ratio=0.5,
            ignored_layers=[output_layer(small)],
            root_module_types=[nn.Conv2d],
        )
        for name, tensor in small.state_dict().items():
            if name in values:
                tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))
        pruner.step()
    _check_halved(model, example, small)
    positions = {name: small.state_dict()[name].long().clone() for name in values}
    for name, tensor in small.state_dict().items():
        if name in values:
            tensor.copy_(values[name].flatten()[positions[name]])
    return small, positions


def _check_halved(model: nn.Module, example: Tensor, small: nn.Module) -> None:
    """Refuse a pruned network that still has more than half of a layer: it proves nothing."""
    droppable = filters_of(*find_groups(model, example))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer in droppable:
            pruned = small.get_submodule(name)
            assert isinstance(pruned, nn.Conv2d)
            if pruned.out_channels > layer.out_channels - droppable[layer] // 2:
                raise RuntimeError(
                    f"pruner keeps {pruned.out_channels} of {layer.out_channels} filters of {name}"
                )


def error_against_zeroing(model: nn.Module, example: Tensor) -> float:
    """Largest difference of the pruned network from the zeroed one, over the largest output.

    Zeroed are, in the full network, the channels at the input of each convolution and linear
    layer whose columns were pruned from its weight; layer normalisation takes its statistics over
    the channels that it keeps, as it does in any smaller network. Both networks are in evaluation
    mode and in double precision, with random statistics and parameters of normalisation, so that a
    mixed-up index shows there too.
    """
    full, inputs = _with_random_norms(copy.deepcopy(model).double().eval()), example.double()
    small, positions = pruned_half(full, inputs)
    with torch.no_grad():
        dropped = small(inputs)
        _zero_pruned_columns(full, positions)
        _mask_layer_norms(full, positions)
        zeroed = full(inputs)
    return float((dropped - zeroed).abs().max() / zeroed.abs().max())


def _with_random_norms(model: nn.Module) -> nn.Module:
    draws = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, (*BATCH_NORMS, nn.LayerNorm)):
            for name, tensor in part.state_dict().items():
                if tensor.dim():
                    noise = torch.rand(tensor.shape, generator=draws, dtype=tensor.dtype) - 0.5
                    tensor.copy_(noise + (name in ("weight", "running_var")))
    return model


def _zero_pruned_columns(full: nn.Module, positions: dict[str, Tensor]) -> None:
    for name, layer in full.named_modules():
        if not isinstance(layer, WEIGHTED):
            continue
        kernel = math.prod(layer.weight.shape[2:])
        columns = layer.weight.shape[1]
        factor = torch.zeros(columns, dtype=torch.double)
        factor[positions[f"{name}.weight"].flatten() // kernel % columns] = 1
        if isinstance(layer, nn.Conv2d):
            factor = factor.repeat(layer.groups).view(-1, 1, 1)

        def multiply(
            _: nn.Module, inputs: tuple[Tensor, ...], factor: Tensor = factor
        ) -> tuple[Tensor, ...]:
            return (inputs[0] * factor,)

        layer.register_forward_pre_hook(multiply)


def _mask_layer_norms(full: nn.Module, positions: dict[str, Tensor]) -> None:
    for name, layer in full.named_modules():
        if not isinstance(layer, nn.LayerNorm):
            continue
        kept = positions[f"{name}.weight"]

        def normalize(
            layer: nn.LayerNorm,
            inputs: tuple[Tensor, ...],
            _: Tensor,
            kept: Tensor = kept,
        ) -> Tensor:
            axis = _normalized_axis(layer)
            values = inputs[0].movedim(axis, -1)
            outputs = torch.zeros_like(values)
            outputs[..., kept] = nn.functional.layer_norm(
                values[..., kept],
                [len(kept)],
                layer.weight[kept],
                layer.bias[kept],
                layer.eps,
            )
            return outputs.movedim(-1, axis)

        layer.register_forward_hook(normalize)


def _normalized_axis(layer: nn.LayerNorm) -> int:
    """The axis of the channels: torchvision's own class takes [N, C, H, W]."""
    return -1 if type(layer) is nn.LayerNorm else 1


def as_channel_map(model: nn.Module, example: Tensor) -> ChannelMap:
    """Torch-Pruning's groups as our channel map, which gathers and scatters per mini-batch.

    A group lists, for each layer that it touches, indices of channels and the channels of the
    group's first layer that they come from. These are our units, once the channels that a grouped
    convolution ties together are made one.
    """
    graph, groups = find_groups(model, example)
    names = {part: name for name, part in (*model.named_modules(), *model.named_parameters())}
    described, along = [], dict[tuple[str, int], Units]()
    first = 0
    for group in groups:
        unit_of, count = _units(group)
        layers = []
        for item in group.items:
            layer, outputs = item.dep.layer, graph.is_out_channel_pruning_fn(item.dep.pruning_fn)
            if layer not in names:  # an operation without tensors
                continue
            if outputs and isinstance(layer, nn.Conv2d):
                layers.append(names[layer])
            for key, size in _axes(names[layer], item.dep.target, outputs):
                units = along.setdefault(key, np.full(size, -1))
                indices = np.array(item.idxs)
                inside = indices < size  # of a grouped convolution: its first group
                units[indices[inside]] = first + unit_of[np.array(item.root_idxs)[inside]]
        described.append(ChannelGroup(layers[0], count, tuple(layers)))
        first += count
    for units in along.values():
        units[units < 0] = first
    return ChannelMap(
        groups=tuple(described),
        axes=_axes_of_tensors(along),
        layers=_weighted_layers(model, example, along, first),
        shapes={name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        norms=tuple(
            NormLayer(name, along[f"{name}.weight", 0], _normalized_axis(layer), groups=1)
            for name, layer in model.named_modules()
            if isinstance(layer, nn.LayerNorm)
        ),
    )


def _units(group: Any) -> tuple[Units, int]:
    """The unit of each channel of the group's first layer, and how many units there are."""
    labels = np.arange(1 + max(group[0].root_idxs))
    for item in group.items:
        layer = item.dep.layer
        if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.out_channels:
            roots = np.array(item.root_idxs)[np.argsort(item.idxs)]
            labels[roots] = np.tile(labels[roots[: len(roots) // layer.groups]], layer.groups)
    distinct, unit_of = np.unique(labels, return_inverse=True)
    return unit_of, len(distinct)


def _axes(name: str, node: Any, outputs: bool) -> list[tuple[tuple[str, int], int]]:
    """Axes of a layer's tensors that pruning its outputs (or inputs) shortens, and lengths."""
    layer = node.module
    if isinstance(layer, nn.Parameter):  # on its own, such as a scale per channel
        return [((name, node.pruning_dim), layer.shape[node.pruning_dim])]
    if isinstance(layer, WEIGHTED) and not outputs:
        return [((f"{name}.weight", 1), layer.weight.shape[1])]
    tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    return [((f"{name}.{key}", 0), len(tensor)) for key, tensor in tensors.items() if tensor.dim()]


def _axes_of_tensors(
    along: dict[tuple[str, int], Units],
) -> dict[str, tuple[Units | None, ...]]:
    return {name: (along.get((name, 0)), along.get((name, 1))) for name, _ in along}


def _weighted_layers(
    model: nn.Module, example: Tensor, along: dict[tuple[str, int], Units], fixed: int
) -> tuple[WeightedLayer, ...]:
    """Our description of each convolution and linear layer, in the order of their calls."""
    layers: list[WeightedLayer] = []

    def describe(name: str, layer: nn.Conv2d | nn.Linear, output: Tensor) -> None:
        rows, columns = layer.weight.shape[:2]
        kernel = layer.weight.shape[2:]
        layers.append(
            WeightedLayer(
                name=name,
                inputs=along.get((f"{name}.weight", 1), np.full(columns, fixed)),
                outputs=along.get((f"{name}.weight", 0), np.full(rows, fixed)),
                positions=math.prod(kernel)
                * math.prod(output.shape[2:] if kernel else output.shape[1:-1]),
                weight_gradient=True,
                input_gradient=bool(layers),
            )
        )

    handles = [
        layer.register_forward_hook(
            lambda layer, _, output, name=name: describe(name, layer, output)
        )
        for name, layer in model.named_modules()
        if isinstance(layer, WEIGHTED)
    ]
    with torch.no_grad():
        model(example)
    for handle in handles:
        handle.remove()
    return tuple(layers)

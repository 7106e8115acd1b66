"""Sub-networks compute what the full network computes with the dropped channels zeroed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from distreal_dse.dropout import (
    DroppableNetwork,
    KeptCounts,
    RandomMasks,
    SubNetwork,
    zero_dropped,
)
from distreal_dse.errors import InputError, VectorError
from networks import (
    CLASSES,
    NETWORKS,
    PACKINGS,
    Biased,
    Concatenating,
    Depthwise,
    GroupNormed,
    LayerNormed,
    Plain,
    Residual,
    inputs_of,
    kept_part,
    targets_of,
    trained,
)
from pairs import all_pairs

SCALINGS = ("inverted", "none")


@cache
def droppable(kind: str, scaling: str) -> DroppableNetwork:
    return DroppableNetwork(trained(NETWORKS[kind]), inputs_of(), scaling)


@pytest.fixture(scope="module", autouse=True)
def built_anew(packed: None) -> None:
    droppable.cache_clear()


def mask_of(network: DroppableNetwork, counts: KeptCounts, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return RandomMasks().draw(network.channels.widths, counts, generator)


def filled(network: DroppableNetwork, counts: KeptCounts, mask: Tensor) -> SubNetwork:
    small = network.subnetwork(counts)
    small.load(small.select(mask))
    return small


def loss_of(outputs: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets_of(len(outputs)))


def assert_close(found: Tensor, expected: Tensor, what: str = "") -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-9, atol=1e-11, msg=lambda message: f"{what}: {message}"
    )


def gradients_of_full(module: nn.Module, outputs: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss_of(outputs).backward()
    return gradients(module)


def gradients_of_small(small: SubNetwork, outputs: Tensor, mask: Tensor) -> dict[str, Tensor]:
    small.module.zero_grad()
    small.backward(loss_of(outputs))
    return gradients(small.module)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad
    return found


@pytest.mark.parametrize(
    ("kind", "scaling", "training", "packed"),
    all_pairs(NETWORKS, SCALINGS, (True, False), PACKINGS),
    indirect=["packed"],
)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_outputs_and_gradients_equal_those_of_the_zeroed_network(
    kind: str, scaling: str, training: bool, data: st.DataObject, seed: int
) -> None:
    network = droppable(kind, scaling)
    counts = tuple(data.draw(st.integers(1, width)) for width in network.channels.widths)
    mask = mask_of(network, counts, seed)

    zeroed = copy.deepcopy(network.module).train(training)
    zero_dropped(zeroed, network.channels, mask, scaling)
    expected = zeroed(inputs_of())
    small = filled(network, counts, mask)
    outputs = small.module.train(training)(inputs_of())
    assert_close(outputs, expected, "outputs")

    kept = np.append(mask.numpy(), True)
    of_small = gradients_of_small(small, outputs, mask)
    for name, of_zeroed in gradients_of_full(zeroed, expected).items():
        axes = network.channels.axes.get(name, ())
        lies = [
            np.arange(size) if units is None else kept[units].nonzero()[0]
            for size, units in zip(
                of_zeroed.shape, (*axes, *[None] * (of_zeroed.dim() - len(axes))), strict=True
            )
        ]
        scattered = torch.zeros_like(of_zeroed)  # dropped slices: no gradient
        scattered[np.ix_(*lies)] = of_small[name]
        assert_close(scattered, of_zeroed, name)


@pytest.mark.parametrize("kind", NETWORKS)
def test_kept_batch_statistics_equal_those_of_the_zeroed_network(kind: str) -> None:
    network = droppable(kind, "inverted")
    counts = tuple(max(1, width // 2) for width in network.channels.widths)
    mask = mask_of(network, counts)
    zeroed = copy.deepcopy(network.module).train()
    zero_dropped(zeroed, network.channels, mask)
    zeroed(inputs_of())
    small = filled(network, counts, mask).module.train()
    small(inputs_of())
    kept = np.append(mask.numpy(), True)
    of_zeroed = dict(zeroed.named_buffers())
    for name, statistics in small.named_buffers():
        if name in network.channels.axes:
            units = network.channels.axes[name][0]
            assert units is not None
            assert_close(statistics, of_zeroed[name][kept[units].nonzero()[0]], name)


# --- By hand: plain operations on the full tensors, without the tables of the library -------------


def normalised(maps: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean = maps.mean((0, 2, 3), keepdim=True)
    variance = ((maps - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scaled = (maps - mean) / torch.sqrt(variance + norm.eps)
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def gate(kept: list[int], width: int) -> Tensor:
    """Inverted dropout of whole channels, shape [width, 1, 1]."""
    factors = torch.zeros(width, 1, 1, dtype=torch.double)
    factors[kept] = width / len(kept)
    return factors


def layers_of(module: nn.Module) -> tuple[Any, ...]:
    assert isinstance(module, Plain)
    return tuple(module)


def plain_by_hand(module: nn.Module, kept: list[list[int]]) -> Tensor:
    conv1, norm1, _, _, conv2, norm2, _, _, head = layers_of(module)
    first = normalised(functional.conv2d(inputs_of(), conv1.weight, padding=1), norm1).clamp(min=0)
    pooled = first.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    second = functional.conv2d(pooled * gate(kept[0], 8), conv2.weight, padding=1)
    second = normalised(second, norm2).clamp(min=0) * gate(kept[1], 6)
    return functional.linear(second.reshape(len(second), 96), head.weight, head.bias)


def residual_by_hand(module: nn.Module, kept: list[list[int]]) -> Tensor:
    assert isinstance(module, Residual)
    trunk, inner_gate, wide_gate = gate(kept[0], 8), gate(kept[1], 7), gate(kept[2], 6)
    stem = functional.conv2d(inputs_of(), module.stem.weight, padding=1)
    stem = normalised(stem, module.stem_norm).clamp(min=0)
    inner = functional.conv2d(stem * trunk, module.inner.weight, padding=1)
    inner = normalised(inner, module.inner_norm).clamp(min=0)
    outer = functional.conv2d(inner * inner_gate, module.outer.weight, padding=1)
    same = (normalised(outer, module.outer_norm) + stem).clamp(min=0) * trunk
    wide = functional.conv2d(same, module.wide.weight, stride=2, padding=1)
    shortcut = functional.conv2d(same, module.shortcut.weight, stride=2)
    half = normalised(wide, module.wide_norm) + normalised(shortcut, module.shortcut_norm)
    pooled = (half.clamp(min=0) * wide_gate).mean((2, 3))
    return pooled @ module.head.weight.T + module.head.bias


def concatenating_by_hand(module: nn.Module, kept: list[list[int]]) -> Tensor:
    assert isinstance(module, Concatenating)
    stem_gate, gate1, gate2 = gate(kept[0], 6), gate(kept[1], 4), gate(kept[2], 3)
    stem = functional.conv2d(inputs_of(), module.stem.weight, padding=1)
    grow1 = functional.conv2d(stem.clamp(min=0) * stem_gate, module.grow1.weight, padding=1)
    first = torch.cat([stem, grow1], 1)
    seen = normalised(first, module.norm).clamp(min=0) * torch.cat([stem_gate, gate1])
    grow2 = functional.conv2d(seen, module.grow2.weight, padding=1)
    last = normalised(torch.cat([first, grow2], 1), module.last_norm).clamp(min=0)
    last = last.unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    last = last * torch.cat([stem_gate, gate1, gate2])
    return last.reshape(len(last), 52) @ module.head.weight.T + module.head.bias


def standardised(maps: Tensor, parts: list[list[int]], axes: tuple[int, ...]) -> Tensor:
    """Channels of each part together, mean 0 and variance 1 over ``axes``; the others zero."""
    found = torch.zeros_like(maps)
    for part in parts:
        values = maps[:, part]
        centred = values - values.mean(axes, keepdim=True)
        deviation = torch.sqrt((centred**2).mean(axes, keepdim=True) + 1e-5)
        found = found.index_copy(1, torch.tensor(part), centred / deviation)
    return found


def affine(maps: Tensor, norm: Any) -> Tensor:
    return maps * norm.weight[:, None, None] + norm.bias[:, None, None]


def group_norm_by_hand(module: Any, kept: list[list[int]]) -> Tensor:
    many = functional.conv2d(inputs_of(), module.many.weight, padding=1)
    many = standardised(many, [[2 * group, 2 * group + 1] for group in kept[0]], (1, 2, 3))
    many = affine(many, module.many_norm).clamp(min=0) * gate(MANY, 12)
    few = functional.conv2d(many, module.few.weight, module.few.bias, padding=1)
    parts = [[5 * group + channel for channel in kept[1]] for group in range(3)]
    few = torch.tanh(affine(standardised(few, parts, (1, 2, 3)), module.few_norm)) * gate(FEW, 15)
    one = functional.conv2d(few, module.one.weight, module.one.bias, stride=2)
    one = standardised(one, [kept[2]], (1, 2, 3)).clamp(min=0) * gate(kept[2], 7)
    return functional.linear(one.mean((2, 3)), module.head.weight, module.head.bias)


def layer_norm_by_hand(module: Any, kept: list[list[int]]) -> Tensor:
    trunk, hidden, down = gate(kept[0], 6), gate(kept[1], 10), gate(kept[2], 7)
    stem = functional.conv2d(inputs_of(), module.stem.weight, module.stem.bias, stride=2)
    stem = affine(standardised(stem, [kept[0]], (1,)), module.stem_norm)
    last = functional.conv2d(stem, module.depth.weight, module.depth.bias, padding=1, groups=6)
    last = standardised(last, [kept[0]], (1,)) * trunk
    # A linear layer on [N, H, W, C] is a convolution of size 1 on [N, C, H, W].
    last = functional.conv2d(last, module.widen.weight[..., None, None], module.widen.bias)
    last = functional.gelu(last) * hidden
    last = functional.conv2d(last, module.narrow.weight[..., None, None], module.narrow.bias)
    stem = (stem + module.scale * last) * trunk
    maps = functional.conv2d(stem, module.down.weight, module.down.bias, stride=2)
    maps = torch.tanh(affine(standardised(maps, [kept[2]], (1,)), module.head_norm)) * down
    return functional.linear(maps.mean((2, 3)), module.head.weight, module.head.bias)


def spread(kept: list[int], positions: int) -> list[int]:
    """Columns of a linear layer behind a flattening of ``positions`` per channel."""
    return [channel * positions + position for channel in kept for position in range(positions)]


# Kept channels of each group, and kept rows and columns of every tensor that is cut.
Kept = list[list[int]]
Cut = dict[str, tuple[list[int] | None, list[int] | None]]

PLAIN_KEPT: Kept = [[1, 2, 7], [0, 3, 4, 5]]
PLAIN_CUT: Cut = {
    "0.weight": (PLAIN_KEPT[0], None),
    "1.weight": (PLAIN_KEPT[0], None),
    "1.bias": (PLAIN_KEPT[0], None),
    "4.weight": (PLAIN_KEPT[1], PLAIN_KEPT[0]),
    "5.weight": (PLAIN_KEPT[1], None),
    "5.bias": (PLAIN_KEPT[1], None),
    "8.weight": (None, spread(PLAIN_KEPT[1], 16)),
}

TRUNK, INNER, WIDE = [0, 3, 6], [2, 3, 4, 5, 6], [5]
RESIDUAL_CUT: Cut = {
    "stem.weight": (TRUNK, None),
    "inner.weight": (INNER, TRUNK),
    "outer.weight": (TRUNK, INNER),
    "wide.weight": (WIDE, TRUNK),
    "shortcut.weight": (WIDE, TRUNK),
    "head.weight": (None, WIDE),
    **{
        f"{norm}_norm.{tensor}": (kept, None)
        for norm, kept in {
            "stem": TRUNK, "inner": INNER, "outer": TRUNK, "wide": WIDE, "shortcut": WIDE,
        }.items()
        for tensor in ("weight", "bias")
    },
}  # fmt: skip

STEM, GROW1, GROW2 = [0, 5], [1, 2, 3], [2]
FIRST = [0, 5, 6 + 1, 6 + 2, 6 + 3]  # of 6 + 4 concatenated channels
SECOND = [*FIRST, 10 + 2]
CONCATENATING_CUT: Cut = {
    "stem.weight": (STEM, None),
    "grow1.weight": (GROW1, STEM),
    "norm.weight": (FIRST, None),
    "norm.bias": (FIRST, None),
    "grow2.weight": (GROW2, FIRST),
    "last_norm.weight": (SECOND, None),
    "last_norm.bias": (SECOND, None),
    "head.weight": (None, spread(SECOND, 4)),
}


GROUP_KEPT: Kept = [[1, 4], [0, 3, 4], [1, 2, 6]]
MANY = [2, 3, 8, 9]  # two channels in each norm group
FEW = [5 * group + channel for group in range(3) for channel in GROUP_KEPT[1]]
GROUP_CUT: Cut = {
    "many.weight": (MANY, None),
    "many_norm.weight": (MANY, None),
    "many_norm.bias": (MANY, None),
    "few.weight": (FEW, MANY),
    "few.bias": (FEW, None),
    "few_norm.weight": (FEW, None),
    "few_norm.bias": (FEW, None),
    "one.weight": (GROUP_KEPT[2], FEW),
    "one.bias": (GROUP_KEPT[2], None),
    "head.weight": (None, GROUP_KEPT[2]),
}

LAYER_KEPT: Kept = [[0, 2, 5], [1, 2, 3, 7], [3, 4, 6]]
FEATURES, HIDDEN, DOWN = LAYER_KEPT
LAYER_CUT: Cut = {
    "widen.weight": (HIDDEN, FEATURES),
    "widen.bias": (HIDDEN, None),
    "narrow.weight": (FEATURES, HIDDEN),
    "down.weight": (DOWN, FEATURES),
    "down.bias": (DOWN, None),
    "head_norm.weight": (DOWN, None),
    "head_norm.bias": (DOWN, None),
    "head.weight": (None, DOWN),
    **{
        name: (FEATURES, None)
        for name in (
            "scale", "stem.weight", "stem.bias", "stem_norm.weight", "stem_norm.bias",
            "depth.weight", "depth.bias", "narrow.bias",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "by_hand", "kept", "cut"),
    [
        (Plain, plain_by_hand, PLAIN_KEPT, PLAIN_CUT),
        (Residual, residual_by_hand, [TRUNK, INNER, WIDE], RESIDUAL_CUT),
        (Concatenating, concatenating_by_hand, [STEM, GROW1, GROW2], CONCATENATING_CUT),
        (GroupNormed, group_norm_by_hand, GROUP_KEPT, GROUP_CUT),
        (LayerNormed, layer_norm_by_hand, LAYER_KEPT, LAYER_CUT),
    ],
    ids=["plain", "residual", "concatenating", "group-norm", "layer-norm"],
)
def test_outputs_and_gradients_equal_a_calculation_by_hand(
    make: Callable[[], nn.Module],
    by_hand: Callable[[nn.Module, Kept], Tensor],
    kept: Kept,
    cut: Cut,
) -> None:
    network = DroppableNetwork(trained(make), inputs_of())
    full = copy.deepcopy(network.module)
    expected = by_hand(full, kept)
    masks = [
        torch.tensor([channel in positions for channel in range(width)])
        for positions, width in zip(kept, network.channels.widths, strict=True)
    ]
    mask = torch.cat(masks)
    small = filled(network, tuple(map(len, kept)), mask)
    outputs = small.module.train()(inputs_of())
    assert_close(outputs, expected)

    of_small = gradients_of_small(small, outputs, mask)
    for name, gradient in gradients_of_full(full, expected).items():
        rows, columns = cut.get(name, (None, None))
        kept_part = gradient if rows is None else gradient[rows]
        kept_part = kept_part if columns is None else kept_part[:, columns]
        assert_close(of_small[name], kept_part, name)
        assert_close(gradient.abs().sum(), kept_part.abs().sum(), f"dropped part of {name}")


PLAIN_MASK = torch.tensor([0, 1, 0, 0, 1, 0, 0, 1] + [1, 0, 0, 0, 0, 1], dtype=torch.bool)


def test_values_are_the_slices_named_by_hand() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of(), "none")
    full = network.module.state_dict()
    small = filled(network, (3, 2), PLAIN_MASK).module.state_dict()
    assert torch.equal(small["0.weight"], full["0.weight"][[1, 4, 7]])
    assert torch.equal(small["1.running_mean"], full["1.running_mean"][[1, 4, 7]])
    assert torch.equal(small["4.weight"], full["4.weight"][[0, 5]][:, [1, 4, 7]])
    assert torch.equal(small["5.bias"], full["5.bias"][[0, 5]])
    columns = [*range(16), *range(80, 96)]  # 4 × 4 positions per channel
    assert torch.equal(small["8.weight"], full["8.weight"][:, columns])


def test_backward_leaves_the_weights_unscaled_and_the_statistics_new() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    full = copy.deepcopy(network.module.state_dict())
    small = filled(network, (3, 2), PLAIN_MASK)
    ready = dict(small.module.named_parameters())
    assert_close(ready["4.weight"], full["4.weight"][[0, 5]][:, [1, 4, 7]] * 8 / 3)
    outputs = small.module.train()(inputs_of())
    statistics = small.module.get_buffer("1.running_mean").clone()
    assert not torch.equal(statistics, full["1.running_mean"][[1, 4, 7]])
    small.backward(loss_of(outputs))
    assert torch.equal(ready["4.weight"], full["4.weight"][[0, 5]][:, [1, 4, 7]])
    assert torch.equal(small.module.get_buffer("1.running_mean"), statistics)


def test_store_writes_the_kept_slices_and_nothing_else() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of(), "none")
    expected = copy.deepcopy(network.module.state_dict())
    small = network.subnetwork((3, 2))
    kept = small.select(PLAIN_MASK)
    small.load(kept)
    with torch.no_grad():
        small.module.get_parameter("4.weight").fill_(7)
        small.module.get_buffer("1.running_var").fill_(8)
    small.store(kept)
    for row in (0, 5):
        expected["4.weight"][row, [1, 4, 7]] = 7
    expected["1.running_var"][[1, 4, 7]] = 8
    for name, value in network.module.state_dict().items():
        assert torch.equal(value, expected[name]), name


# --- Scaling --------------------------------------------------------------------------------------


class TwoConvolutions(nn.Sequential):
    """The output is linear in what the second convolution sums."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 4, 3))


@pytest.mark.parametrize(("scaling", "share"), [("inverted", 1.0), ("none", 3 / 7)])
def test_inverted_scaling_preserves_the_expected_sum(scaling: str, share: float) -> None:
    network = DroppableNetwork(trained(TwoConvolutions), inputs_of(), scaling)
    outputs = []
    for kept in combinations(range(7), 3):  # all 35 masks, each equally likely
        mask = torch.tensor([channel in kept for channel in range(7)])
        with torch.no_grad():
            outputs.append(filled(network, (3,), mask).module(inputs_of()))
    last = network.module[2]  # type: ignore[index]
    bias = last.bias.detach()[:, None, None]
    with torch.no_grad():
        full = network.module(inputs_of())
    assert_close(torch.stack(outputs).mean(0), bias + share * (full - bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_factors_that_differ_by_channel_keep_the_precision_of_the_network(
    dtype: torch.dtype,
) -> None:
    network = DroppableNetwork(trained(Concatenating).to(dtype), inputs_of().to(dtype))
    counts = (2, 3, 1)
    mask = mask_of(network, counts)
    outputs = filled(network, counts, mask).module.train()(inputs_of().to(dtype))
    assert outputs.dtype == dtype
    zero_dropped(network.module.train(), network.channels, mask)
    zeroed = network.module(inputs_of().to(dtype))
    tolerance = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(outputs, zeroed, rtol=tolerance, atol=tolerance)


def test_zeroing_ends_with_its_handles() -> None:
    network = DroppableNetwork(trained(Residual).eval(), inputs_of())
    plain = network.module(inputs_of())
    handles = zero_dropped(network.module, network.channels, mask_of(network, (4, 3, 3)))
    assert not torch.allclose(network.module(inputs_of()), plain)
    for handle in handles:
        handle.remove()
    assert torch.equal(network.module(inputs_of()), plain)


# --- Size -----------------------------------------------------------------------------------------


def test_sub_network_is_physically_smaller() -> None:
    small = DroppableNetwork(trained(Plain), inputs_of()).subnetwork((3, 2)).module
    shapes = {name: tuple(parameter.shape) for name, parameter in small.named_parameters()}
    assert shapes == {
        "0.weight": (3, 3, 3, 3),
        "1.weight": (3,),
        "1.bias": (3,),
        "4.weight": (2, 3, 3, 3),
        "5.weight": (2,),
        "5.bias": (2,),
        "8.weight": (CLASSES, 2 * 16),
        "8.bias": (CLASSES,),
    }
    conv1, norm1, _, _, conv2, norm2, _, _, head = layers_of(small)
    assert (conv1.in_channels, conv1.out_channels) == (3, 3)
    assert (conv2.in_channels, conv2.out_channels) == (3, 2)
    assert (norm1.num_features, norm2.num_features) == (3, 2)
    assert (head.in_features, head.out_features) == (32, CLASSES)


def sizes_of(conv: nn.Module) -> tuple[int, int, int]:
    assert isinstance(conv, nn.Conv2d)
    return conv.in_channels, conv.out_channels, conv.groups


def test_attributes_of_depthwise_and_grouped_convolutions_fit_their_tensors() -> None:
    depthwise = DroppableNetwork(trained(Depthwise), inputs_of()).subnetwork((3, 2, 4)).module
    for name, expected in {"depth1": (3, 3, 3), "depth2": (2, 4, 2), "point2": (4, 4, 1)}.items():
        assert sizes_of(depthwise.get_submodule(name)) == expected, name
    grouped = DroppableNetwork(trained(NETWORKS["grouped"]), inputs_of()).subnetwork((2, 1, 6))
    assert sizes_of(grouped.module.get_submodule("grouped")) == (8, 4, 4)
    assert tuple(grouped.module.get_parameter("grouped.weight").shape) == (4, 2, 3, 3)


def test_attributes_of_norms_fit_the_channels_that_are_kept() -> None:
    def attribute(module: nn.Module, name: str) -> Any:
        layer, _, attribute = name.rpartition(".")
        return getattr(module.get_submodule(layer), attribute)

    groups = DroppableNetwork(trained(GroupNormed), inputs_of()).subnetwork((2, 4, 3)).module
    for name, expected in {
        "many_norm.num_groups": 2, "many_norm.num_channels": 4, "few_norm.num_groups": 3,
        "few_norm.num_channels": 12, "one_norm.num_groups": 1, "one_norm.num_channels": 3,
    }.items():  # fmt: skip
        assert attribute(groups, name) == expected, name
    layers = DroppableNetwork(trained(LayerNormed), inputs_of()).subnetwork((2, 4, 3)).module
    for name, size in {"stem_norm": 2, "block_norm": 2, "head_norm": 3}.items():
        assert attribute(layers, f"{name}.normalized_shape") == (size,), name
    make = NETWORKS["instance-norm"]
    instances = DroppableNetwork(trained(make), inputs_of()).subnetwork((5, 4)).module
    for name, expected in {
        "first_norm.num_features": 5, "second_norm.num_features": 4, "each.num_parameters": 5,
        "all.num_parameters": 1,
    }.items():  # fmt: skip
        assert attribute(instances, name) == expected, name


@pytest.mark.parametrize("kind", NETWORKS)
def test_only_cut_tensors_take_memory_of_their_own(kind: str) -> None:
    network = droppable(kind, "inverted")
    small = network.subnetwork(tuple(1 for _ in network.groups)).module
    of_full = dict(network.module.state_dict())
    for name, tensor in small.state_dict().items():
        shared = tensor.data_ptr() == of_full[name].data_ptr()
        assert shared == (tensor.shape == of_full[name].shape), name
        assert tensor.untyped_storage().nbytes() <= of_full[name].untyped_storage().nbytes()
    assert small.state_dict().keys() == of_full.keys()
    cut = sum(parameter.numel() for parameter in small.parameters())
    assert cut < sum(parameter.numel() for parameter in network.module.parameters()) / 2


@pytest.mark.parametrize("kind", NETWORKS)
def test_memory_grows_with_the_largest_sub_network_and_earlier_ones_stay_right(kind: str) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]), inputs_of())
    widths = network.full_counts
    narrow = tuple(max(1, width // 4) for width in widths)
    wide = tuple(max(1, width - 1) for width in widths)
    mask = mask_of(network, narrow)
    small = filled(network, narrow, mask)
    before = copy.deepcopy(small.module).state_dict()

    def storages(module: nn.Module) -> dict[int, int]:
        cut = [
            tensor.untyped_storage()
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
            if name in network.channels.axes
        ]
        return {storage.data_ptr(): storage.nbytes() for storage in cut}

    assert sum(storages(small.module).values()) == values_of(small, network)
    large = filled(network, wide, mask_of(network, wide))
    assert sum(storages(large.module).values()) == values_of(large, network)
    assert storages(small.module) == storages(large.module)  # shared
    small.load(small.select(mask))
    for name, tensor in small.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def values_of(small: SubNetwork, network: DroppableNetwork) -> int:
    """Bytes of the tensors of a sub-network that are smaller than those of the network."""
    return sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in small.module.state_dict().items()
        if name in network.channels.axes
    )


def test_sub_network_of_a_vector_is_built_once() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    assert network.subnetwork((3, 2)) is network.subnetwork((3, 2))
    assert network.subnetwork((3, 2)) is not network.subnetwork((2, 2))


def test_forgotten_sub_networks_are_built_again() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    mask = mask_of(network, (1, 1))
    expected = filled(network, (1, 1), mask).module(inputs_of())
    for one in range(1, 9):
        for other in range(1, 7):
            network.subnetwork((one, other))
    assert torch.equal(filled(network, (1, 1), mask).module(inputs_of()), expected)


def test_counts_that_do_not_fit_the_network_are_refused() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    for counts in ((3,), (0, 2), (9, 2)):
        with pytest.raises(VectorError):
            network.subnetwork(counts)


def test_checking_a_network_leaves_it_as_it_was() -> None:
    module = trained(Biased)
    norms = trained(Residual).eval()
    for network in (module, norms):
        before = copy.deepcopy(network.state_dict())
        modes = [part.training for part in network.modules()]
        state = torch.get_rng_state()
        DroppableNetwork(network, inputs_of())
        assert torch.equal(torch.get_rng_state(), state)
        assert [part.training for part in network.modules()] == modes
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(not part._forward_pre_hooks for part in network.modules())


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_loaded_state_is_what_sub_networks_see(kind: str) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]), inputs_of(), "none")
    counts = tuple(max(1, width // 2) for width in network.full_counts)
    mask = mask_of(network, counts)
    filled(network, counts, mask)  # moves tensors into blocks
    before = network.copy_state()
    assert before.keys() == network.module.state_dict().keys()
    other = {
        name: tensor + 1 if tensor.is_floating_point() else tensor + 3
        for name, tensor in before.items()
    }
    network.load_state(other)
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, other[name]), name
        assert not torch.equal(tensor, before[name]), name  # which is a copy
    small = filled(network, counts, mask).module.state_dict()
    for name, tensor in small.items():
        assert torch.equal(tensor.flatten(), kept_values(network, name, mask, other[name])), name


def kept_values(network: DroppableNetwork, name: str, mask: Tensor, full: Tensor) -> Tensor:
    if name not in network.channels.axes:
        return full.flatten()
    return full[kept_part(network.channels, name, mask, full)]


def test_a_state_of_another_network_is_not_loaded() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    name, tensor = next(iter(network.copy_state().items()))
    for wrong in ({name: tensor[:1]}, {}):
        state = {key: value for key, value in network.copy_state().items() if key != name} | wrong
        with pytest.raises(InputError, match=f"tensor {name}: expected shape"):
            network.load_state(state)

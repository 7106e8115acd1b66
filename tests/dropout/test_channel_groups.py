"""Which channels are dropped together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distreal_dse.dropout import ChannelMap, DroppableNetwork, trace_channels
from networks import CLASSES, NETWORKS, Depthwise, Plain, Residual, inputs_of

# name of the group → (units, layers that produce or carry them); worked out by hand.
EXPECTED: dict[str, dict[str, tuple[int, tuple[str, ...]]]] = {
    "plain": {"0": (8, ("0",)), "4": (6, ("4",))},
    "biased": {"first": (8, ("first",)), "second": (6, ("second",))},
    "residual": {
        "stem": (8, ("stem", "outer")),
        "inner": (7, ("inner",)),
        "wide": (6, ("wide", "shortcut")),
    },
    "concatenating": {
        "stem": (6, ("stem",)),
        "grow1": (4, ("grow1",)),
        "grow2": (3, ("grow2",)),
    },
    "depthwise": {
        "stem": (8, ("stem",)),
        "point1": (6, ("point1",)),
        "point2": (5, ("point2",)),
    },
    "squeeze-excite": {
        "conv": (8, ("conv", "excite")),
        "squeeze": (4, ("squeeze",)),
        "last": (6, ("last",)),
    },
    # 12 channels in 4 convolution groups are 3 units of 4 channels each; 16 are 4 units.
    "grouped": {"stem": (3, ("stem",)), "grouped": (4, ("grouped",)), "last": (6, ("last",))},
    # 6 norm groups of 2 channels are 6 units; 3 of 5 channels each are 5 units of 3 channels.
    "group-norm": {"many": (6, ("many",)), "few": (5, ("few",)), "one": (7, ("one",))},
    "layer-norm": {
        "stem": (6, ("stem", "narrow")),
        "widen": (10, ("widen",)),
        "down": (7, ("down",)),
    },
    "instance-norm": {"first": (8, ("first",)), "second": (6, ("second",))},
    # The channels that are split and interleaved by count stay whole.
    "shuffling": {"inner": (5, ("inner",)), "last": (6, ("last",))},
    "linear-gate": {"conv": (8, ("conv",)), "last": (6, ("last",))},
}


def traced(model: nn.Module) -> ChannelMap:
    return trace_channels(model, inputs_of().float())


@pytest.mark.parametrize("kind", NETWORKS)
def test_layers_tied_by_the_wiring_form_one_group(kind: str) -> None:
    groups = traced(NETWORKS[kind]()).groups
    assert {group.name: (group.channels, group.layers) for group in groups} == EXPECTED[kind]


@pytest.mark.parametrize("kind", NETWORKS)
def test_groups_come_in_the_order_of_execution(kind: str) -> None:
    assert [group.name for group in traced(NETWORKS[kind]()).groups] == list(EXPECTED[kind])


def test_widths_are_the_channels_of_the_groups() -> None:
    channels = traced(Residual())
    assert channels.widths == (8, 7, 6)
    assert channels.fixed == 21


@pytest.mark.parametrize("kind", NETWORKS)
def test_network_input_and_output_are_never_dropped(kind: str) -> None:
    channels = traced(NETWORKS[kind]())
    first, last = channels.layers[0], channels.layers[-1]
    assert first.inputs.tolist() == [channels.fixed] * 3
    assert last.outputs.tolist() == [channels.fixed] * CLASSES


def test_convolution_that_gives_the_output_is_never_dropped() -> None:
    class FullyConvolutional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3)
            self.classes = nn.Conv2d(8, CLASSES, 1)
            self.auxiliary = nn.Conv2d(8, 2, 1)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            maps = torch.relu(self.body(inputs))
            return self.classes(maps).mean((2, 3)), self.auxiliary(maps)

    assert [group.name for group in traced(FullyConvolutional()).groups] == ["body"]


def test_channels_added_to_the_network_input_are_never_dropped() -> None:
    class AddsInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tied = nn.Conv2d(3, 3, 3, padding=1)
            self.free = nn.Conv2d(3, 8, 3)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            maps = torch.relu(self.free(self.tied(inputs) + inputs))
            outputs: Tensor = self.head(maps.mean((2, 3)))
            return outputs

    assert [group.name for group in traced(AddsInput()).groups] == ["free"]


def test_addition_of_concatenations_splits_a_layer_into_groups() -> None:
    class Crossed(nn.Module):
        """`both` (10 filters) is added to the 4 of `left` and the 6 of `right`."""

        def __init__(self) -> None:
            super().__init__()
            self.left = nn.Conv2d(3, 4, 1)
            self.right = nn.Conv2d(3, 6, 1)
            self.both = nn.Conv2d(3, 10, 1)
            self.head = nn.Linear(10, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            maps = torch.cat([self.left(inputs), self.right(inputs)], 1) + self.both(inputs)
            outputs: Tensor = self.head(maps.mean((2, 3)))
            return outputs

    groups = traced(Crossed()).groups
    assert [(group.channels, group.layers) for group in groups] == [
        (4, ("left", "both")),
        (6, ("right", "both")),
    ]


def test_depthwise_channels_follow_the_channels_that_enter_them() -> None:
    axes = traced(Depthwise()).axes
    point1 = axes["point1.weight"][0]
    carried = axes["depth2.weight"][0]
    assert point1 is not None and carried is not None
    assert carried.tolist() == [unit for unit in point1.tolist() for _ in range(2)]
    assert axes["depth2.weight"][1:] in {(), (None,)}


def test_channels_of_a_grouped_convolution_are_tied_across_its_groups() -> None:
    axes = traced(NETWORKS["grouped"]()).axes
    stem, grouped = axes["stem.weight"][0], axes["grouped.weight"]
    assert stem is not None and grouped[0] is not None and grouped[1] is not None
    assert stem.tolist() == [0, 1, 2] * 4
    assert grouped[0].tolist() == [3, 4, 5, 6] * 4
    assert grouped[1].tolist() == [0, 1, 2]


def test_norm_groups_are_dropped_whole_or_stay_equally_large() -> None:
    axes = traced(NETWORKS["group-norm"]()).axes
    many, few = axes["many_norm.weight"][0], axes["few_norm.bias"][0]
    assert many is not None and few is not None
    assert many.tolist() == [unit for unit in range(6) for _ in range(2)]
    assert few.tolist() == [6, 7, 8, 9, 10] * 3


def test_scale_per_channel_follows_its_channels() -> None:
    axes = traced(NETWORKS["layer-norm"]()).axes
    scale, stem = axes["scale"][0], axes["stem.weight"][0]
    assert scale is not None and stem is not None
    assert scale.tolist() == stem.tolist() == [0, 1, 2, 3, 4, 5]


def test_flattened_positions_follow_their_channel() -> None:
    columns = traced(Plain()).axes["8.weight"][1]
    assert columns is not None
    assert columns.tolist() == [8 + channel for channel in range(6) for _ in range(16)]


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = Plain().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    traced(model)
    assert model.training and all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fingerprint_depends_on_the_structure_and_not_on_the_values() -> None:
    one, other = traced(Plain()).fingerprint, traced(Plain()).fingerprint
    assert one == other
    assert traced(Plain(width=9)).fingerprint != one
    assert len({traced(make()).fingerprint for make in NETWORKS.values()}) == len(NETWORKS)


def test_another_stride_or_pooling_makes_another_fingerprint() -> None:
    def build(stride: int, pool: nn.Module) -> nn.Module:
        conv = nn.Conv2d(3, 8, 3, stride=stride, padding=1)
        return nn.Sequential(
            conv, pool, nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )

    example = torch.randn(2, 3, 16, 16)
    prints = {
        trace_channels(build(stride, pool), example).fingerprint
        for stride in (1, 2)
        for pool in (nn.Identity(), nn.MaxPool2d(2))
    }
    # Stride 2 without pooling and stride 1 with it differ in what the first layer costs.
    assert len(prints) == 4


@pytest.mark.parametrize("kind", NETWORKS)
def test_channels_of_a_unit_are_those_that_a_sub_network_keeps(kind: str) -> None:
    network = DroppableNetwork(NETWORKS[kind](), inputs_of().float())
    counts = tuple(max(1, width - 2) for width in network.full_counts)
    small = network.subnetwork(counts).module
    for group, kept, size in zip(
        network.groups, counts, network.channels.channels_per_unit, strict=True
    ):
        for model, units in ((network.module, group.channels), (small, kept)):
            assert model.get_submodule(group.name).weight.shape[0] == units * size

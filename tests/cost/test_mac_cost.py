from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from distreal_dse.cost import MacCost, _macs
from distreal_dse.dropout import DroppableNetwork, KeptCounts, SubNetwork
from distreal_dse.study.catalogue import StudySource, shipped_studies
from distreal_dse.support.compat import torchvision
from networks import CLASSES, LayerNormed
from zoo import ZOO

SAMPLES = 2
FRACTIONS = (1.0, 0.7, 0.3, 0.0)


def counted_by_torch(module: nn.Module, inputs: Tensor) -> tuple[float, float]:
    """MACs per sample of the forward pass, and of forward and backward pass.

    PyTorch counts two operations for a multiply-accumulate.
    """
    module.train()
    with FlopCounterMode(display=False) as forward:
        outputs = module(inputs)
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    scale = 2 * len(inputs)
    forward_macs = forward.get_total_flops() / scale
    return forward_macs, forward_macs + backward.get_total_flops() / scale


def kept(network: DroppableNetwork, fraction: float) -> KeptCounts:
    """Uneven kept counts: each second group keeps half as many."""
    return tuple(
        max(1, round(width * fraction / (1 + index % 2 * (fraction < 1))))
        for index, width in enumerate(network.full_counts)
    )


def network_of(name: str) -> tuple[DroppableNetwork, Tensor]:
    draws = torch.Generator().manual_seed(0)
    if name.startswith("torchvision "):
        module = getattr(torchvision.models, name.removeprefix("torchvision "))(num_classes=10)
        inputs = torch.randn(SAMPLES, 3, 64, 64, generator=draws)
    else:
        study = StudySource(name).load()
        module, shape = study.model(), study.input_shape
        assert shape is not None
        inputs = torch.randn(SAMPLES, *shape, generator=draws)
    return DroppableNetwork(module, inputs), inputs


@pytest.mark.parametrize(
    "name", [*shipped_studies(), "torchvision resnet18", "torchvision densenet121"]
)
def test_macs_equal_those_that_torch_counts_on_the_real_sub_network(name: str) -> None:
    network, inputs = network_of(name)
    cost = MacCost(network.channels)
    for fraction in FRACTIONS:
        counts = kept(network, fraction)
        sub_network = network.subnetwork(counts)
        forward, training = counted_by_torch(sub_network.module, inputs)
        assert cost.forward(counts) == forward
        assert cost.training(counts) == training


@pytest.mark.parametrize("name", shipped_studies())
def test_the_full_cost_is_what_torch_counts_on_the_untouched_model(name: str) -> None:
    network, inputs = network_of(name)
    plain = StudySource(name).load().model()
    forward, training = counted_by_torch(plain, inputs)
    cost = MacCost(network.channels)
    assert cost.full == training
    assert cost.forward(network.full_counts) == forward


def counted_by_layers(module: nn.Module, inputs: Tensor) -> tuple[float, float]:
    """MACs per sample from the shapes that pass through the real layers, whatever their groups.

    PyTorch's counter overcounts the backward pass of grouped and depthwise convolutions.
    """
    forward = training = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], outputs: Tensor) -> None:
        nonlocal forward, training
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        macs = outputs.numel() * layer.weight[0].numel()  # each output sums over one filter
        forward += macs
        training += macs * (1 + layer.weight.requires_grad + given[0].requires_grad)

    handles = [
        part.register_forward_hook(count)
        for part in module.modules()
        if isinstance(part, (nn.Conv2d, nn.Linear))
    ]
    module.train()(inputs)
    for handle in handles:
        handle.remove()
    return forward / len(inputs), training / len(inputs)


@pytest.mark.parametrize("name", ZOO)
def test_macs_of_torchvision_networks_equal_those_of_the_real_layers(name: str) -> None:
    network, inputs = zoo.droppable(name), zoo.inputs_of(name, samples=2)
    cost = MacCost(network.channels)
    vectors = [network.full_counts, *(random_counts(network, seed) for seed in range(3))]
    full = copy.deepcopy(network.module)  # what is whole is shared with it and trained
    for counts in vectors:
        module = SubNetwork(full, network.channels, counts).module
        assert counted_by_layers(module, inputs) == (cost.forward(counts), cost.training(counts))


def random_counts(network: DroppableNetwork, seed: int) -> KeptCounts:
    random = np.random.default_rng(seed)
    return tuple(int(random.integers(1, width, endpoint=True)) for width in network.full_counts)


def test_both_counts_agree_where_no_convolution_is_grouped() -> None:
    network, inputs = network_of("cifar10-resnet20")
    module = network.subnetwork(kept(network, 0.5)).module
    assert counted_by_layers(module, inputs) == counted_by_torch(module, inputs)


def test_linear_layers_on_maps_are_counted_at_every_position() -> None:
    network = DroppableNetwork(LayerNormed(), torch.randn(2, 3, 8, 8))
    cost = MacCost(network.channels)
    per_layer = cost.training_per_layer((3, 4, 5))
    assert per_layer["widen"] == 3 * (4 * 4) * 3 * 4
    assert per_layer["narrow"] == 3 * (4 * 4) * 4 * 3
    assert per_layer["head"] == 3 * 5 * CLASSES  # behind the mean over positions


def test_constants_in_front_of_a_layer_need_no_gradient() -> None:
    class Standardising(nn.Module):
        mean: Tensor

        def __init__(self, trainable: bool) -> None:
            super().__init__()
            shift = torch.ones(3, 1, 1)
            if trainable:
                self.mean = nn.Parameter(shift)
            else:
                self.register_buffer("mean", shift)
            self.body = LayerNormed()

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.body(inputs - self.mean)
            return outputs

    for trainable, products in ((False, 2), (True, 3)):
        module = Standardising(trainable)
        network, inputs = DroppableNetwork(module, torch.randn(2, 3, 8, 8)), torch.randn(2, 3, 8, 8)
        cost = MacCost(network.channels)
        assert (
            cost.training_per_layer((2, 3, 4))["body.stem"] == products * (4 * 4) * (2 * 2) * 3 * 2
        )
        found = counted_by_layers(network.subnetwork((2, 3, 4)).module, inputs)
        assert found == (cost.forward((2, 3, 4)), cost.training((2, 3, 4)))


class DepthwiseAndGrouped(nn.Module):
    """Both kinds of convolution whose backward pass PyTorch's own counter gets wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 6, 1)
        self.grouped = nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(torch.relu(self.depth(self.stem(x))))
        outputs: Tensor = self.head(torch.relu(self.grouped(x)).mean((2, 3)))
        return outputs


def test_macs_of_depthwise_and_grouped_convolutions_are_those_computed_by_hand() -> None:
    network = DroppableNetwork(DepthwiseAndGrouped(), torch.randn(2, 3, 8, 8))
    cost = MacCost(network.channels)
    # Filters of the grouped convolution's two halves are kept in pairs, at its input and output.
    assert network.full_counts == (8, 3, 2)
    for stem, point, grouped in itertools.product(range(1, 9), range(1, 4), range(1, 3)):
        by_hand = {
            "stem": 8 * 8 * 9 * 3 * stem,
            "depth": 8 * 8 * 9 * stem,
            "point": 8 * 8 * stem * (2 * point),
            "grouped": 4 * 4 * 9 * point * (2 * grouped),
            "head": (2 * grouped) * 3,
        }
        counts = (stem, point, grouped)
        assert cost.forward(counts) == sum(by_hand.values())
        # The image needs no gradient; everything behind the stem takes three products of a size.
        expected = {name: (2 if name == "stem" else 3) * macs for name, macs in by_hand.items()}
        assert cost.training_per_layer(counts) == expected
        assert cost.training(counts) == sum(expected.values())


@pytest.fixture(scope="module")
def residual() -> DroppableNetwork:
    return network_of("cifar10-resnet20")[0]


def test_many_vectors_at_once_cost_what_each_costs_alone(residual: DroppableNetwork) -> None:
    cost = MacCost(residual.channels)
    random = np.random.default_rng(0)
    vectors = [
        tuple(int(random.integers(1, width, endpoint=True)) for width in residual.full_counts)
        for _ in range(1000)
    ]
    training, forward = cost.training_many(vectors), cost.forward_many(vectors)
    assert training.shape == forward.shape == (1000,)
    assert len(set(training.tolist())) > 900  # else this test would compare little
    for vector, one, other in zip(vectors, training, forward, strict=True):
        assert (cost.training(vector), cost.forward(vector)) == (one, other)


def test_the_costs_of_the_layers_sum_to_the_total(residual: DroppableNetwork) -> None:
    cost = MacCost(residual.channels)
    convolutions = [
        name
        for name, part in residual.module.named_modules()
        if isinstance(part, (nn.Conv2d, nn.Linear))
    ]
    for fraction in FRACTIONS:
        counts = kept(residual, fraction)
        per_layer = cost.training_per_layer(counts)
        assert sorted(per_layer) == sorted(convolutions)
        assert sum(per_layer.values()) == cost.training(counts)


def test_keeping_one_filter_more_never_costs_less(residual: DroppableNetwork) -> None:
    cost = MacCost(residual.channels)
    counts = kept(residual, 0.5)
    for group in range(len(counts)):
        more = tuple(count + (index == group) for index, count in enumerate(counts))
        assert cost.training(more) > cost.training(counts)


def test_a_cost_goes_to_other_processes(residual: DroppableNetwork) -> None:
    cost = MacCost(residual.channels)
    counts = kept(residual, 0.5)
    expected = cost.training(counts)
    for other in (pickle.loads(pickle.dumps(cost)), copy.deepcopy(cost)):
        assert (other.full, other.training(counts)) == (cost.full, expected)
        assert other.training(kept(residual, 0.3)) == cost.training(kept(residual, 0.3))


def test_counts_may_be_given_as_any_sequence(residual: DroppableNetwork) -> None:
    cost = MacCost(residual.channels)
    counts = kept(residual, 0.5)
    for given in (list(counts), np.array(counts)):
        assert cost.training(given) == cost.training(counts)
        assert cost.forward(given) == cost.forward(counts)
        assert cost.training_per_layer(given) == cost.training_per_layer(counts)


def test_costs_stay_right_beyond_those_that_are_remembered(
    residual: DroppableNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_macs, "KNOWN_VECTORS", 2)
    cost = MacCost(residual.channels)
    vectors = [kept(residual, fraction) for fraction in FRACTIONS]
    assert [cost.training(one) for one in vectors * 2] == [*cost.training_many(vectors)] * 2

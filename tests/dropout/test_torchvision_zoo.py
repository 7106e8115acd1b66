"""Networks of torchvision: what users bring first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import zoo
from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    RandomMasks,
    SubNetwork,
    kept_counts,
    make_policy,
    policy_names,
    trace_channels,
    zero_dropped,
)
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.seeding import generator, seeded
from networks import kept_part
from zoo import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_filters_of_torchvision_networks_can_be_dropped(name: str) -> None:
    network = zoo.droppable(name)  # checks itself numerically
    assert (len(network.groups), sum(network.full_counts)) == ZOO[name][:2]
    layers = {
        name
        for name, part in network.module.named_modules()
        if isinstance(part, (nn.Conv2d, nn.Linear))
    }
    assert {layer for group in network.groups for layer in group.layers} <= layers
    assert all(width > 1 for width in network.full_counts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits-cnn", "45b7445b23a2299a"),
        ("cifar10-resnet20", "b113d155df3368db"),
        ("cifar10-densenet40", "922faee7bd6efee9"),
        ("resnet18", "55fca16781b094a4"),
        ("mobilenet_v3_small", "3c0935f8c626076b"),
        ("resnext50_32x4d", "58092b2690d11e30"),
    ],
)
def test_stored_fronts_still_fit_their_networks(name: str, expected: str) -> None:
    """A front is refused for another fingerprint: it must not change without need."""
    if name in ZOO:
        model, example = zoo.build(name), zoo.inputs_of(name)
    else:
        model, example = StudySource(name).load().model(), torch.zeros(2, 1, 8, 8)
    assert trace_channels(model, example).fingerprint == expected


def total(outputs: Any, targets: Tensor) -> Tensor:
    """Mean loss of all outputs: an auxiliary classifier has a share in it."""
    several = [outputs] if isinstance(outputs, Tensor) else outputs
    losses = [functional.cross_entropy(one, targets) for one in several if one is not None]
    return torch.stack(losses).sum()


def uneven(network: DroppableNetwork, seed: int) -> KeptCounts:
    draws = torch.Generator().manual_seed(seed)
    return tuple(
        int(torch.randint(1, width + 1, (), generator=draws)) for width in network.full_counts
    )


@pytest.mark.parametrize("name", ZOO)
def test_gradients_of_torchvision_networks_equal_those_of_the_zeroed_network(name: str) -> None:
    channels = zoo.droppable(name).channels
    full = zoo.build(name).double().train()
    inputs, targets = zoo.inputs_of(name).double(), torch.tensor([1, 2, 3])
    counts = uneven(zoo.droppable(name), seed=0)
    mask = RandomMasks().draw(channels.widths, counts, torch.Generator().manual_seed(1))
    small = SubNetwork(full, channels, counts)
    kept = small.select(mask)
    small.load(kept)
    with seeded(2):  # stochastic depth draws alike in both
        small.backward(total(small.module(inputs), targets))
    zero_dropped(full, channels, mask)
    with seeded(2):
        total(full(inputs), targets).backward()
    of_small = dict(small.module.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in full.parameters() if p.grad is not None)
    assert largest > 0
    for tensor, parameter in full.named_parameters():
        expected, found = parameter.grad, of_small[tensor].grad
        assert expected is not None and found is not None, tensor
        part = kept_part(channels, tensor, mask, expected)
        assert not (~part & (expected != 0)).any(), f"dropped part of {tensor}"
        torch.testing.assert_close(
            found.flatten(), expected[part], rtol=1e-5, atol=1e-10 * largest, msg=tensor
        )


POLICIES = [*policy_names(), "blocks:blocks=4,core=0.25,redraw=round"]


# A policy sees widths and counts alone, of whatever network. Each has four or more of these here.
@pytest.mark.parametrize(("name", "number"), [(name, i) for i, name in enumerate(ZOO)], ids=ZOO)
def test_torchvision_networks_train_under_mask_policies_as_the_zeroed_network(
    name: str, number: int
) -> None:
    network = zoo.droppable_to_train(name)
    model = network.module
    inputs, targets = zoo.inputs_of(name), torch.tensor([1, 2, 3])
    counts = uneven(network, seed=0)
    for turn in (number, number + len(POLICIES) // 2):
        spec = POLICIES[turn % len(POLICIES)]
        mask = make_policy(spec).draw(network.full_counts, counts, generator(3))
        zeroed = copy.deepcopy(model).double()
        zero_dropped(zeroed, network.channels, mask)
        with seeded(2), torch.no_grad():
            expected = total(zeroed(inputs.double()), targets).item()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        policy = make_policy(spec)
        trainer = DropoutTrainer(network, optimizer, total, policy, generator(3), clip_norm=1.0)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        with seeded(2):
            assert trainer.step(inputs, targets, counts) == pytest.approx(expected, rel=1e-3), spec
        moved = {name: value != before[name] for name, value in model.named_parameters()}
        for tensor, where in moved.items():
            part = kept_part(network.channels, tensor, mask, where)
            assert not (~part & where).any(), (spec, tensor)
        assert any(where.any() for where in moved.values()), spec


@pytest.mark.parametrize("name", ZOO)
def test_rate_zero_trains_torchvision_networks_bit_identically_to_pytorch(name: str) -> None:
    plain, network = zoo.build(name).train(), zoo.droppable_to_train(name)
    model = network.module
    of_plain = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trainer = DropoutTrainer(network, optimizer, total, RandomMasks(), torch.Generator())
    inputs, targets = zoo.inputs_of(name, samples=2), torch.tensor([1, 2])
    with seeded(3):
        loss = trainer.step(inputs, targets, network.full_counts)
    with seeded(3):
        expected = total(plain(inputs), targets)
        expected.backward()
        of_plain.step()
    assert loss == expected.item()
    after = plain.state_dict()
    for tensor, value in model.state_dict().items():
        assert torch.equal(value, after[tensor]), tensor


def test_layers_of_the_training_mode_alone_are_dropped_too() -> None:
    plain, auxiliary = (zoo.droppable(name) for name in ("googlenet", "googlenet+aux"))
    more = {group.name for group in auxiliary.groups} - {group.name for group in plain.groups}
    assert more == {"aux1.conv.conv", "aux2.conv.conv"}


def test_split_and_shuffled_channels_of_shufflenet_stay_whole() -> None:
    axes = zoo.droppable("shufflenet_v2_x0_5").channels.axes
    assert "stage2.0.branch2.0.weight" in axes  # inner
    assert axes["stage2.0.branch2.5.weight"][0] is None  # into the shuffle
    assert axes["stage2.1.branch2.0.weight"][1] is None  # out of the split


def test_hidden_features_of_convnext_are_dropped_and_follow_its_norms() -> None:
    axes = zoo.droppable("convnext_tiny").channels.axes
    stem = axes["features.0.0.weight"][0]
    assert stem is not None
    for name in ("features.1.0.layer_scale", "features.1.0.block.2.weight", "features.0.1.bias"):
        found = axes[name][0]
        assert found is not None and found.tolist() == stem.tolist()
    hidden, incoming = axes["features.1.0.block.3.weight"]
    assert hidden is not None and incoming is not None
    assert (len(hidden), incoming.tolist()) == (4 * 96, stem.tolist())


def test_dropped_filters_of_resnet18_are_left_as_they_were() -> None:
    with seeded(0):
        model = zoo.build("resnet18")
        inputs, targets = torch.randn(4, 3, 64, 64), torch.randint(10, (4,))
    network = DroppableNetwork(model, inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    masks = torch.Generator().manual_seed(0)
    trainer = DropoutTrainer(network, optimizer, nn.functional.cross_entropy, RandomMasks(), masks)
    counts = kept_counts([0.5] * len(network.groups), network.groups)
    before = copy.deepcopy(model.state_dict())
    trainer.step(inputs, targets, counts)
    after = model.state_dict()
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            moved = (after[f"{name}.weight"] != before[f"{name}.weight"]).flatten(2).any(2)
            filters, inputs = moved.any(1), moved.any(0)
            assert int(filters.sum()) == part.out_channels // 2, name
            assert int(inputs.sum()) == (part.in_channels // 2 if name != "conv1" else 3), name
            # What was trained is a full rectangle of kept filters and kept inputs.
            assert torch.equal(moved, filters[:, None] & inputs), name
        elif isinstance(part, nn.BatchNorm2d):
            for tensor in ("weight", "running_mean", "running_var"):
                moved = after[f"{name}.{tensor}"] != before[f"{name}.{tensor}"]
                assert int(moved.sum()) == part.num_features // 2, f"{name}.{tensor}"

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    Nesting,
    kept_counts,
    make_policy,
)
from distreal_dse.errors import InputError, UnsupportedModelError
from networks import Residual, inputs_of


class Concatenating(nn.Module):
    """A dense block, so that the linear layer takes filters of several groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.depthwise = nn.Conv2d(10, 10, 3, groups=10)
        self.classifier = nn.Linear(10, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x).relu()
        both = self.norm(torch.cat([first, self.second(first)], 1))
        out: Tensor = self.classifier(self.depthwise(both).relu().mean((2, 3)))
        return out


def flat() -> nn.Module:
    """A linear layer that takes several positions of each filter."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(),
        nn.Linear(6 * 16, 4),
    )  # fmt: skip


MODELS = {"residual": Residual, "concatenating": Concatenating, "flat": flat}


@pytest.fixture(params=MODELS)
def network(request: pytest.FixtureRequest) -> DroppableNetwork:
    torch.manual_seed(3)
    return DroppableNetwork(MODELS[request.param]().double(), images(4), scaling="none")


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)


def levels_of(network: DroppableNetwork, keeps: tuple[float, ...] = (0.4, 0.7, 1.0)) -> list:
    groups = network.groups
    return [kept_counts([1 - keep] * len(groups), groups) for keep in keeps]


def train(network: DroppableNetwork, nesting: Nesting, steps: int = 12) -> None:
    """Steps of all levels in turn, on the outputs of the highest."""
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.05, momentum=0.9)
    trainer = DropoutTrainer(
        network, optimizer, cross_entropy, make_policy("ordered"), torch.Generator()
    )
    for step in range(steps):
        counts = nesting.levels[step % len(nesting.levels)]
        trainer.step(images(16, step), torch.arange(16) % 4, counts)
        nesting.hold()


def first_of(network: DroppableNetwork, counts: tuple[int, ...]) -> nn.Module:
    """The sub-network of the first filters, filled."""
    small = network.subnetwork(counts)
    mask = make_policy("ordered").draw(network.channels.widths, counts, torch.Generator())
    small.load(small.select(mask))
    return small.module


@pytest.mark.parametrize("training", [True, False])
def test_each_level_computes_in_the_full_network_what_it_computes_alone(
    network: DroppableNetwork, training: bool
) -> None:
    nesting = Nesting(network, levels_of(network))
    nesting.begin()
    train(network, nesting)
    network.module.train(training)
    batch = images(8, 99)
    parts = nesting.outputs(network.module, batch, nesting.levels[-1])
    assert len(parts) == 3
    total = torch.zeros_like(parts[0])
    for counts, part in zip(nesting.levels, parts, strict=True):
        total = total + part
        alone = first_of(network, counts)
        alone.train(training)
        torch.testing.assert_close(alone(batch), total, rtol=1e-10, atol=1e-10)
    assert parts[1].abs().max() > 1e-3 and parts[2].abs().max() > 1e-3  # they were trained


def test_without_holding_levels_would_feed_those_below(network: DroppableNetwork) -> None:
    nesting = Nesting(network, levels_of(network))
    nesting.begin()
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.05)
    cross_entropy(network.module(images(16)), torch.arange(16) % 4).backward()
    # The first step moves the outputs' weights alone from zero; the second reaches the others.
    optimizer.step()
    optimizer.zero_grad()
    cross_entropy(network.module(images(16)), torch.arange(16) % 4).backward()
    optimizer.step()
    batch = images(8, 99)
    first = nesting.outputs(network.module, batch, nesting.levels[-1])[0]
    assert not torch.allclose(first_of(network, nesting.levels[0])(batch), first, atol=1e-8)
    nesting.hold()
    first = nesting.outputs(network.module, batch, nesting.levels[-1])[0]
    torch.testing.assert_close(first_of(network, nesting.levels[0])(batch), first)


def test_the_network_begins_as_its_first_level(network: DroppableNetwork) -> None:
    nesting = Nesting(network, levels_of(network))
    nesting.begin()
    batch = images(8)
    torch.testing.assert_close(
        network.module(batch), first_of(network, nesting.levels[0])(batch), rtol=1e-10, atol=1e-10
    )


def test_weights_begin_with_the_variance_of_the_inputs_that_are_left() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    network = DroppableNetwork(module, torch.randn(2, 3, 8, 8), scaling="none")
    before = module[2].weight.std().item()
    Nesting(network, [(16, 16), (64, 64)]).begin()
    first, second = module[2].weight[:16], module[2].weight[16:]
    assert first[:, 16:].abs().max() == 0 and module[6].weight[:, 16:].abs().max() == 0
    assert first[:, :16].std().item() == pytest.approx(2 * before, rel=0.05)
    assert second.std().item() == pytest.approx(before, rel=0.05)


def test_one_level_changes_nothing(network: DroppableNetwork) -> None:
    before = network.copy_state()
    nesting = Nesting(network, [network.full_counts])
    nesting.begin()
    nesting.hold()
    assert all(torch.equal(before[name], value) for name, value in network.copy_state().items())


@pytest.mark.parametrize("levels", [[], [(1, 1)], [(4, 2), (2, 4), (8, 6)], [(8, 6), (1, 1)]])
def test_levels_that_do_not_rise_to_the_full_network_are_refused(
    levels: list[tuple[int, ...]],
) -> None:
    network = DroppableNetwork(flat().double(), images(4), scaling="none")
    with pytest.raises(InputError, match=r"rise in every group up to the full network's \(8, 6\)"):
        Nesting(network, levels)


def refused(module: nn.Module) -> str:
    network = DroppableNetwork(module.double(), inputs_of(), scaling="none")
    widths = network.full_counts
    with pytest.raises(UnsupportedModelError) as found:
        Nesting(network, [tuple(width // 2 for width in widths), widths])
    return str(found.value)


def test_networks_that_can_not_be_nested_are_refused_by_layer() -> None:
    convolution = (nn.Conv2d(3, 8, 3), nn.ReLU())
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    mixing = nn.Sequential(*convolution, nn.GroupNorm(1, 8), *pooled, nn.Linear(8, 4))
    assert "layer 2 normalises over several filters" in refused(mixing)
    ends = nn.Sequential(*convolution, *pooled, nn.Linear(8, 4), nn.Softmax(1))
    assert "the last layer, 4: nested levels need a network that ends in a linear" in refused(ends)
    convolved = nn.Sequential(*convolution, nn.Conv2d(8, 4, 1), *pooled)
    assert "the last layer, 2" in refused(convolved)


def test_a_core_alone_is_trained_as_if_nothing_were_above(network: DroppableNetwork) -> None:
    nesting = Nesting(network, levels_of(network))
    nesting.begin()
    small = copy.deepcopy(first_of(network, nesting.levels[0]))
    of_small = torch.optim.SGD(small.parameters(), lr=0.05, momentum=0.9)
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.05, momentum=0.9)
    trainer = DropoutTrainer(
        network, optimizer, cross_entropy, make_policy("ordered"), torch.Generator()
    )
    before = nesting.outputs(network.module, images(8, 99), nesting.levels[-1])
    for step in range(6):
        counts, targets = nesting.levels[step % 3], torch.arange(16) % 4

        def objective(module: nn.Module, inputs: Tensor, targets: Tensor, counts=counts) -> Tensor:
            parts = nesting.outputs(module, inputs, counts)
            own, above = cross_entropy(parts[0], targets), cross_entropy(sum(parts), targets)
            only_above = nesting.beyond_core(above, module, counts)
            torch.testing.assert_close(only_above.detach(), above.detach())
            return own + only_above

        trainer.step(images(16, step), targets, counts, objective)
        nesting.hold()
        of_small.zero_grad()
        cross_entropy(small(images(16, step)), targets).backward()
        of_small.step()
    core = first_of(network, nesting.levels[0])
    for (name, one), (_, other) in zip(
        core.named_parameters(), small.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10, msg=name)
    after = nesting.outputs(network.module, images(8, 99), nesting.levels[-1])
    assert not torch.allclose(before[1], after[1], atol=1e-3)  # levels learn all the same

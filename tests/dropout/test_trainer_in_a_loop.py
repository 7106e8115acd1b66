"""`DropoutTrainer` as somebody has it in a loop of his own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from distreal_dse import DropoutTrainer, DroppableNetwork, kept_counts
from distreal_dse.errors import InputError, VectorError
from distreal_dse.fronts import TableVector

INPUTS, TARGETS = torch.randn(8, 1, 6, 6), torch.arange(8) % 3


@pytest.fixture
def network() -> DroppableNetwork:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    return DroppableNetwork(module, INPUTS, scaling="none")


def trainer(network: DroppableNetwork, **more: object) -> DropoutTrainer:
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.1)
    return DropoutTrainer(
        network, optimizer, nn.functional.cross_entropy, "ordered",
        torch.Generator().manual_seed(0), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def trained(network: DroppableNetwork, vector: object) -> list[Tensor]:
    own = copy.deepcopy(network)
    trainer(own).step(INPUTS, TARGETS, vector)  # type: ignore[arg-type]
    return list(own.copy_state().values())


@pytest.mark.parametrize(
    "vector", [[2, 3], "2-3", TableVector((2, 3), 1.0, measured=False), torch.Size([2, 3])]
)
def test_a_vector_is_a_list_a_name_or_what_a_front_gives(
    network: DroppableNetwork, vector: object
) -> None:
    assert kept_counts([0.5, 0.5], network.groups) == (2, 3)
    expected = trained(network, (2, 3))
    assert all(map(torch.equal, trained(network, vector), expected))
    assert not all(map(torch.equal, trained(network, "full"), expected))


def test_the_full_network_by_name_or_list_is_an_ordinary_step(network: DroppableNetwork) -> None:
    plain = copy.deepcopy(network).module
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    nn.functional.cross_entropy(plain(INPUTS), TARGETS).backward()
    optimizer.step()
    for vector in ("full", [4, 6]):
        assert all(map(torch.equal, trained(network, vector), plain.state_dict().values()))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"0": 2, "2": 3}, r"groups 0, 2, found a dict; yours is \[2, 3\]"),
        ({"conv": 2}, "groups 0, 2, found a dict$"),
        ("half", "expected kept counts such as '4-6', or 'full'"),
        ("2-9", "kept count of group 2 is 9: expected 1 to 6"),
        ([2], "expected one for each of the 2 channel groups"),
    ],
)
def test_what_is_no_vector_is_refused_with_what_would_be_one(
    network: DroppableNetwork, wrong: object, said: str
) -> None:
    with pytest.raises(VectorError, match=said):
        trained(network, wrong)


def penalty(module: nn.Module) -> Tensor:
    return 0.1 * sum((one.square().sum() for one in module.parameters()), torch.zeros(()))


def test_an_objective_gets_the_sub_network_whose_parameters_it_needs(
    network: DroppableNetwork,
) -> None:
    seen: list[int] = []

    def objective(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(sum(one.numel() for one in module.parameters()))
        return nn.functional.cross_entropy(module(inputs), targets) + penalty(module)

    expected = copy.deepcopy(network)
    decayed = torch.optim.SGD(expected.module.parameters(), lr=0.1, weight_decay=0.2)
    DropoutTrainer(
        expected, decayed, nn.functional.cross_entropy, "ordered", torch.Generator()
    ).step(INPUTS, TARGETS, (2, 3))
    trainer(network, objective=objective).step(INPUTS, TARGETS, (2, 3))
    found, wanted = network.copy_state(), expected.copy_state()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name])
    assert 0 < seen[0] < sum(one.numel() for one in network.module.parameters())


def test_a_loss_that_uses_the_full_network_s_parameters_is_refused(
    network: DroppableNetwork,
) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets) + penalty(network.module)

    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.1)
    own = DropoutTrainer(network, optimizer, loss, "random", torch.Generator())
    before = network.copy_state()
    with pytest.raises(InputError, match="found 0.weight of the full network in it; take it from"):
        own.step(INPUTS, TARGETS, (2, 3))
    assert all(map(torch.equal, before.values(), network.copy_state().values()))
    own.step(INPUTS, TARGETS, "full")  # where they are what is trained

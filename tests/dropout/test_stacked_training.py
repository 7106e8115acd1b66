"""Several copies of a network train at once as each does alone, whatever their wiring."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from distreal_dse.dropout import (
    Batch,
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    Part,
    Proximal,
    StackedTrainer,
)
from networks import CLASSES, Biased, Concatenating, Depthwise, Plain, Residual

DEVICES, STEPS, SIZE = 3, 4, 4
NETWORKS = [Plain, Biased, Residual, Concatenating, Depthwise]


@pytest.fixture(params=NETWORKS, ids=lambda kind: kind.__name__)
def module(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = request.param().double()
    return made


def batches() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    shape = (DEVICES, STEPS, SIZE, 3, 8, 8)
    inputs = torch.randn(shape, generator=random, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, shape[:3], generator=random)


def network_of(module: nn.Module, scaling: str) -> DroppableNetwork:
    return DroppableNetwork(module, torch.randn(2, 3, 8, 8, dtype=torch.float64), scaling)


def sgd(network: DroppableNetwork) -> SGD:
    return SGD(network.module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def vectors(network: DroppableNetwork) -> list[KeptCounts]:
    shares = (1 / 2, 3 / 4, 1, 1 / 2)
    widths = network.full_counts
    return [tuple(max(1, int(width * share)) for width in widths) for share in shares]


def check_close(trainer: StackedTrainer, expected: list[dict[str, Tensor]]) -> None:
    for found, state in zip(trainer.states(), expected, strict=True):
        assert found.keys() == state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scaling", ["inverted", "none"])
def test_stacked_steps_equal_those_of_each(module: nn.Module, scaling: str) -> None:
    network = network_of(module, scaling)
    state, counts = network.copy_state(), vectors(network)
    inputs, targets = batches()
    expected, losses, masks = [], [], []
    for row in range(DEVICES):
        network.load_state(state)
        trainer = DropoutTrainer(
            network, sgd(network), cross_entropy, "random",
            torch.Generator().manual_seed(row), 0.5, Proximal(0.3, state),
        )  # fmt: skip
        for step in range(STEPS):
            losses.append(trainer.step(inputs[row, step], targets[row, step], counts[step]))
            masks.append(trainer.last_mask)
        expected.append(network.copy_state())
    network.load_state(state)
    kept = torch.stack(masks).view(DEVICES, STEPS, -1)
    stacked = StackedTrainer(network, sgd(network), state, DEVICES, 0.5, 0.3)
    everyone = Part(range(DEVICES), torch.arange(DEVICES))

    def objective(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(module(inputs), targets)

    found = [
        stacked.step(
            everyone, Batch(inputs[:, step], targets[:, step]), counts[step], kept[:, step],
            objective,
        )
        for step in range(STEPS)
    ]  # fmt: skip
    told = torch.tensor(losses, dtype=torch.float64).view(DEVICES, STEPS)
    torch.testing.assert_close(torch.stack(found, 1), told, rtol=1e-12, atol=1e-13)
    check_close(stacked, expected)
    assert all(torch.equal(one, state[name]) for name, one in network.copy_state().items())


def test_stacked_nested_steps_equal_those_of_each(module: nn.Module) -> None:
    network = network_of(module, "inverted")
    state, all_counts = network.copy_state(), vectors(network)
    pairs = [(all_counts[1], all_counts[0]), (all_counts[2], all_counts[1])]
    inputs, targets = batches()

    def distance(outputs: Tensor, outer: Tensor, targets: Tensor) -> Tensor:
        return (outputs - outer).square().mean()

    expected = []
    for row in range(DEVICES):
        network.load_state(state)
        draws = torch.Generator()
        trainer = DropoutTrainer(network, sgd(network), cross_entropy, "ordered", draws)
        for step, (counts, inner) in enumerate(pairs):
            trainer.step_nested(inputs[row, step], targets[row, step], counts, inner, distance)
        expected.append(network.copy_state())
    stacked = StackedTrainer(network, sgd(network), state, DEVICES)
    everyone = Part(range(DEVICES), torch.arange(DEVICES))
    for step, both in enumerate(pairs):
        masks = [ordered(network, counts).expand(DEVICES, -1) for counts in both]
        stacked.step_nested(
            everyone, Batch(inputs[:, step], targets[:, step]), both, (masks[0], masks[1]),
            (cross_entropy, distance),
        )  # fmt: skip
    check_close(stacked, expected)


def ordered(network: DroppableNetwork, counts: KeptCounts) -> Tensor:
    widths = network.full_counts
    kept = [torch.arange(width) < count for width, count in zip(widths, counts, strict=True)]
    return torch.cat(kept)


def test_some_devices_train_while_others_wait() -> None:
    """Rows that have no part in a step keep their bits."""
    torch.manual_seed(0)
    network = network_of(Residual().double(), "inverted")
    state, counts = network.copy_state(), vectors(network)[0]
    inputs, targets = batches()
    stacked = StackedTrainer(network, sgd(network), state, DEVICES)
    loss: Callable[..., Tensor] = lambda m, x, y: cross_entropy(m(x), y)  # noqa: E731
    some = Part([0, 2], torch.tensor([0, 2]))
    mask = ordered(network, counts).expand(2, -1)
    stacked.step(some, Batch(inputs[[0, 2], 0], targets[[0, 2], 0]), counts, mask, loss)
    assert all(torch.equal(one, state[name]) for name, one in stacked.states()[1].items())
    assert not torch.equal(stacked.states()[0]["stem.weight"], state["stem.weight"])

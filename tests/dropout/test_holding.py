"""Values that stay in a sub-network from mini-batch to mini-batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, KeptCounts, kept_counts
from distreal_dse.dropout._subnetwork import Kept, SubNetwork
from networks import Concatenating, Residual, inputs_of, targets_of, trained

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "amsgrad": lambda parameters: Adam(parameters, lr=0.01, amsgrad=True),
}

pytestmark = pytest.mark.usefixtures("packed")


class Training:
    """A network, its optimiser and a trainer with masks that hang on the vector alone."""

    def __init__(self, network: nn.Module, optimizer: str, scaling: str = "inverted") -> None:
        self.network = DroppableNetwork(copy.deepcopy(network), inputs_of(), scaling=scaling)
        self.optimizer = OPTIMIZERS[optimizer](self.network.module.parameters())
        self.trainer = DropoutTrainer(
            self.network, self.optimizer, nn.functional.cross_entropy, "ordered",
            torch.Generator().manual_seed(0), clip_norm=1.0,
        )  # fmt: skip

    def counts(self, rate: float) -> KeptCounts:
        return kept_counts([rate] * len(self.network.groups), self.network.groups)

    def step(self, rate: float, seed: int = 0) -> float:
        return self.trainer.step(inputs_of(seed=seed), targets_of(seed=seed), self.counts(rate))

    def everything(self) -> list[Tensor]:
        """Copies of parameters, statistics and the optimiser's state."""
        states = [self.optimizer.state.get(p, {}) for p in self.network.module.parameters()]
        state = [v.clone() for one in states for v in one.values() if isinstance(v, Tensor)]
        return [*self.network.copy_state().values(), *state]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


@pytest.mark.parametrize("scaling", ["inverted", "none"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make", [Residual, Concatenating])
def test_the_same_is_trained(make: type[nn.Module], optimizer: str, scaling: str) -> None:
    held, ordinary = (Training(trained(make), optimizer, scaling) for _ in range(2))

    def train(training: Training) -> list[float]:
        losses = [training.step(rate, i) for i, rate in enumerate((0.5, 0.5, 0.5, 0.2, 0.2, 0.0))]
        losses += [training.step(rate, i) for i, rate in enumerate((0.5, 0.5))]
        training.trainer.step_nested(
            inputs_of(), targets_of(), training.counts(0.2), training.counts(0.5),
            lambda inner, _, targets: nn.functional.cross_entropy(inner, targets),
        )  # fmt: skip
        return [*losses, training.step(0.2), training.step(0.2)]

    with held.trainer.holding():
        losses = train(held)
    assert losses == train(ordinary)
    assert same(held.everything(), ordinary.everything())


def test_the_full_network_has_it_when_another_vector_is_trained_and_at_the_end() -> None:
    training = Training(trained(Residual), "momentum")
    (weight, *_) = training.network.module.parameters()

    def trains(rate: float) -> bool:
        before = weight.detach().clone()
        training.step(rate)
        return not torch.equal(weight, before)

    assert trains(0.5)
    with training.trainer.holding():
        assert not trains(0.5) and not trains(0.5)  # that is what it saves
        assert trains(0.2)  # what the others have trained
        before = weight.detach().clone()
    assert not torch.equal(weight, before)
    assert trains(0.2)


def test_an_interrupt_while_weights_are_scaled_leaves_them_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, ordinary = (Training(trained(Residual), "momentum") for _ in range(2))
    apply = SubNetwork.go_on

    def interrupted(small: SubNetwork, kept: Kept) -> None:
        apply(small, kept)
        raise KeyboardInterrupt

    monkeypatch.setattr(SubNetwork, "go_on", interrupted)
    with pytest.raises(KeyboardInterrupt), held.trainer.holding():
        held.step(0.5)
        held.step(0.5)
    ordinary.step(0.5)
    assert same(held.everything(), ordinary.everything())


def test_a_copy_of_a_trainer_that_holds_does_not() -> None:
    training = Training(trained(Residual), "momentum")
    with training.trainer.holding():
        training.step(0.5)
        network, trainer = copy.deepcopy((training.network, training.trainer))
        before = network.copy_state()
        trainer.step(inputs_of(), targets_of(), training.counts(0.5))
    assert not same(list(network.copy_state().values()), list(before.values()))


def test_a_mini_batch_that_fails_leaves_what_was_trained_before() -> None:
    failed, ordinary = (Training(trained(Residual), "amsgrad") for _ in range(2))

    def fail(*_: object) -> Tensor:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"), failed.trainer.holding():
        for _ in range(2):
            failed.step(0.5)
        failed.trainer.step(inputs_of(), targets_of(), failed.counts(0.5), fail)
    for _ in range(2):
        ordinary.step(0.5)
    assert same(failed.everything(), ordinary.everything())
    assert failed.step(0.5) == ordinary.step(0.5)

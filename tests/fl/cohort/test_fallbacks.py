"""What can't be trained at once is trained one by one, and the reason is said once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace

import pytest
from torch import Tensor, nn, optim

from cohorts import DOUBLE, begin, check_equal, noisy, tasks_of, trained
from distreal_dse.dropout import DropoutTrainer
from distreal_dse.errors import InputError
from fl.clients import InProcess
from fl.cohort import Batched, BatchingWarning, clients_here
from fl.engine import FederatedRun
from fl.strategies import Distreal, LocalPlan, PricedVector, Strategy
from fl.testing import STUDY
from fl.world.devices import Device


def check_one_by_one(run: FederatedRun, reason: str) -> None:
    """Two rounds: the same bits as ever, and one warning of one line."""
    tasks = tasks_of(run)
    expected = trained(run, InProcess(run.training), tasks)
    clients = Batched(run.training)
    with pytest.warns(BatchingWarning, match=reason) as said:
        found = trained(run, clients, tasks)
        again = trained(run, clients, tasks)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert check_equal(found, expected) == check_equal(again, expected) == 0
    assert clients.sizes == (1, 1, 1, 1)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.RReLU()], ids=["dropout", "rrelu"])
def test_layers_that_draw_are_named(layer: nn.Module) -> None:
    run = begin("distreal", noisy(layer))
    check_one_by_one(run, rf"one by one, .*: layer 9 \({type(layer).__name__}\) can't be trained")


def test_layers_that_look_at_values_are_named() -> None:
    def model() -> nn.Module:
        module = STUDY.model().double()
        module[1].momentum = None  # a mean over mini-batches, whose number it asks for
        return module

    run = begin("distreal", replace(DOUBLE, model=model))
    check_one_by_one(run, r"layer 1 \(BatchNorm2d\) can't be trained for several devices at once")


def test_losses_that_look_at_values_are_named() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets) * (2.0 if outputs.sum() > 0 else 1.0)

    check_one_by_one(begin("distreal", replace(DOUBLE, loss=loss)), "the loss can't be trained")


def test_optimisers_with_hooks_are_named() -> None:
    def hooked(parameters: Iterable[Tensor]) -> optim.Optimizer:
        optimizer = optim.SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: None)
        return optimizer

    run = begin("distreal", replace(DOUBLE, optimizer=hooked))
    check_one_by_one(run, "optimiser SGD calls step hooks")


class OwnStep(LocalPlan):
    """Trains each mini-batch twice, and says nothing of it."""

    def __init__(self, inner: LocalPlan) -> None:
        super().__init__(inner.masks)
        self._inner = inner

    def pick(self, budget: float) -> PricedVector:
        return self._inner.pick(budget)

    def step(
        self, trainer: DropoutTrainer, inputs: Tensor, targets: Tensor, vector: PricedVector
    ) -> float:
        trainer.step(inputs, targets, vector.kept_counts)
        return super().step(trainer, inputs, targets, vector)


class Twice(Distreal):
    """DISTREAL, each mini-batch twice."""

    name = "twice"

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        return OwnStep(super().plan(device, round_number, budget, seed))


def test_plans_with_a_step_of_their_own_are_named() -> None:
    def twice(context: object) -> Strategy:
        made: Strategy = Twice.make(context)  # type: ignore[arg-type]
        return made

    check_one_by_one(begin(twice), "strategy twice has steps that it does not describe")


def test_too_little_memory_is_named() -> None:
    run = begin("distreal")
    tasks = tasks_of(run)
    with pytest.warns(BatchingWarning, match="need more memory than the 0.1 MiB that there are"):
        found = trained(run, Batched(run.training, memory=100_000), tasks)
    assert check_equal(found, trained(run, InProcess(run.training), tasks)) == 0


def test_one_device_alone_is_trained_as_ever() -> None:
    run = begin("distreal", noisy(nn.Dropout(0.5)))
    (task, *_) = tasks_of(run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = trained(run, Batched(run.training), [task])
    assert check_equal(found, trained(run, InProcess(run.training), [task])) == 0


def test_what_fails_one_by_one_as_well_is_an_error() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ValueError("no such loss")

    run = begin("distreal", replace(DOUBLE, loss=loss))
    with (
        pytest.warns(BatchingWarning, match="no such loss"),
        pytest.raises(ValueError, match="no such loss"),
    ):
        trained(run, Batched(run.training), tasks_of(run))


def test_cohorts_are_batched_on_a_gpu_alone_unless_asked_for() -> None:
    training = begin("distreal").training
    assert type(clients_here(training)) is InProcess
    assert type(clients_here(training, "one-by-one")) is InProcess
    assert type(clients_here(training, "batched")) is Batched
    with pytest.raises(InputError, match="--clients.*auto, one-by-one or batched, found 'all'"):
        clients_here(training, "all")

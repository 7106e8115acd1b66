"""Devices that are trained at once come to what they do one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn, optim
from torch.utils.data import Dataset, Subset, TensorDataset

from cohorts import (
    CLOSE,
    DOUBLE,
    apart,
    at_once,
    begin,
    check_equal,
    check_same_round,
    in_type,
    noisy,
    tasks_of,
    trained,
)
from distreal_dse import Data
from fl.clients import InProcess
from fl.cohort import Batched
from fl.cohort.samples import Samples
from fl.strategies import built_in_strategies
from fl.testing import SETTINGS, STUDY
from fl.world.deadlines import RoundRules
from fl.world.splits import make_split

# A strategy of our own among them, and what it has of settings.
STRATEGIES = [
    *built_in_strategies(), "nested:core=taught,anchor=0.3,levels=3", "fjord-kd:alpha=0.4"
]  # fmt: skip
MASKS = ["random", "random-round", "ordered", "rolling", "core:core=0.5", "blocks:blocks=4"]
EPOCHS = replace(SETTINGS, local_epochs=2)
Optimizer = Callable[[Iterable[Tensor]], optim.Optimizer]


def groups(parameters: Iterable[Tensor]) -> optim.Optimizer:
    """Weights decay, and what has one axis learns faster."""
    own = list(parameters)
    few = [one for one in own if one.dim() == 1]
    return optim.SGD(
        [{"params": few, "lr": 0.2}, {"params": [one for one in own if one.dim() > 1]}],
        lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.1,
    )  # fmt: skip


OPTIMIZERS: dict[str, Optimizer] = {
    "groups": groups,
    "nesterov": lambda own: optim.SGD(own, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda own: optim.Adam(own, lr=0.01, amsgrad=True),
    "adamw": lambda own: optim.AdamW(own, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda own: optim.RMSprop(own, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda own: optim.Adagrad(own, lr=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda own: optim.Adadelta(own),
    "adamax": lambda own: optim.Adamax(own, lr=0.01),
    "nadam": lambda own: optim.NAdam(own, lr=0.01),
    "radam": lambda own: optim.RAdam(own, lr=0.01),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_every_strategy_comes_to_the_same(strategy: str, dtype: torch.dtype) -> None:
    run = begin(strategy, in_type(STUDY, dtype), replace(SETTINGS, local_epochs=2))
    check_same_round(run, tasks_of(run))


@pytest.mark.parametrize("masks", MASKS)
def test_every_mask_policy_comes_to_the_same(masks: str) -> None:
    run = begin("distreal", settings=EPOCHS)
    run.training.strategy.masks = masks
    check_same_round(run, tasks_of(run))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_comes_to_the_same(name: str) -> None:
    def model() -> nn.Module:
        # Batch normalisation takes biases away: their gradients are rounding errors, which some
        # optimisers divide by their own size.
        module = STUDY.model().double()
        module[0].bias = module[4].bias = None
        return module

    run = begin("distreal", replace(DOUBLE, model=model, optimizer=OPTIMIZERS[name]), EPOCHS)
    check_same_round(run, tasks_of(run))


@pytest.mark.parametrize("strategy", ["distreal", "heterofl", "fjord-kd", "nested"])
def test_devices_that_lack_classes_come_to_the_same(strategy: str) -> None:
    run = begin(strategy, settings=replace(EPOCHS, masked_loss=True))
    labels, tasks = run.training.labels, tasks_of(run)
    for number, lacking in enumerate([(0,), (1, 2), (), (0,)]):
        held = torch.isin(labels, torch.tensor(lacking)).logical_not().nonzero().flatten()
        tasks[number] = replace(tasks[number], samples=held[:20])
    updates = check_same_round(run, tasks)
    row = run.checkpoint().state["9.weight"][1]
    assert torch.equal(updates[1].state["9.weight"][1], row), "expected no step of its class"


@pytest.mark.parametrize("strategy", ["distreal", "fjord-kd", "nested"])
def test_limits_of_gradients_hold_for_each_device(strategy: str) -> None:
    free = begin(strategy, settings=EPOCHS)
    held = begin(strategy, replace(DOUBLE, clip_norm=0.3), EPOCHS)
    tasks = tasks_of(held)
    found = check_same_round(held, tasks)
    others = trained(free, InProcess(free.training), tasks)
    moved = [
        apart(a.state["0.weight"], b.state["0.weight"]) for a, b in zip(found, others, strict=True)
    ]
    assert min(moved) > 1e-4, "expected the limit to be reached by each"


def test_limits_of_gradients_hold_for_scalars_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, outputs: Tensor) -> Tensor:
            return self.scale * outputs

    study = replace(noisy(Scaled()), clip_norm=0.3)
    run = begin("distreal", study)
    check_same_round(run, tasks_of(run))


@pytest.mark.parametrize("settings", ["prox=0.5", "momentum=0.3,weight-decay=0.01,lr=0.2"])
def test_settings_of_strategies_hold(settings: str) -> None:
    for strategy in ("distreal", "fjord-kd"):
        run = begin(f"{strategy}:{settings}", settings=EPOCHS)
        check_same_round(run, tasks_of(run))


def test_devices_differ_in_samples_and_in_time() -> None:
    """Smaller last mini-batches, single left-overs, and deadlines that end some rounds early."""
    rules = RoundRules(deadline=0.9, late="partial")
    run = begin("distreal", settings=replace(EPOCHS, rules=rules))
    updates = check_same_round(run, tasks_of(run, (13, 9, 24, 2, 30)))
    assert len({one.complete for one in updates}) == 2
    assert len({one.mini_batches for one in updates}) > 2


def test_rounds_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Averages of what was trained at once, server included; three rounds of a run."""
    for averaging in ("plain", "contributors", "pooled"):
        settings = replace(SETTINGS, split=make_split("dirichlet:alpha=0.5"))
        one, other = (begin(f"distreal:averaging={averaging}", settings=settings) for _ in range(2))
        expected = list(one.rounds(InProcess(one.training)))
        found = list(other.rounds(Batched(other.training)))
        for a, b in zip(found, expected, strict=True):
            assert (a.accuracy, a.virtual_seconds) == (b.accuracy, b.virtual_seconds)
            assert replace(a, loss=None) == replace(b, loss=None)
        state = one.checkpoint().state
        distances = [apart(t, state[n]) for n, t in other.checkpoint().state.items()]
        assert max(distances) <= CLOSE[torch.float64]


def test_a_diverging_device_ends_its_round_and_no_other() -> None:
    """Its state is that after the step of the loss that is not finite, as one by one."""

    def data() -> Data:
        own = DOUBLE.data()
        images, labels = own.train.tensors  # type: ignore[attr-defined]
        images = images.clone()
        images[20:40] = math.inf  # of the second device
        images[47] = math.nan  # of one mini-batch of the third
        return replace(own, train=TensorDataset(images, labels))

    for strategy in ("distreal", "fjord-kd", "nested"):
        run = begin(strategy, replace(DOUBLE, data=data), replace(EPOCHS, rules=RoundRules()))
        tasks = tasks_of(run)
        updates = check_same_round(run, tasks)
        assert [math.isfinite(one.loss) for one in updates] == [True, False, False, True]
        assert updates[1].mini_batches == 1 and updates[0].mini_batches > 3
        # Who diverged did not miss the deadline, though what it left would have.
        late = replace(EPOCHS, local_epochs=3, rules=RoundRules(deadline=0.5, late="drop"))
        run = begin(strategy, replace(DOUBLE, data=data), late)
        updates = check_same_round(run, tasks_of(run))
        assert updates[1].complete


def test_samples_that_are_drawn_are_the_same() -> None:
    """A data set that augments draws from the streams of each device."""

    class Augmented(Dataset[tuple[Tensor, Tensor]]):
        def __init__(self, inner: Dataset[tuple[Tensor, Tensor]]) -> None:
            self.inner = inner

        def __len__(self) -> int:
            return len(self.inner)  # type: ignore[arg-type]

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            image, label = self.inner[index]
            return image + torch.randn(()), label

    def data() -> Data:
        own = DOUBLE.data()
        return replace(own, train=Augmented(own.train))

    run = begin("distreal", replace(DOUBLE, data=data))
    check_same_round(run, tasks_of(run))


def test_samples_that_take_too_much_memory_are_fetched() -> None:
    dataset, device = DOUBLE.data().train, torch.device("cpu")
    size = 120 * (16 * 8 + 8)
    assert not Samples(dataset, device, size).fetching
    assert Samples(dataset, device, size - 1).fetching


def test_parts_of_data_sets_are_indexed() -> None:
    def data() -> Data:
        own = DOUBLE.data()
        odd = Subset(Subset(own.train, list(range(1, 120, 2))), list(range(59, -1, -1)))
        return replace(own, train=odd)

    run = begin("distreal", replace(DOUBLE, data=data))
    check_same_round(run, tasks_of(run, (15, 15, 15, 15)))


@pytest.mark.parametrize(
    "layer", [nn.PReLU(16), nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True))]
)
def test_other_layers_come_to_the_same(layer: nn.Module) -> None:
    def model() -> nn.Module:
        *others, last = STUDY.model()
        return nn.Sequential(*others, layer, last).double()

    run = begin("distreal", replace(DOUBLE, model=model))
    check_same_round(run, tasks_of(run))


def test_frozen_parameters_and_statistics_stay() -> None:
    def model() -> nn.Module:
        module = STUDY.model().double()
        module[0].weight.requires_grad_(False)
        return module

    run = begin("distreal", replace(DOUBLE, model=model, optimizer=groups))
    run.network.module[5].eval()
    updates = check_same_round(run, tasks_of(run))
    state = run.checkpoint().state
    for name in ("0.weight", "5.running_mean"):
        assert all(torch.equal(one.state[name], state[name]) for one in updates)


def test_what_a_network_has_trained_before_makes_no_difference() -> None:
    """Rows begin with the state that is given, not with what the network holds."""
    run = begin("distreal")
    tasks = tasks_of(run)
    state = {name: one.clone() for name, one in run.checkpoint().state.items()}
    clients = Batched(run.training)
    with at_once(clients, [4]):
        first = trained(run, clients, tasks, state)
        run.network.load_state({name: one * 0 for name, one in state.items()})
        again = trained(run, clients, tasks, state)
    assert check_equal(again, first) == 0

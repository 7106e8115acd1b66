from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from distreal_dse import Data, Study
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import Front, LookupTable
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator
from fl.engine import FederatedRun
from fl.results import RoundResult
from fl.server import select_cohort
from fl.settings import RunSettings
from fl.strategies import Distreal
from fl.world.availability import ConstantAvailability
from fl.world.devices import DEFAULT_CLASSES, DeviceClass, make_devices
from fl.world.splits import split_iid

MakeFront = Callable[..., Front]
MakeCnn = Callable[..., nn.Module]

FULL_SPEED = (DeviceClass("full", 1.0, 1.0),)
SETTINGS = RunSettings(rounds=3, devices=6, cohort=3, local_epochs=2, seed=5)


def run(
    study: Study, data: Data, network: DroppableNetwork, front: Front, settings: RunSettings
) -> list[RoundResult]:
    return list(federated(study, data, network, front, settings).rounds())


def federated(
    study: Study, data: Data, network: DroppableNetwork, front: Front, settings: RunSettings
) -> FederatedRun:
    strategy = Distreal(LookupTable(front))
    return FederatedRun(study, data, network, strategy, front, settings)


def bare_fedavg(study: Study, data: Data, module: nn.Module, settings: RunSettings) -> None:
    """FedAvg in plain PyTorch, over the same cohorts, shards and data orders."""
    inputs, targets = data.train[:]
    devices = make_devices(settings.devices, settings.classes)
    shards = split_iid(len(inputs), settings.devices, settings.seed)
    for number in range(1, settings.rounds + 1):
        start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        trained: list[dict[str, Tensor]] = []
        sizes: list[int] = []
        for device in select_cohort(devices, settings.cohort, number, settings.seed):
            module.load_state_dict(start)
            module.train()
            optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
            order = generator(settings.seed, "order", device.index, number)
            shard = shards[device.index]
            for _ in range(settings.local_epochs):
                for batch in shard[torch.randperm(len(shard), generator=order)].split(8):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(module(inputs[batch]), targets[batch]).backward()
                    optimizer.step()
            trained.append({name: t.clone() for name, t in module.state_dict().items()})
            sizes.append(len(shard))
        for name in start:
            if start[name].is_floating_point():
                mean = sum(
                    state[name].double() * (size / sum(sizes))
                    for state, size in zip(trained, sizes, strict=True)
                )
                assert isinstance(mean, Tensor)
                start[name] = mean.float()
            else:
                start[name] = torch.stack([state[name] for state in trained]).max()
        module.load_state_dict(start)


def test_with_full_budgets_it_is_bit_identical_to_bare_fedavg(
    study: Study, data: Data, network: DroppableNetwork, front: Front
) -> None:
    # 20 or 21 samples per device: unequal weights, and a left-over of 4 or 5.
    data = replace(data, train=TensorDataset(*(part[:119] for part in data.train[:])))
    settings = replace(SETTINGS, classes=FULL_SPEED, availability=ConstantAvailability())
    oracle = prepare(study, seed=0)[0].module
    bare_fedavg(study, data, oracle, settings)
    results = run(study, data, network, front, settings)
    expected, found = oracle.state_dict(), network.module.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [result.mean_cost_share for result in results] == [None, 1.0, 1.0, 1.0]


def test_scarce_budgets_give_other_weights(
    study: Study, data: Data, network: DroppableNetwork, front: Front
) -> None:
    full = replace(SETTINGS, classes=FULL_SPEED, availability=ConstantAvailability())
    oracle = prepare(study, seed=0)[0].module
    bare_fedavg(study, data, oracle, full)
    run(study, data, network, front, SETTINGS)
    assert not torch.equal(oracle.state_dict()["0.weight"], network.module.state_dict()["0.weight"])


def test_same_seed_gives_the_same_run_and_another_seed_another(
    study: Study, data: Data, front: Front
) -> None:
    states: list[dict[str, Tensor]] = []
    figures: list[list[RoundResult]] = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(states))
        network = prepare(study, seed=0)[0]
        figures.append(run(study, data, network, front, replace(SETTINGS, seed=seed)))
        states.append(network.module.state_dict())
    assert figures[0] == figures[1]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert figures[0] != figures[2]


def test_a_round_ends_when_its_slowest_device_ends(
    study: Study, data: Data, network: DroppableNetwork, make_front: MakeFront
) -> None:
    classes = (DeviceClass("fast", 0.5, 1.0), DeviceClass("slow", 0.5, 0.25))
    only_full = make_front(network, network.full_counts)
    settings = RunSettings(
        rounds=2,
        devices=4,
        cohort=4,
        classes=classes,
        availability=ConstantAvailability(),
    )
    results = run(study, data, network, only_full, settings)
    # 30 samples per device: 3.75 mini-batches of 8; the slow ones need 4 slots for each.
    slot = only_full.reference_cost * 8 / 1e9
    expected = [0, 15 * slot, 30 * slot]
    assert [result.virtual_seconds for result in results] == pytest.approx(expected)
    assert [result.over_budget for result in results] == [0, 8, 8]
    assert [result.mini_batches for result in results] == [0, 16, 16]
    assert [result.training_macs for result in results] == [
        0,
        *[120 * only_full.reference_cost] * 2,
    ]
    assert results[1].cohort == (0, 1, 2, 3)


def test_an_update_that_is_not_finite_is_rejected_and_the_round_goes_on(
    plain_study: Study, data: Data, make_front: MakeFront
) -> None:
    settings = RunSettings(rounds=2, devices=4, cohort=4, availability=ConstantAvailability())
    poisoned = 2
    inputs, targets = data.train[:]
    inputs = inputs.clone()
    inputs[split_iid(120, 4, settings.seed)[poisoned]] = torch.nan
    data = replace(data, train=TensorDataset(inputs, targets))
    network = prepare(plain_study, seed=0)[0]
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    front = make_front(network, (3, 4), (8, 16))
    results = run(plain_study, data, network, front, settings)
    assert [result.rejected for result in results] == [0, 1, 1]
    assert results[-1].cohort == (0, 1, 2, 3)
    after = network.module.state_dict()
    assert all(bool(after[name].isfinite().all()) for name in after)
    assert not torch.equal(before["0.weight"], after["0.weight"])


def test_a_round_in_which_all_updates_are_rejected_changes_nothing(
    plain_study: Study, data: Data, make_front: MakeFront
) -> None:
    inputs, targets = data.train[:]
    data = replace(data, train=TensorDataset(torch.full_like(inputs, torch.nan), targets))
    network = prepare(plain_study, seed=0)[0]
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    results = run(plain_study, data, network, make_front(network, (8, 16)), SETTINGS)
    assert [result.rejected for result in results] == [0, 3, 3, 3]
    after = network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len({result.accuracy for result in results}) == 1


def test_only_some_rounds_are_evaluated_if_asked_and_always_the_last(
    study: Study, data: Data, network: DroppableNetwork, front: Front
) -> None:
    results = run(study, data, network, front, replace(SETTINGS, rounds=5, evaluate_every=2))
    assert [result.round for result in results if result.accuracy is not None] == [0, 2, 4, 5]
    assert [result.round for result in results if result.loss is not None] == [0, 2, 4, 5]


def test_the_network_holds_the_global_state_of_the_round_just_yielded(
    study: Study, data: Data, network: DroppableNetwork, front: Front
) -> None:
    rounds = federated(study, data, network, front, SETTINGS).rounds()
    next(rounds), next(rounds)
    stopped = network.module.state_dict()
    other = prepare(study, seed=0)[0]
    run(study, data, other, front, replace(SETTINGS, rounds=1))
    expected = other.module.state_dict()
    assert all(torch.equal(stopped[name], expected[name]) for name in expected)


def test_a_front_of_another_network_is_refused_before_training(
    study: Study, data: Data, front: Front, make_cnn: MakeCnn
) -> None:
    wide = replace(study, model=lambda: make_cnn(classes=4))
    network = prepare(wide, seed=0)[0]
    with pytest.raises(FrontError, match="another model than study noise"):
        federated(wide, data, network, front, SETTINGS)


def test_devices_with_less_than_two_samples_are_refused(
    study: Study, data: Data, network: DroppableNetwork, front: Front
) -> None:
    with pytest.raises(InputError, match="120 samples.*61 devices"):
        federated(study, data, network, front, RunSettings(devices=61))


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"cohort": 31}, {"local_epochs": 0}, {"classes": DEFAULT_CLASSES[:2]}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        RunSettings(**wrong)  # type: ignore[arg-type]


def test_settings_can_be_stored_as_json() -> None:
    stored = json.loads(json.dumps(SETTINGS.as_json()))
    assert stored["rounds"] == 3
    assert stored["classes"][1] == {"name": "medium", "share": 1 / 3, "speed": 0.5}
    assert stored["availability"] == {
        "kind": "MarkovAvailability",
        "levels": [0.25, 0.5, 0.75, 1.0],
        "stay": 0.8,
        "period": 1.0,
    }
    assert stored["rules"] == {"deadline": None, "late": "drop", "overcommit": 0.0}


def test_digits_are_learned_by_devices_of_all_classes(
    make_front: MakeFront, make_cnn: MakeCnn
) -> None:
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16 - 0.3
    targets = torch.tensor(labels)
    parts = [
        TensorDataset(inputs[a:b], targets[a:b]) for a, b in ((0, 1200), (1200, 1500), (1500, 1797))
    ]
    data = Data(*parts)
    study = Study(
        model=lambda: make_cnn(10, width=24), data=lambda: data, batch_size=16, name="digits"
    )
    network = prepare(study, seed=0)[0]
    front = make_front(network, (8, 12), (14, 28), (24, 48))
    settings = RunSettings(rounds=16, devices=12, cohort=6, local_epochs=2)
    results = run(study, data, network, front, settings)
    first, last = results[0].accuracy, results[-1].accuracy
    assert first is not None and last is not None
    assert first < 0.3 and last > 0.6
    assert results[-1].mean_cost_share is not None and results[-1].mean_cost_share < 0.6


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        (
            "fl, fl.engine, fl.store.runs, fl.strategies",
            "optuna plotly optuna_dashboard typer alembic",
        ),
        ("fl.store.runs, fl.results", "torch"),
    ],
)
def test_imports_stay_light(imported: str, absent: str) -> None:
    code = f"import sys, {imported}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    ).stdout.split()
    assert not set(absent.split()) & set(loaded)
    assert "distreal_dse.search" not in loaded and "distreal_dse.cli" not in loaded

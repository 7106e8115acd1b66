"""Momentum and weight decay of devices, where a strategy has its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.errors import InputError
from distreal_dse.study.preparation import prepare
from fl.engine import FederatedRun
from fl.optimizer_settings import set_option
from fl.settings import RunSettings
from fl.strategies import StrategyContext, built_in_strategies, check_strategy, make_strategy
from fl.world.devices import DeviceClass

SETTINGS = RunSettings(
    rounds=2,
    devices=6,
    cohort=4,
    local_epochs=2,
    classes=(DeviceClass("strong", 0.5, 1.0), DeviceClass("weak", 0.5, 0.2)),
    seed=3,
)


def begun(study: Study, data: Data, text: str) -> FederatedRun:
    network = prepare(study, seed=0)[0]
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.2 * macs.full, study)
    return FederatedRun(study, data, network, make_strategy(text, context), None, SETTINGS)


def trained(study: Study, data: Data, text: str) -> dict[str, Tensor]:
    run = begun(study, data, text)
    assert all(not one.rejected for one in run.rounds())
    return dict(run.network.module.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", [one for one in built_in_strategies() if one != "distreal"])
def test_a_strategys_settings_are_those_of_the_optimiser_that_a_study_could_have(
    name: str, study: Study, data: Data
) -> None:
    def optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return SGD(parameters, lr=0.1, momentum=0.5, weight_decay=0.02)

    expected = trained(replace(study, optimizer=optimizer), data, name)
    assert same(trained(study, data, f"{name}:lr=0.1,momentum=0.5,weight-decay=0.02"), expected)
    for missing in ("lr=0.1,momentum=0.5", "lr=0.1,weight-decay=0.02"):
        assert not same(trained(study, data, f"{name}:{missing}"), expected)


def test_settings_of_the_studys_own_change_nothing(study: Study, data: Data) -> None:
    plain = trained(study, data, "heterofl")
    assert same(trained(study, data, "heterofl:momentum=0.9,weight-decay=0"), plain)


@pytest.mark.parametrize("kind", [Adam, AdamW, RMSprop])
def test_other_optimisers_decay_weights_too(
    kind: type[Optimizer], study: Study, data: Data
) -> None:
    study = replace(study, optimizer=lambda parameters: kind(parameters, lr=1e-3))  # type: ignore[call-arg]
    kept, shrunk = (trained(study, data, f"fedavg{text}") for text in ("", ":weight-decay=0.5"))
    assert not same(kept, shrunk)


def test_an_optimiser_without_momentum_is_refused_before_training(study: Study, data: Data) -> None:
    study = replace(study, optimizer=lambda parameters: Adam(parameters, lr=1e-3))
    message = (
        "momentum of Adam: expected groups of parameters with 'momentum', found none; leave "
        "momentum out of the strategy"
    )
    with pytest.raises(InputError, match=message) as caught:
        begun(study, data, "small:momentum=0.5")
    assert "\n" not in str(caught.value)


def test_groups_of_parameters_keep_their_ratios() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": first.parameters(), "weight_decay": 0}, {"params": second.parameters()}]
    optimizer = SGD(groups, lr=0.1, weight_decay=0.01)
    set_option(optimizer, "weight_decay", 0.5)  # such as normalisations without any
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.5]
    set_option(optimizer, "momentum", 0.8)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.8, 0.8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("small:momentum=1", "momentum of a strategy: expected 0 ≤ momentum < 1 .* found 1"),
        ("small:momentum=nan", "momentum of a strategy: .* found nan"),
        ("fjord:weight-decay=-0.1", "weight-decay of a strategy: .* from 0 on .* found -0.1"),
        ("fjord:weight-decay=inf", "weight-decay of a strategy: .* found inf"),
        ("fjord:weight-decay=some", "weight-decay: expected a number, found 'some'"),
        ("fjord:weight_decay=0.1", "found 'weight_decay'; did you mean weight-decay"),
    ],
)
def test_values_that_are_none_are_refused_without_a_network(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_strategy(text, None)

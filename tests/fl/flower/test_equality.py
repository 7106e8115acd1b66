from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="needs the extra flower: pip install 'distreal-dse[flower]'")

from fl.results import RoundResult, State  # noqa: E402
from fl.strategies import built_in_strategies  # noqa: E402
from flower_runs import Ground  # noqa: E402


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground.make(tmp_path_factory.mktemp("flower"))
    yield made
    made.database.dispose()


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


def figures(result: RoundResult) -> tuple[Any, ...]:
    """All that does not depend on who evaluates, and on what the way takes."""
    devices = tuple(
        (one.device, one.device_class, one.outcome, one.seconds, one.training_macs,
         one.mini_batches, one.mean_cost_share, one.over_budget)
        for one in result.devices
    )  # fmt: skip
    return result.round, result.virtual_seconds, result.cohort, result.wasted_macs, devices


@pytest.mark.parametrize("strategy", [*built_in_strategies(), "distreal-uniform:masks=rolling"])
def test_weights_and_figures_are_those_of_the_engine(ground: Ground, strategy: str) -> None:
    config = ground.config(strategy)
    state, rounds = ground.in_process(config)
    found = ground.on_flower(config)
    assert same(found.state, state)
    assert [figures(one) for one in found.rounds] == [figures(one) for one in rounds]


@pytest.mark.parametrize("late", ["drop", "partial", "wait"])
def test_deadlines_and_the_servers_optimiser_are_those_of_the_engine(
    ground: Ground, late: str
) -> None:
    config = ground.config(
        "nested", late=late, deadline=0.7, overcommit=0.5,
        server="momentum:lr=1,beta=0.5,schedule=cosine:end=0.2", schedule="cosine:end=0.1",
    )  # fmt: skip
    state, rounds = ground.in_process(config)
    outcomes = {device.outcome for one in rounds for device in one.devices}
    assert outcomes > {"accepted"}  # or else nothing is late
    found = ground.on_flower(config)
    assert same(found.state, state)
    assert [figures(one) for one in found.rounds] == [figures(one) for one in rounds]


def test_cohorts_do_not_depend_on_who_connects_first(ground: Ground) -> None:
    config = ground.config()
    one, other = ground.on_flower(config), ground.on_flower(
        config, nodes=[{"partition-id": i} for i in (3, 5, 0, 1, 4, 2)]
    )  # fmt: skip
    assert [r.cohort for r in one.rounds] == [r.cohort for r in other.rounds]
    assert same(one.state, other.state)


def test_a_device_has_its_front_from_an_exported_file(ground: Ground) -> None:
    config = ground.config() | {"storage": ground.config()["storage"]}
    nodes = [
        {"partition-id": i, "front": str(ground.export), "storage": "sqlite:////nowhere/at.all"}
        for i in range(6)
    ]
    found = ground.on_flower(config, nodes)
    assert same(found.state, ground.in_process(config)[0])


@pytest.mark.parametrize("strategy", ["heterofl", "federated-dropout", "nested", "distreal"])
def test_what_plans_need_travels_and_no_more(ground: Ground, strategy: str) -> None:
    config = ground.config(strategy)
    found, (_, planned) = ground.on_flower(config), ground.in_process(config)
    # What the records hold beside weights: names and numbers, masks, costs.
    for sent, needed in zip(found.rounds[1:], planned[1:], strict=True):
        for device, plan in zip(sent.devices, needed.devices, strict=True):
            assert plan.bytes_down <= device.bytes_down <= plan.bytes_down + 400
            assert device.bytes_up <= plan.bytes_up + 400 + 40 * plan.mini_batches


def test_only_devices_whose_plans_differ_are_asked_for_them(ground: Ground) -> None:
    asked = {
        strategy: [kind for kind, _ in ground.on_flower(ground.config(strategy)).grid.sent]
        for strategy in ("distreal", "heterofl")
    }
    assert asked["distreal"].count("query.plan") == 0
    assert asked["heterofl"].count("query.plan") == asked["heterofl"].count("train") == 9

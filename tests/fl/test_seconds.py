"""Strategies where costs are seconds, on devices whose steps take what a test says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import Front, find_front, save_front
from distreal_dse.pricing import seconds_of
from distreal_dse.study.preparation import prepare
from fl.compare.comparison import check_comparison
from fl.engine import FederatedRun
from fl.results import RoundResult
from fl.settings import RunSettings
from fl.store.specs import RunSpec
from fl.strategies import (
    Strategy,
    StrategyContext,
    Vector,
    VectorTable,
    built_in_strategies,
    check_strategy,
    make_strategy,
)
from fl.world.availability import ConstantAvailability
from fl.world.deadlines import RoundRules
from fl.world.devices import Device, DeviceClass
from timed_fronts import timed_front

REFERENCE = 2.0
# Of widths 8 and 16. Cutting out is dear, and steps are not: 4-8 takes less than 3-6.
CUT = {(1, 1): 0.5, (2, 4): 0.6, (3, 6): 0.9, (4, 8): 0.7, (6, 12): 1.1}
ALONE = {(1, 1): 0.1, (2, 4): 0.2, (3, 6): 0.5, (4, 8): 0.4, (6, 12): 0.8}


@pytest.fixture
def seconds(front: Front) -> Front:
    return timed_front(front, CUT, ALONE, reference=REFERENCE)


@pytest.fixture
def context(study: Study, network: DroppableNetwork, seconds: Front) -> StrategyContext:
    macs = MacCost(network.channels)
    return StrategyContext(network, seconds, macs, 0.45 * REFERENCE, study)


def picked(strategy: Strategy, share: float) -> Vector:
    plan = strategy.plan(Device(0, "any", 1.0), 1, share * REFERENCE, seed=5)
    vector = plan.pick(share * REFERENCE)
    return Vector(vector.kept_counts, vector.cost)


def test_the_widest_that_fits_is_taken_though_a_narrower_one_does_not(
    context: StrategyContext,
) -> None:
    for share, counts in ((0.55, (1, 1)), (0.65, (2, 4)), (0.75, (4, 8)), (0.99, (4, 8))):
        found = context.largest_within(share * REFERENCE)
        assert found == Vector(counts, REFERENCE * CUT[counts]), share
    assert context.largest_within(REFERENCE) == Vector((8, 16), REFERENCE)
    alone = replace(context, steps="alone")
    assert alone.largest_within(0.45 * REFERENCE) == Vector((4, 8), REFERENCE * 0.4)


def test_where_none_fits_the_cheapest_is_taken(
    study: Study, network: DroppableNetwork, front: Front
) -> None:
    cut = {(1, 1): 0.6, (2, 4): 0.5, (4, 8): 0.7}
    timed = timed_front(front, cut, ALONE, reference=REFERENCE)
    context = StrategyContext(network, timed, MacCost(network.channels), 1.0, study)
    assert context.largest_within(0.1).kept_counts == (2, 4)


@pytest.mark.parametrize("name", ["small", "federated-dropout"])
def test_one_vector_for_all_is_priced_as_a_network_of_its_own(
    name: str, context: StrategyContext
) -> None:
    strategy = make_strategy(name, context)
    assert picked(strategy, 1.0) == Vector((4, 8), REFERENCE * ALONE[4, 8])


def test_the_size_of_small_is_a_share_of_the_time(context: StrategyContext) -> None:
    assert picked(make_strategy("small:share=0.2", context), 1.0).kept_counts == (2, 4)
    assert picked(make_strategy("small:share=1", context), 1.0) == Vector((8, 16), REFERENCE)


def test_levels_are_shares_of_the_time(context: StrategyContext) -> None:
    levels = make_strategy("heterofl:costs=1/0.8/0.4/0.2", context)
    for share, counts in ((1.0, (8, 16)), (0.9, (6, 12)), (0.5, (4, 8)), (0.3, (2, 4))):
        assert picked(levels, share).kept_counts == counts
    drawn = make_strategy("fjord:costs=1/0.7/0.6", context)
    assert picked(drawn, 0.65) == Vector((2, 4), REFERENCE * CUT[2, 4])


def test_a_level_that_a_wider_one_beats_is_not_trained(context: StrategyContext) -> None:
    levels = make_strategy("heterofl:widths=0.25/0.375/0.5/1", context)
    assert picked(levels, 0.55).kept_counts == (4, 8)  # and not 3-6, which is dearer
    assert {picked(levels, share / 100).kept_counts for share in range(1, 101)} == {
        (2, 4), (4, 8), (8, 16),
    }  # fmt: skip


def test_a_table_leaves_out_what_a_larger_vector_costs_no_more_than() -> None:
    small, odd, large = Vector((1, 4), 2.0), Vector((4, 1), 2.0), Vector((2, 4), 2.0)
    assert VectorTable([small, odd, large, large]).vectors == (odd, large, large)
    rising = [Vector((1, 1), 1.0), Vector((2, 1), 1.5), Vector((2, 2), 2.0)]
    assert VectorTable(rising[::-1]).vectors == tuple(rising)


def test_one_rate_for_the_budget_is_one_that_was_timed(context: StrategyContext) -> None:
    strategy = make_strategy("distreal-uniform", context)
    found = {picked(strategy, share / 100) for share in range(1, 101)}
    # 3-6 costs more than 4-8, and 6-12 more than all.
    expected = {(1, 1): 0.5, (2, 4): 0.6, (4, 8): 0.7, (8, 16): 1.0}
    assert found == {Vector(counts, REFERENCE * ratio) for counts, ratio in expected.items()}


def test_nested_levels_are_cut_out(
    context: StrategyContext, seconds: Front, network: DroppableNetwork
) -> None:
    context = replace(context, weakest_budget=0.62 * REFERENCE)
    strategy = make_strategy("nested:levels=3", context)
    strategy.network(network)
    prices = seconds_of(seconds, context.macs).cut
    found = {picked(strategy, share / 100) for share in range(1, 101)}
    assert {(2, 4), (8, 16)} <= {vector.kept_counts for vector in found}
    for vector in found:
        assert vector.cost == prices.cost(vector.kept_counts)


def rounds_of(
    name: str, seconds: Front, study: Study, pace: float = 1.0
) -> tuple[FederatedRun, list[RoundResult]]:
    network, data = prepare(study, seed=0)
    settings = RunSettings(
        rounds=2,
        devices=1,
        cohort=1,
        classes=(DeviceClass("half", 1.0, 0.5),),
        availability=ConstantAvailability(),
        rules=RoundRules(),
        pace=pace,
    )
    context = StrategyContext(network, seconds, MacCost(network.channels), REFERENCE / 2, study)
    strategy = make_strategy(name, context)
    run = FederatedRun(study, data, network, strategy, seconds, settings)
    return run, list(run.rounds())


@pytest.mark.parametrize(
    ("name", "counts", "ratio"),
    [
        ("small", (4, 8), ALONE[4, 8]),
        ("heterofl:widths=0.5/1", (4, 8), ALONE[4, 8]),
        ("distreal-uniform", (1, 1), CUT[1, 1]),
        ("fedavg-drop", (8, 16), 1.0),
    ],
)
def test_the_clock_charges_seconds_and_work_stays_macs(
    name: str, counts: tuple[int, ...], ratio: float, seconds: Front, study: Study
) -> None:
    run, rounds = rounds_of(name, seconds, study)
    macs = MacCost(prepare(study, seed=0)[0].channels)
    batches = 120 // study.batch_size
    # A device of half the speed takes twice as long.
    assert rounds[1].virtual_seconds == pytest.approx(batches * ratio * REFERENCE / 0.5)
    (device,) = rounds[1].devices
    assert device.mini_batches == batches
    assert device.mean_cost_share == pytest.approx(ratio)
    if name != "small":  # whose MACs are those of a network of its own
        assert device.training_macs == pytest.approx(120 * macs.training(counts))
    else:
        assert device.training_macs == pytest.approx(120 * MacCost(run.network.channels).full)


def test_budgets_are_seconds(seconds: Front, study: Study) -> None:
    _, rounds = rounds_of("distreal-uniform", seconds, study, pace=1.5)  # ¾ of the full time
    (device,) = rounds[1].devices
    assert device.mean_cost_share == pytest.approx(CUT[4, 8])
    assert device.over_budget == 0


class CountsMacs(Strategy):
    """A plug-in that takes MACs for costs."""

    name = "counts-macs"

    def pick(self, budget: float) -> Vector:
        """Return the full network."""
        return Vector(self.context.network.full_counts, self.context.macs.full)


def test_a_strategy_that_takes_macs_for_seconds_is_refused(
    context: StrategyContext, seconds: Front, study: Study, data: Data, network: DroppableNetwork
) -> None:
    with pytest.raises(InputError, match=r"'counts-macs': expected a cost in the unit of the run"):
        FederatedRun(study, data, network, CountsMacs(context), seconds, RunSettings())


def test_a_front_without_networks_of_one_rate_serves_distreal_alone(
    context: StrategyContext, seconds: Front, study: Study
) -> None:
    bare = replace(seconds, settings={})
    run, _ = rounds_of("distreal", bare, study)
    assert run.front == bare
    for name in built_in_strategies():
        if name == "distreal":
            check_strategy(name, bare)
            continue
        with pytest.raises(InputError, match=f"'{name}' prices its own .* `distreal-dse front rep"):
            check_strategy(name, bare)
        check_strategy(name, seconds)
    with pytest.raises(FrontError, match="seconds for its own vectors alone"):
        replace(context, front=bare).price((1, 1))


def test_the_weakest_budget_of_a_stored_run_is_in_seconds(spec: RunSpec, database: Engine) -> None:
    front = find_front(database, "tiny")
    alone = {(1, 1): 0.1, (2, 2): 0.15, (3, 4): 0.2, (5, 6): 0.6}
    save_front(database, replace(timed_front(front, CUT_TINY, alone), name="timed", version=0))
    timed = replace(spec, front="timed", strategy="small", availability="constant")
    run = timed.begin(database)
    # The slowest device has a quarter of the full network's time.
    assert run.network.full_counts == (3, 4)
    stored = [*run.rounds()]
    assert stored == [*timed.begin(database).rounds()]
    counted = replace(timed, front="tiny").begin(database)
    assert counted.network.full_counts != (3, 4)


CUT_TINY = {(1, 1): 0.5, (2, 2): 0.6, (3, 4): 0.7, (5, 6): 0.9}


def test_a_comparison_refuses_an_unpriced_front_before_it_trains(
    spec: RunSpec, database: Engine
) -> None:
    front = find_front(database, "tiny")
    bare = timed_front(front, CUT_TINY, CUT_TINY)
    save_front(database, replace(bare, name="bare", version=0, settings={}))
    specs = [replace(spec, front="bare", strategy=name) for name in ("distreal", "small")]
    check_comparison(database, "c", specs[:1])
    with pytest.raises(InputError, match="'small' prices its own vectors: front bare@1 has sec"):
        check_comparison(database, "c", specs)

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator, seeded
from fl.client import VirtualTraining, device_optimizer, train_locally, train_virtually
from fl.live import LiveBudget
from fl.pacers import LivePacer
from fl.results import State
from fl.strategies import StrategyContext, built_in_strategies, make_strategy
from fl.testing import STUDY, hand_made_front
from fl.world.availability import ConstantAvailability, MarkovAvailability
from fl.world.clock import make_clock
from fl.world.devices import Device
from fl.world.exact import exact
from fl.world.splits import labels_of
from fl.world.transfer import state_sizes

SAMPLES = torch.arange(5, 48)  # five mini-batches of eight, and one of three


def begin(strategy: str) -> tuple[VirtualTraining, State]:
    network, data = prepare(STUDY, seed=0)
    front = hand_made_front(network, (3, 4), (5, 10), (8, 16))
    macs = MacCost(network.channels)
    context = StrategyContext(network, front, macs, 0.2 * front.reference_cost, STUDY)
    made = make_strategy(strategy, context)
    trained = made.network(network)
    training = VirtualTraining(
        study=STUDY,
        dataset=data.train,
        network=trained,
        macs=MacCost(trained.channels),
        size_of=state_sizes(trained.module.state_dict(), trained.channels),
        strategy=made,
        availability=MarkovAvailability(stay=0.5),
        clock=make_clock(front, macs, STUDY.batch_size),
        labels=labels_of(data.train),
        masked_loss=False,
        epochs=2,
        seed=3,
    )
    return training, {name: one.clone() for name, one in trained.copy_state().items()}


def by_hand(
    training: VirtualTraining, device: Device, state: State, start: float, deadline: float
) -> tuple[State, float, list[float]]:
    """A device's round in virtual time, written out: state, seconds and costs of mini-batches."""
    clock, network, key = training.clock, training.network, (device.index, 2)
    network.load_state(state)
    now, speed = exact(start), exact(device.speed)
    timeline = training.availability.timeline(device, 2, now, clock.slots(1), training.seed)
    plan = training.strategy.plan(
        device, 2, clock.budget(speed * exact(timeline.at(now)[0])), training.seed
    )
    plan.masks.start_round(2)
    plan.labels, plan.loss = training.labels[SAMPLES], STUDY.loss
    optimizer = device_optimizer(STUDY, network, training.strategy)
    draws, order = (generator(training.seed, name, *key) for name in ("masks", "order"))
    trainer = DropoutTrainer(network, optimizer, STUDY.loss, plan.masks, draws)
    size = training.size_of(plan.sent() or network.full_counts)
    down, up = (Fraction(size) / exact(link) for link in (device.download, device.upload))
    time, costs = now + down, []
    with seeded(training.seed, "layers", *key):
        for _ in range(training.epochs):
            shuffled = SAMPLES[torch.randperm(len(SAMPLES), generator=order)]
            for batch in shuffled.split(STUDY.batch_size):
                begins = timeline.next_free(time)
                vector = plan.pick(clock.budget(speed * exact(timeline.at(begins)[0])))
                end = clock.end(begins, vector.cost, len(batch), device.speed, timeline)
                if end + up > exact(deadline):
                    return network.copy_state(), float(time + up - now), costs
                plan.step(trainer, *fetch(training.dataset, batch), vector)
                time = end
                costs.append(vector.cost)
    return network.copy_state(), float(time + up - now), costs


def same(one: State, other: State) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("strategy", ["distreal", "nested", "fjord", "federated-dropout"])
@pytest.mark.parametrize("slots", [5.5, 1000])
def test_virtual_rounds_are_what_they_are_by_hand(strategy: str, slots: float) -> None:
    training, state = begin(strategy)
    slot = training.clock.slot
    device = Device(4, "any", 0.7, download=2e4 / slot, upload=3e3 / slot)
    start, deadline = 3 * slot, (3 + slots) * slot
    expected, seconds, costs = by_hand(training, device, state, start, deadline)
    found = train_virtually(training, device, SAMPLES, state, 2, start, deadline)
    assert same(found.state, expected)
    assert found.seconds == seconds
    assert found.cost_shares == tuple(cost / training.clock.reference_cost for cost in costs)
    assert found.complete == (len(costs) == 12) == (slots == 1000)
    assert len(costs) > 0


class Ticking:
    """Seconds that pass as the test lets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("strategy", built_in_strategies())
def test_every_strategy_trains_the_same_where_the_device_is_as_fast_as_in_virtual_time(
    strategy: str,
) -> None:
    training, state = begin(strategy)
    training = replace(training, availability=ConstantAvailability())
    device, cost = Device(1, "any", 1.0), training.clock.reference_cost
    expected = train_virtually(training, device, SAMPLES, state, 1, 0.0)
    clock = Ticking()  # steps take no time, so nothing is learned and all is free
    live = LiveBudget(cost, reference_seconds=1.0, slot_seconds=2.0, clock=clock)
    pacer = LivePacer(live, cost, STUDY.batch_size, clock=clock)
    found = train_locally(training, device, SAMPLES, state, 1, pacer)
    assert same(found.state, expected.state)
    assert torch.equal(found.masks, expected.masks)
    assert found.cost_shares == expected.cost_shares


def slowed(network: DroppableNetwork, clock: Ticking, seconds_of: Callable[[int], float]) -> None:
    """Let each mini-batch take its seconds of the clock; by its number."""
    steps = iter(range(10**6))

    def pass_time(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        clock.now += seconds_of(next(steps))

    network.module.register_forward_pre_hook(pass_time)


class Loaded(LivePacer):
    """On a device whose steps take what they cost, and five times that from step 30 on."""

    ticking: Ticking
    steps = 0

    def done(self) -> None:
        self.ticking.now += self._cost / self.reference_cost * (5 if self.steps >= 30 else 1)
        self.steps += 1
        super().done()


def test_a_real_device_takes_smaller_vectors_while_steps_take_long() -> None:
    training, state = begin("distreal")
    cost, clock = training.clock.reference_cost, Ticking()
    live = LiveBudget(cost, reference_seconds=1.0, slot_seconds=1.2, clock=clock)
    pacer = Loaded(live, cost, STUDY.batch_size, clock=clock)
    pacer.ticking = clock
    training = replace(training, epochs=4)
    update = train_locally(training, Device(0, "any", 1.0), torch.arange(120), state, 1, pacer)
    assert update.mini_batches == 60
    assert min(update.cost_shares[10:30]) > 0.9
    assert max(update.cost_shares[33:]) < 0.5
    # Too long are the two or three steps that tell of the load, and no others.
    assert 57 / 60 <= pacer.kept_to_slot <= 59 / 60


def test_a_real_device_begins_nothing_that_would_end_too_late() -> None:
    training, state = begin("fedavg-drop")
    cost, clock = training.clock.reference_cost, Ticking()
    slowed(training.network, clock, lambda number: 1.0)
    live = LiveBudget(cost, reference_seconds=1.0, slot_seconds=1.0, clock=clock)
    pacer = LivePacer(live, cost, STUDY.batch_size, within=4.5, clock=clock)
    update = train_locally(training, Device(0, "any", 1.0), SAMPLES, state, 1, pacer)
    assert update.mini_batches == 4
    assert not update.complete
    assert update.seconds == 4.0


def test_a_small_mini_batch_counts_in_proportion() -> None:
    training, state = begin("fedavg-drop")
    cost, clock = training.clock.reference_cost, Ticking()
    last = len(SAMPLES) // STUDY.batch_size
    slowed(training.network, clock, lambda number: 3 / 8 if number == last else 1.0)
    live = LiveBudget(cost, reference_seconds=1.0, slot_seconds=1.0, clock=clock)
    pacer = LivePacer(live, cost, STUDY.batch_size, clock=clock)
    update = train_locally(replace(training, epochs=1), Device(0, "any", 1.0), SAMPLES, state, 1,
                           pacer)  # fmt: skip
    assert update.mini_batches == last + 1
    assert math.isclose(live.slowdown, 1.0)

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch
from distreal_dse.dropout import ChannelMap, DropoutTrainer, DroppableNetwork, make_policy
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, LookupTable
from fl.client import VirtualTraining, train_virtually
from fl.masking import masked, output_tensors
from fl.results import State, Update
from fl.strategies import (
    Distreal,
    LocalPlan,
    PricedVector,
    Strategy,
    StrategyContext,
    Vector,
    make_strategy,
)
from fl.strategies.setting import CHOSEN
from fl.world.availability import (
    Availability,
    ConstantAvailability,
    MarkovAvailability,
    Timeline,
)
from fl.world.clock import make_clock
from fl.world.devices import Device
from fl.world.exact import Seconds, exact
from fl.world.splits import labels_of
from fl.world.transfer import state_sizes

SAMPLES = torch.arange(40)  # five mini-batches of eight


class Recorded(Strategy):
    """Passes everything on and remembers what was asked and answered."""

    name = "recorded"

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner
        self.picks: list[tuple[float, PricedVector]] = []

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        return RecordedPlan(self.inner.plan(device, round_number, budget, seed), self.picks)

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        return self.inner.aggregate(state, updates, channels)


class RecordedPlan(LocalPlan):
    def __init__(self, inner: LocalPlan, picks: list[tuple[float, PricedVector]]) -> None:
        super().__init__(inner.masks)
        self._inner, self._picks = inner, picks

    def pick(self, budget: float) -> PricedVector:
        self._picks.append((budget, self._inner.pick(budget)))
        return self._picks[-1][1]


@pytest.fixture
def training(study: Study, data: Data, network: DroppableNetwork, front: Front) -> VirtualTraining:
    macs = MacCost(network.channels)
    return VirtualTraining(
        study=study,
        dataset=data.train,
        network=network,
        macs=macs,
        size_of=state_sizes(network.module.state_dict(), network.channels),
        strategy=Recorded(Distreal(LookupTable(front))),
        availability=MarkovAvailability(stay=0.3),
        clock=make_clock(front, macs, study.batch_size),
        labels=labels_of(data.train),
        masked_loss=False,
        epochs=4,
        seed=0,
    )


def device(speed: float = 1.0, index: int = 0) -> Device:
    return Device(index, "any", speed)


def train(training: VirtualTraining, who: Device, samples: torch.Tensor = SAMPLES) -> Update:
    state = training.network.copy_state()
    update = train_virtually(training, who, samples, state, round_number=1, now=0.0)
    training.network.module.load_state_dict(state)
    return update


def figures_of(update: Update) -> dict[str, object]:
    return {
        field.name: getattr(update, field.name)
        for field in fields(update)
        if field.name not in ("state", "masks")
    }


def picks(training: VirtualTraining) -> list[tuple[float, PricedVector]]:
    assert isinstance(training.strategy, Recorded)
    return training.strategy.picks


def test_vectors_follow_the_budget_within_a_round(training: VirtualTraining, front: Front) -> None:
    update = train(training, device())
    assert update.mini_batches == 20
    seen = {vector.kept_counts for _, vector in picks(training)}
    assert seen == {point.kept_counts for point in front.points}
    for budget, vector in picks(training):
        best = max(point.cost for point in front.points if point.cost <= budget)
        assert vector.cost == best
    assert update.over_budget == 0


def test_a_vector_of_a_run_is_that_for_what_is_free_on_average(
    training: VirtualTraining, front: Front
) -> None:
    spent = {}
    for when in CHOSEN:
        strategy = Distreal(LookupTable(front))
        strategy.chosen = when
        own = replace(training, strategy=strategy, availability=MarkovAvailability((0.25, 1.0)))
        spent[when] = [
            set(
                train_virtually(
                    own, device(), SAMPLES, training.network.copy_state(), number, 0.0
                ).cost_shares
            )
            for number in range(1, 9)
        ]
    average = front.reference_cost * (0.25 + 1.0) / 2
    within = max(one.cost for one in front.points if one.cost <= average) / front.reference_cost
    assert spent["per run"] == [{within}] * 8
    assert all(len(shares) == 1 for shares in spent["per round"])
    assert len(set.union(*spent["per round"])) > 1
    assert any(len(shares) > 1 for shares in spent["per mini-batch"])


def test_a_budget_is_exceeded_only_below_the_cheapest_vector(
    training: VirtualTraining, front: Front
) -> None:
    cheapest = front.points[0].cost
    update = train(training, device(speed=0.3))
    below = [vector for budget, vector in picks(training) if budget < cheapest]
    assert 0 < len(below) < update.mini_batches
    assert all(vector.cost == cheapest for vector in below)
    assert all(vector.cost <= budget for budget, vector in picks(training) if budget >= cheapest)
    assert update.over_budget == len(below)


def test_time_and_macs_are_those_of_the_sub_networks(
    training: VirtualTraining, front: Front
) -> None:
    training = replace(training, availability=ConstantAvailability(0.5), epochs=1)
    update = train(training, device(speed=0.9), torch.arange(20))  # batches of 8, 8 and 4
    vector = front.points[1]  # the best below 45 % of the full cost
    share = vector.cost / front.reference_cost
    assert update.cost_shares == (share,) * 3
    assert update.training_macs == vector.cost * 20
    slot = front.reference_cost * 8 / 1e9
    assert update.seconds == pytest.approx(share * slot / 0.45 * 2.5)
    assert update.seconds < 3 * slot


def test_dropped_filters_of_the_only_mini_batch_stay_as_they_are(training: VirtualTraining) -> None:
    training = replace(training, availability=ConstantAvailability(0.2), epochs=1)
    before = training.network.copy_state()
    after = train(training, device(), torch.arange(8)).state
    changed = [
        sum(bool((a != b).any()) for a, b in zip(before[name], after[name], strict=True))
        for name in ("0.weight", "4.weight")
    ]
    assert changed == [3, 4]  # the kept counts of the cheapest vector


def test_a_single_left_over_sample_is_not_trained(training: VirtualTraining) -> None:
    training = replace(training, epochs=1)
    assert train(training, device(), torch.arange(17)).mini_batches == 2
    assert train(training, device(), torch.arange(18)).mini_batches == 3


def test_each_epoch_sees_every_sample_once_in_a_new_order(training: VirtualTraining) -> None:
    seen: list[int] = []

    class Noted(torch.utils.data.Dataset[tuple[torch.Tensor, ...]]):
        def __len__(self) -> int:
            return len(SAMPLES)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            seen.append(index)
            return training.dataset[index]  # type: ignore[no-any-return]

    train(replace(training, dataset=Noted(), epochs=2), device())
    first, second = seen[:40], seen[40:]
    assert sorted(first) == sorted(second) == SAMPLES.tolist()
    assert first != second


def test_an_update_does_not_depend_on_what_was_trained_before(training: VirtualTraining) -> None:
    alone = train(training, device(index=1))
    train(training, device(index=0))
    torch.manual_seed(99)
    after_another = train(training, device(index=1))
    assert all(torch.equal(alone.state[name], after_another.state[name]) for name in alone.state)
    assert torch.equal(alone.masks, after_another.masks)
    assert figures_of(alone) == figures_of(after_another)


def test_devices_and_rounds_draw_their_own_masks(training: VirtualTraining) -> None:
    training = replace(training, availability=ConstantAvailability(0.2), epochs=1)
    before = training.network.copy_state()

    def kept(index: int, round_number: int) -> tuple[bool, ...]:
        """Which filters of the last convolution changed in the only mini-batch."""
        state = train_virtually(
            training, device(index=index), torch.arange(8), before, round_number, 0.0
        ).state
        pairs = zip(before["4.weight"], state["4.weight"], strict=True)
        return tuple(bool((a != b).any()) for a, b in pairs)

    assert len({kept(index, 1) for index in range(4)}) > 1
    assert len({kept(0, round_number) for round_number in range(4)}) > 1


def test_the_number_of_the_round_moves_a_rolling_window(
    training: VirtualTraining, front: Front
) -> None:
    strategy = Distreal(LookupTable(front), make_policy("rolling"))
    training = replace(
        training, strategy=strategy, availability=ConstantAvailability(0.2), epochs=1
    )
    before = training.network.copy_state()

    def kept(index: int, round_number: int) -> set[int]:
        state = train_virtually(
            training, device(index=index), SAMPLES, before, round_number, 0.0
        ).state
        change = (before["0.weight"] - state["0.weight"]).flatten(1).any(1)
        return set(change.nonzero().flatten().tolist())

    # Three of eight filters, the same on all devices and in all mini-batches of the round.
    assert kept(0, 1) == kept(3, 1) == {1, 2, 3}
    assert kept(0, 2) == {2, 3, 4}
    assert kept(1, 7) == {7, 0, 1}


def test_an_order_drawn_per_round_is_a_devices_own(training: VirtualTraining, front: Front) -> None:
    strategy = Distreal(LookupTable(front), make_policy("random-round"))
    training = replace(
        training, strategy=strategy, availability=ConstantAvailability(0.2), epochs=1
    )
    before = training.network.copy_state()
    seen = set()
    for index, number in ((0, 1), (1, 1), (2, 1), (0, 2), (0, 1)):
        state = train_virtually(training, device(index=index), SAMPLES, before, number, 0.0).state
        change = (before["4.weight"] - state["4.weight"]).flatten(1).any(1)
        assert change.sum() == 4  # in all five mini-batches
        seen.add(tuple(change.tolist()))
    assert len(seen) == 4


def test_training_leaves_the_given_state_alone(training: VirtualTraining) -> None:
    given = training.network.copy_state()
    kept = {name: tensor.clone() for name, tensor in given.items()}
    train_virtually(training, device(), SAMPLES, given, 1, 0.0)
    assert all(torch.equal(given[name], kept[name]) for name in kept)


def test_divergence_ends_the_round_of_the_device(training: VirtualTraining) -> None:
    dataset = training.dataset
    assert isinstance(dataset, torch.utils.data.TensorDataset)
    inputs, targets = dataset.tensors
    poisoned = torch.utils.data.TensorDataset(torch.full_like(inputs, torch.nan), targets)
    update = train(replace(training, dataset=poisoned), device())
    assert update.mini_batches == 1 and update.seconds > 0
    assert update.loss != update.loss


@pytest.mark.parametrize("name", ["fedavg", "fjord", "fjord-kd", "fjord-kd:alpha=0.5"])
def test_a_masked_loss_teaches_nothing_of_classes_that_a_device_has_not(
    name: str, training: VirtualTraining
) -> None:
    dataset = training.dataset
    assert isinstance(dataset, torch.utils.data.TensorDataset)
    labels = dataset.tensors[1]
    own = (labels != 1).nonzero().flatten()[:24]
    context = StrategyContext(
        training.network, None, training.macs, training.macs.full, training.study
    )
    strategy = make_strategy(name, context)
    full = replace(training, strategy=strategy, availability=ConstantAvailability(), epochs=1)
    before = training.network.copy_state()
    rows = {}
    for name, one in (("masked", replace(full, masked_loss=True)), ("as it is", full)):
        after = train(one, device(), own).state
        rows[name] = (after["9.weight"] != before["9.weight"]).any(1).tolist()
    assert rows == {"masked": [True, False, True], "as it is": [True, True, True]}


def test_a_round_with_a_proximal_term_by_hand(training: VirtualTraining, study: Study) -> None:
    """Li et al. 2020, equation 2, in plain PyTorch: the pull is towards the round's beginning."""
    study = replace(study, batch_size=len(SAMPLES))  # whatever the order, it is one mini-batch
    macs = MacCost(training.network.channels)
    strategy = make_strategy(
        "fedavg:lr=0.2,prox=0.7",
        StrategyContext(training.network, None, macs, macs.full, study),
    )
    training = replace(
        training, study=study, strategy=strategy, clock=make_clock(None, macs, study.batch_size)
    )
    update = train(training, device())
    assert update.mini_batches == 4
    module = copy.deepcopy(training.network.module).train()
    inputs, targets = fetch(training.dataset, SAMPLES)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    for _ in range(4):
        away = sum(((p - s) ** 2).sum() for p, s in zip(module.parameters(), start, strict=True))
        optimizer.zero_grad()
        (nn.functional.cross_entropy(module(inputs), targets) + 0.7 / 2 * away).backward()
        optimizer.step()
    for name, expected in module.state_dict().items():
        torch.testing.assert_close(update.state[name], expected, rtol=1e-4, atol=1e-5)


def test_the_masked_loss_by_hand() -> None:
    outputs = torch.tensor([[2.0, 5.0, 1.0]], dtype=torch.float64)
    of_known = masked(torch.nn.functional.cross_entropy, torch.tensor([2, 0, 0]))
    expected = math.log(math.exp(2) + math.exp(0) + math.exp(1)) - 2
    assert of_known(outputs, torch.tensor([0])).item() == pytest.approx(expected)


class Renamed(torch.nn.Module):
    """The layer of the outputs is not the last one that is made, and a hidden one is as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.told = torch.nn.Conv2d(3, 3, 1)
        self.tail = torch.nn.Linear(3, 3)
        self.head = torch.nn.Conv2d(1, 3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.tail(self.head(images).mean((2, 3))).tanh()
        return self.told(hidden[:, :, None, None]).flatten(1)


def test_the_tensors_of_classes_are_found_whatever_they_are_called(
    network: DroppableNetwork,
) -> None:
    network.module.train()
    assert output_tensors(network.module, network.example) == ["9.weight", "9.bias"]
    assert all(part.training for part in network.module.modules())
    assert output_tensors(Renamed(), torch.randn(4, 1, 5, 5)) == ["told.weight", "told.bias"]
    mixed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Softmax(1))
    with pytest.raises(InputError, match="masked loss: expected a network that ends in"):
        output_tensors(mixed, torch.randn(4, 1, 2, 2))


# --- Deadlines ------------------------------------------------------------------------------------


class Untrained(Strategy):
    """Says what mini-batches cost and trains none of them, so that there is time for many cases."""

    name = "untrained"

    def __init__(self, vector: Vector) -> None:
        self.vector = vector

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        return UntrainedPlan(self.vector)

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        return state


class UntrainedPlan(LocalPlan):
    def __init__(self, vector: Vector) -> None:
        super().__init__(make_policy("ordered"))
        self._vector = vector

    def pick(self, budget: float) -> PricedVector:
        return self._vector

    def step(
        self,
        trainer: DropoutTrainer,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        vector: PricedVector,
    ) -> float:
        return 0.0


class InTurn(Availability):
    """Shares that follow each other, each for a slot; they begin anew each round."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.shares = shares

    def timeline(
        self, device: Device, round_number: int, start: Seconds, slot: Seconds, seed: int
    ) -> Timeline:
        return Turns(self.shares, start, slot)

    def mean_share(self) -> float:
        return sum(self.shares) / len(self.shares)


class Turns(Timeline):
    def __init__(self, shares: Sequence[float], start: Seconds, slot: Seconds) -> None:
        self._shares, self._start, self._slot = shares, start, slot

    def at(self, seconds: Seconds) -> tuple[float, Seconds]:
        number = int((seconds - self._start) / self._slot)
        return self._shares[number % len(self._shares)], self._start + (number + 1) * self._slot


# As people write them: tenths and thirds, which no float is, and the sizes of real costs.
SPEEDS = (1.0, 0.1, 0.7, 1 / 3, 2 / 7, 1.9)
SHARES = (1.0, 0.3, 1 / 3, 0.85)
MOMENTS = (0.0, 0.1, 1e6 / 3, 123456.789)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    speed=st.sampled_from(SPEEDS),
    shares=st.lists(st.sampled_from(SHARES), min_size=1, max_size=3),
    pace=st.sampled_from((1.0, 1.6, 0.1, 10 / 3)),
    # Multiply-accumulates, or a measured latency.
    full=st.integers(10, 10**9).map(float) | st.floats(1e-4, 10),
    part=st.sampled_from((1, 2, 3, 10)),
    sizes=st.tuples(st.integers(2, 20), st.integers(1, 2), st.sampled_from((1, 3, 8))),
    now=st.sampled_from(MOMENTS),
    seconds=st.sampled_from((1.0, 0.1, 41472 * 8 / 1e9)),
)
def test_a_device_that_just_makes_the_deadline_is_done_and_one_a_mini_batch_over_is_not(
    training: VirtualTraining,
    speed: float,
    shares: list[float],
    pace: float,
    full: float,
    part: int,
    sizes: tuple[int, int, int],
    now: float,
    seconds: float,
) -> None:
    (held, epochs, batch_size), cost = sizes, full / part
    clock = replace(
        training.clock, reference_cost=full, full_seconds=seconds, batch_size=batch_size, pace=pace
    )
    one = replace(
        training,
        study=replace(training.study, batch_size=batch_size),
        strategy=Untrained(Vector(training.network.full_counts, cost)),
        availability=InTurn(shares),
        clock=clock,
        epochs=epochs,
    )
    # By hand, in one piece: all samples' work in slots, divided by what the shares do of it.
    per_epoch = held - (held % batch_size == 1 and batch_size > 1)
    work = exact(cost) / exact(full) * Fraction(per_epoch * epochs, batch_size) / exact(pace)
    turns = [exact(speed) * exact(share) for share in shares]
    repetitions, work = divmod(work, sum(turns))
    slots = repetitions * len(turns)
    for done in turns:
        slots += min(work, done) / done
        work -= min(work, done)
    state = training.network.copy_state()

    def trained(deadline: Fraction) -> Update:
        samples, start = torch.arange(held), exact(now)
        return train_virtually(one, device(speed), samples, state, 1, start, start + deadline)

    in_time = trained(slots * clock.slots(1))
    assert in_time.complete
    batches = -(-per_epoch // batch_size) * epochs
    assert in_time.mini_batches == batches
    too_late = trained(slots * clock.slots(1) * (1 - Fraction(1, 10**20)))
    assert not too_late.complete and too_late.mini_batches == batches - 1

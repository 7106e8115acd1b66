"""Rounds of a run with deadlines, links, late and hostile devices."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, LookupTable
from distreal_dse.study.preparation import prepare
from fl.clients import Clients, InProcess, Task
from fl.engine import FederatedRun
from fl.results import DeviceRound, RoundResult, State, Update
from fl.settings import RunSettings
from fl.strategies import Distreal, StrategyContext, make_strategy
from fl.world.availability import Availability, ConstantAvailability, Timeline
from fl.world.deadlines import LatePolicy, RoundRules
from fl.world.devices import Device, DeviceClass
from fl.world.exact import Seconds
from fl.world.splits import ByClassSplit, split_dataset
from fl.world.transfer import state_sizes

MakeFront = Callable[..., Front]

CLASSES = (DeviceClass("fast", 0.5, 1.0), DeviceClass("slow", 0.5, 0.25))
# Every device trains four mini-batches of the 30 samples that it has: 3.75 slots at full speed.
SETTINGS = RunSettings(
    rounds=1, devices=4, cohort=4, classes=CLASSES, availability=ConstantAvailability()
)


@pytest.fixture
def federated(
    study: Study, data: Data, network: DroppableNetwork, make_front: MakeFront
) -> Callable[[RunSettings], FederatedRun]:
    """A run in which every device trains the full network."""
    only_full = make_front(network, network.full_counts)

    def make(settings: RunSettings) -> FederatedRun:
        fresh = prepare(study, 0)[0]
        strategy = Distreal(LookupTable(only_full))
        return FederatedRun(study, data, fresh, strategy, only_full, settings)

    return make


Make = Callable[[RunSettings], FederatedRun]


def last_round(run: FederatedRun, clients: Clients | None = None) -> RoundResult:
    return list(run.rounds(clients))[-1]


def outcomes(result: RoundResult) -> list[str]:
    return [one.outcome for one in result.devices]


def with_rules(deadline: float | None, late: LatePolicy = "drop", over: float = 0.0) -> RunSettings:
    return replace(SETTINGS, rules=RoundRules(deadline, late, over))


def slot_of(run: FederatedRun) -> float:
    return run.training.clock.slot


def test_slow_devices_miss_the_deadline_and_what_they_did_is_wasted(federated: Make) -> None:
    run = federated(with_rules(1.0))
    result = last_round(run)
    assert outcomes(result) == ["accepted", "missed", "accepted", "missed"]
    assert result.virtual_seconds == pytest.approx(4 * slot_of(run))
    assert result.missed == 2
    # A slow device has time for one of its mini-batches of eight samples, and begins no other.
    slow = result.devices[1]
    assert slow.mini_batches == 1 and slow.seconds == pytest.approx(4 * slot_of(run))
    assert result.wasted_macs == 2 * 8 * run.training.macs.full
    assert slow.bytes_up == 0 and slow.bytes_down == result.devices[0].bytes_up  # it sent nothing
    assert result.training_macs == (2 * 30 + 2 * 8) * run.training.macs.full


@pytest.mark.parametrize(("speed", "pace"), [(1.0, 1.0), (0.7, 1.0), (1 / 3, 1.1)])
def test_whoever_just_makes_the_deadline_is_never_left_out(
    federated: Make, speed: float, pace: float
) -> None:
    # Four mini-batches per epoch and device, the last of six samples, or 30 / 8 slots per epoch.
    just = replace(
        SETTINGS,
        rounds=3,
        local_epochs=2,
        classes=(DeviceClass("any", 1.0, speed),),
        pace=pace,
        rules=RoundRules(30 / 32 / speed / pace),
    )
    results = list(federated(just).rounds())[1:]
    assert [outcomes(one) for one in results] == [["accepted"] * 4] * 3
    too_short = replace(just, rules=RoundRules(30 / 32 / speed / pace * (1 - 1e-9)))
    assert outcomes(last_round(federated(replace(too_short, rounds=1)))) == ["missed"] * 4


def test_a_longer_pace_lets_them_all_come(federated: Make) -> None:
    run = federated(replace(with_rules(1.0), pace=4.0))
    result = last_round(run)
    assert outcomes(result) == ["accepted"] * 4
    assert result.over_budget == 0
    assert result.virtual_seconds == pytest.approx(3.75 * slot_of(run))


def test_what_was_trained_until_the_deadline_changes_the_network_if_it_counts(
    federated: Make,
) -> None:
    runs = [federated(with_rules(1.0, late)) for late in ("drop", "partial")]
    dropped, partial = (last_round(run) for run in runs)
    assert outcomes(partial) == ["accepted", "partial", "accepted", "partial"]
    assert partial.wasted_macs == 0 and dropped.wasted_macs > 0
    one, other = (run.network.module.state_dict()["0.weight"] for run in runs)
    assert not torch.equal(one, other)


def test_late_devices_are_waited_for_if_asked_for(federated: Make) -> None:
    run = federated(with_rules(1.0, "wait"))
    result = last_round(run)
    assert outcomes(result) == ["accepted", "late", "accepted", "late"]
    assert result.virtual_seconds == pytest.approx(15 * slot_of(run))


def test_of_more_devices_than_needed_the_fastest_count(federated: Make) -> None:
    run = federated(replace(with_rules(None, over=1.0), cohort=2))
    result = last_round(run)
    assert outcomes(result) == ["accepted", "surplus", "accepted", "surplus"]
    assert result.virtual_seconds == pytest.approx(3.75 * slot_of(run))
    assert result.cohort == (0, 1, 2, 3)
    assert result.wasted_macs == 60 * run.training.macs.full


def test_without_deadlines_the_fastest_of_more_devices_count_too(
    study: Study, data: Data, network: DroppableNetwork
) -> None:
    macs = MacCost(network.channels)
    strategy = make_strategy("fedavg", StrategyContext(network, None, macs, macs.full, study))
    settings = replace(with_rules(0.5, over=1.0), cohort=2)
    result = last_round(FederatedRun(study, data, network, strategy, None, settings))
    assert outcomes(result) == ["accepted", "surplus", "accepted", "surplus"]


class Tampering(Clients):
    """Device 1 sends what it likes."""

    def __init__(self, inner: Clients, tamper: Callable[[Update], Update]) -> None:
        self._inner, self._tamper = inner, tamper

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: Seconds,
        deadline: Seconds,
    ) -> list[Update]:
        updates = self._inner.train(tasks, state, round_number, now, deadline)
        return [self._tamper(one) if one.device == 1 else one for one in updates]


def with_tensor(update: Update, change: Callable[[torch.Tensor], torch.Tensor]) -> Update:
    return replace(update, state={**update.state, "0.weight": change(update.state["0.weight"])})


@pytest.mark.parametrize(
    "tamper",
    [
        lambda u: with_tensor(u, lambda t: t * math.nan),
        lambda u: with_tensor(u, lambda t: t + math.inf),
        lambda u: with_tensor(u, lambda t: t[:-1]),
        lambda u: with_tensor(u, lambda t: t * 1e6),
        lambda u: with_tensor(u, lambda t: t.double()),
        lambda u: replace(u, state={}),
        lambda u: replace(u, state={**u.state, "extra": torch.ones(1)}),
        lambda u: replace(u, samples=-5),
        lambda u: replace(u, samples=10**12),
        lambda u: replace(u, loss=math.nan),
        lambda u: replace(u, masks=u.masks[:, :-1]),
        lambda u: replace(u, masks=u.masks.repeat(9, 1), cost_shares=u.cost_shares * 9),
    ],
    ids=[
        "nan", "infinite", "shape", "norm", "type", "empty", "keys", "samples", "weight", "loss",
        "masks", "mini-batches",
    ],
)  # fmt: skip
def test_a_hostile_update_is_rejected_and_counted_and_the_round_goes_on(
    federated: Make, tamper: Callable[[Update], Update]
) -> None:
    run, honest = federated(SETTINGS), federated(SETTINGS)
    result = last_round(run, Tampering(InProcess(run.training), tamper))
    assert outcomes(result) == ["accepted", "rejected", "accepted", "accepted"]
    assert result.rejected == 1 and result.wasted_macs > 0
    last_round(honest)
    found, without = run.network.module.state_dict(), honest.network.module.state_dict()
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
    assert not torch.equal(found["0.weight"], without["0.weight"])
    assert result.accuracy is not None


def test_devices_that_never_arrived_do_not_have_those_that_did_refused(federated: Make) -> None:
    # Those that miss the deadline come to one mini-batch of the 40 that the fast one trains.
    crowd = (DeviceClass("fast", 0.25, 1.0), DeviceClass("slow", 0.75, 0.034))
    run = federated(replace(with_rules(1.0), classes=crowd, local_epochs=10))
    result = last_round(run)
    assert sorted(outcomes(result)) == ["accepted", "missed", "missed", "missed"]
    assert {one.mini_batches for one in result.devices} == {1, 40}


class FromThenOn(Availability):
    """Nothing is free before a moment, everything from then on; or nothing ever behind another."""

    def __init__(self, opens: float, closes: float = math.inf) -> None:
        self.opens, self.closes = opens, closes

    def timeline(
        self, device: Device, round_number: int, start: Seconds, slot: Seconds, seed: int
    ) -> Timeline:
        return Opening(self.opens + device.index, self.closes)

    def mean_share(self) -> float:
        return 1.0


class Opening(Timeline):
    def __init__(self, opens: float, closes: float) -> None:
        self._opens, self._closes = opens, closes

    def at(self, seconds: Seconds) -> tuple[float, Seconds]:
        if seconds < self._opens:
            return 0.0, self._opens
        return (1.0, self._closes) if seconds < self._closes else (0.0, math.inf)


@pytest.mark.parametrize("opens", [50.0, 50.1, 1e6 / 7])
def test_a_round_begins_when_a_device_is_available(federated: Make, opens: float) -> None:
    later = replace(SETTINGS, rounds=2, availability=FromThenOn(opens), evaluate_every=9)
    run = federated(later)
    results = list(run.rounds())
    slot = slot_of(run)
    assert [one.cohort for one in results] == [(), (0,), (0,)]  # the others are free a second later
    seconds = [one.virtual_seconds for one in results]
    assert seconds == pytest.approx([0, opens + 3.75 * slot, opens + 7.5 * slot], rel=1e-12)
    assert [one.mini_batches for one in results] == [0, 4, 4]
    assert results[-1].accuracy is not None


def test_a_run_that_would_wait_beyond_its_virtual_time_ends(federated: Make) -> None:
    settings = replace(
        SETTINGS, rounds=9, evaluate_every=9, until=50.0, availability=FromThenOn(50)
    )
    run = federated(settings)
    assert [one.round for one in run.rounds()] == [0] and run.finished
    # The round behind which nobody comes back is the last one, and so it is evaluated.
    short = FromThenOn(0.0, closes=4 * slot_of(run))
    run = federated(replace(settings, availability=short, rules=RoundRules(1.0)))
    results = list(run.rounds())
    assert [one.round for one in results] == [0, 1, 2] and run.finished
    assert results[-1].accuracy is not None


def test_a_run_whose_devices_never_come_back_says_so(federated: Make) -> None:
    run = federated(replace(SETTINGS, rounds=3, availability=FromThenOn(5.0, closes=4.0)))
    with pytest.raises(InputError, match=r"round 1 of 3 can't begin: expected a device .* --until"):
        list(run.rounds())
    assert run.finished_round == 0


@pytest.mark.parametrize("masked_loss", [False, True])
def test_with_a_masked_loss_outputs_learn_from_those_alone_that_hold_their_class(
    study: Study, data: Data, masked_loss: bool
) -> None:
    inputs, _ = data.train[:]
    labels = torch.zeros(120, dtype=torch.int64)
    settings = replace(SETTINGS, devices=2, cohort=2, masked_loss=masked_loss)
    classes = [device.device_class for device in settings.population()]
    shards = split_dataset(settings.split, data.train, classes, settings.seed)
    labels[shards[1]] = 2
    data = replace(data, train=TensorDataset(inputs, labels))
    network = prepare(study, 0)[0]
    macs = MacCost(network.channels)
    strategy = make_strategy("fedavg", StrategyContext(network, None, macs, macs.full, study))
    run = FederatedRun(study, data, network, strategy, None, settings)
    start, seen = run.checkpoint().state, {}

    def note(update: Update) -> Update:
        seen[update.device] = update.state
        return update

    last_round(run, Tampering(InProcess(run.training), note))
    only = InProcess(run.training).train(
        [Task(run.settings.population()[0], shards[0])], start, 1, 0.0, math.inf
    )[0]
    seen[0] = only.state
    found = run.checkpoint().state
    for name in ("9.weight", "9.bias"):
        mean = (seen[0][name].double() + seen[1][name].double()).div(2).float()
        if masked_loss:
            expected = torch.stack([seen[0][name][0], start[name][1], seen[1][name][2]])
            assert not torch.equal(expected[0], mean[0])
        else:
            expected = mean
        torch.testing.assert_close(found[name], expected)
    hidden = (seen[0]["4.weight"].double() + seen[1]["4.weight"].double()).div(2).float()
    torch.testing.assert_close(found["4.weight"], hidden)


def test_accuracy_by_class_of_device_follows_its_labels(
    study: Study, network: DroppableNetwork, make_front: MakeFront
) -> None:
    """A network that always says 2 is right for those devices alone that hold class 2."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    part = TensorDataset(torch.randn(120, 1, 4, 4, generator=draws), labels)
    front = make_front(network, network.full_counts)
    split = ByClassSplit()
    settings = replace(SETTINGS, split=split)
    strategy = Distreal(LookupTable(front))
    run = FederatedRun(study, Data(part, part, part), network, strategy, front, settings)
    with torch.no_grad():
        network.module.get_parameter("9.weight").zero_()
        network.module.get_parameter("9.bias").copy_(torch.tensor([0.0, 0.0, 1.0]))
    first = next(run.rounds())
    owned = split.label_classes(labels, ["fast", "slow", "fast", "slow"], 0)
    for name, labels_of_class in owned.items():
        expected = 1 / len(labels_of_class) if 2 in labels_of_class else 0.0
        assert first.accuracy_by_class[name] == pytest.approx(expected)


def test_bytes_of_a_sub_network_are_those_of_its_tensors(network: DroppableNetwork) -> None:
    size_of = state_sizes(network.module.state_dict(), network.channels)
    for counts in ((8, 16), (3, 4), (1, 1), (5, 10)):
        small = network.subnetwork(counts).module if counts != (8, 16) else network.module
        expected = sum(t.numel() * t.element_size() for t in small.state_dict().values())
        assert size_of(counts) == expected


def test_a_link_takes_time_and_the_deadline_holds_for_the_upload(
    federated: Make, data: Data
) -> None:
    run = federated(with_rules(1.0))
    size = run.training.size_of(run.network.full_counts)
    slot = slot_of(run)
    state, samples = run.checkpoint().state, torch.arange(30)

    def trained(download: float, upload: float) -> Update:
        device = Device(0, "fast", 1.0, size / download, size / upload)
        clients = InProcess(run.training)
        return clients.train([Task(device, samples)], state, 1, 10.0, 10.0 + 4 * slot)[0]

    quick = trained(0.1 * slot, 0.1 * slot)
    assert quick.complete and quick.seconds == pytest.approx(3.95 * slot)
    assert quick.bytes_down == quick.bytes_up == size
    slow = trained(0.1 * slot, 0.2 * slot)  # the last mini-batch would end too late to be sent
    assert not slow.complete and slow.mini_batches == 3
    assert slow.seconds == pytest.approx(3.3 * slot)


def test_figures_of_devices_add_up(federated: Make) -> None:
    result = last_round(federated(with_rules(1.0)))
    devices: tuple[DeviceRound, ...] = result.devices
    assert [one.device_class for one in devices] == ["fast", "slow", "fast", "slow"]
    assert result.mini_batches == sum(one.mini_batches for one in devices) == 10
    assert result.bytes_up == sum(one.bytes_up for one in devices)
    assert result.mean_cost_share == 1.0


def test_a_run_ends_with_its_virtual_time(federated: Make) -> None:
    long = replace(SETTINGS, rounds=20, evaluate_every=7)
    through = list(federated(long).rounds())
    until = through[3].virtual_seconds * 1.001  # a moment into the fourth round
    run = federated(replace(long, until=until))
    results = list(run.rounds())
    assert [one.round for one in results] == [0, 1, 2, 3, 4]
    assert results[-1].virtual_seconds >= until > results[-2].virtual_seconds
    assert results[-1].accuracy is not None and run.finished  # the last round is evaluated
    assert [one.training_macs for one in results] == [one.training_macs for one in through[:5]]


def loss_with(module: nn.Module, data: Data, measured_on: Tensor | None) -> float:
    """Test loss, normalised by the statistics of one batch or by those of the module."""
    module = copy.deepcopy(module)
    if measured_on is not None:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        with torch.no_grad():
            module.train()(data.train[measured_on][0])
    inputs, targets = data.test[:]
    with torch.no_grad():
        return float(nn.functional.cross_entropy(module.eval()(inputs), targets))


def test_statistics_are_those_of_all_or_of_the_cohort_or_averaged(
    federated: Make, data: Data
) -> None:
    # Slow devices miss the deadline, and so nobody asks them for statistics either.
    settings = replace(SETTINGS, rules=RoundRules(deadline=1.5))
    classes = [device.device_class for device in settings.population()]
    shards = split_dataset(settings.split, data.train, classes, settings.seed)
    fast = [shard for shard, kind in zip(shards, classes, strict=True) if kind == "fast"]
    found = {}
    for source, samples in (
        ("all", torch.arange(120)),
        ("cohort", torch.cat(fast)),
        ("averaged", None),
    ):
        run = federated(replace(settings, statistics=source))
        result = last_round(run)
        assert sorted(outcomes(result)) == ["accepted"] * 2 + ["missed"] * 2
        found[source] = result.loss
        assert result.loss == pytest.approx(loss_with(run.network.module, data, samples), rel=1e-5)
    assert len({round(loss or 0.0, 4) for loss in found.values()}) == 3
    # Where no update was merged, the whole cohort is asked: another source would look like harm.
    nobody = replace(settings, statistics="cohort", rules=RoundRules(deadline=0.1))
    run = federated(nobody)
    result = last_round(run)
    assert outcomes(result) == ["missed"] * 4
    everybody = loss_with(run.network.module, data, torch.cat(shards))
    assert result.loss == pytest.approx(everybody, rel=1e-5)
    with pytest.raises(InputError, match="expected one of all, cohort, averaged, found 'some'"):
        replace(settings, statistics="some")

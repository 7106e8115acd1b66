"""What a strategy has to keep to, as tests that its own inherit.

In a test file that pytest collects, for a strategy of your own, installed with its entry point:

    from fl.testing import StrategyContract

    class TestMine(StrategyContract):
        strategy = "mine"

Or without one:

    class TestMine(StrategyContract):
        def make(self, context):
            return Mine(context)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from distreal_dse.cost import Latencies, MacCost, Quartiles, VectorLatency
from distreal_dse.dropout import DroppableNetwork, KeptCounts, check_counts
from distreal_dse.fronts import Front, FrontGroup, FrontPoint
from distreal_dse.pricing import ONE_RATE, one_rate_knots
from distreal_dse.study import Data, Study
from distreal_dse.study.preparation import prepare
from fl.client import train_virtually
from fl.clients import InProcess, Task
from fl.cohort import Batched, BatchingWarning
from fl.engine import FederatedRun
from fl.masking import output_tensors
from fl.results import RoundResult, State, Update
from fl.settings import RunSettings
from fl.strategies import LocalPlan, Strategy, StrategyContext, make_strategy
from fl.strategies.contract import fault_of_state
from fl.world.deadlines import RoundRules
from fl.world.devices import Device, DeviceClass

# On the device of `_timed_front`, all take in proportion to their MACs.
SECONDS_PER_MAC = 1e-9
# Shares of the full cost that devices can spend.
BUDGETS = (0.001, 0.1, 0.3, 0.6, 1.0)
SETTINGS = RunSettings(
    rounds=3,
    devices=6,
    cohort=4,
    classes=(DeviceClass("strong", 0.5, 1.0), DeviceClass("weak", 0.5, 0.2)),
    rules=RoundRules(deadline=2.5, late="partial"),
    seed=3,
)


def _model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def _data() -> Data:
    random = torch.Generator().manual_seed(7)

    def part(size: int) -> TensorDataset:
        images = torch.randn(size, 1, 4, 4, generator=random)
        return TensorDataset(images, torch.randint(3, (size,), generator=random))

    return Data(part(120), part(30), part(30))


STUDY = Study(model=_model, data=_data, batch_size=8, name="noise")


@dataclass(frozen=True)
class Subject:
    """A strategy that was made, a run of it that has not begun, and the state it begins with."""

    strategy: Strategy
    context: StrategyContext
    run: FederatedRun
    start: State

    @property
    def network(self) -> DroppableNetwork:
        """The network that the run trains."""
        return self.run.network

    def plan(self, share: float, device: int = 0, round_number: int = 1) -> LocalPlan:
        """Return the plan of a device that can spend a share of the full cost."""
        budget = share * self.context.full.cost
        plan = self.strategy.plan(Device(device, "any", 1.0), round_number, budget, seed=5)
        plan.masks.start_round(round_number)
        return plan

    def train(self, device: int = 0, speed: float = 0.7, epochs: int = 2) -> Update:
        """Train one round of a device from ``start``."""
        samples = torch.arange(device * 20, device * 20 + 20)
        training = replace(self.run.training, epochs=epochs)
        update = train_virtually(
            training, Device(device, "any", speed), samples, self.start, 1, 0.0
        )
        self.network.load_state(self.start)
        return update


class StrategyContract:
    """Tests that each strategy has to pass, on a small network and noise; inherit from it.

    They show what a run would only stumble over: plans that depend on who trained before, more
    trained than was sent, averages that change their arguments, runs that can't be resumed. What a
    strategy is good for is left to others.
    """

    strategy: str
    """Text that makes it, as for ``--strategies``; or else override `make`."""

    def make(self, context: StrategyContext) -> Strategy:
        """Return the strategy, always the same."""
        return make_strategy(self.strategy, context)

    def begin(
        self,
        study: Study = STUDY,
        settings: RunSettings = SETTINGS,
        timed: bool = False,
    ) -> Subject:
        """Return the strategy, and a run of it that has not begun; ``timed`` counts seconds."""
        network, data = prepare(study, seed=0)
        macs, front = MacCost(network.channels), _example_front(network)
        if timed:
            front = _timed_front(front, network)
        context = StrategyContext(network, front, macs, 0.2 * front.reference_cost, study)
        strategy = self.make(context)
        run = FederatedRun(study, data, network, strategy, front, settings)
        return Subject(strategy, context, run, _copy(run.network.copy_state()))

    def test_it_says_what_it_is(self) -> None:
        """Its name, and a line for `distreal-dse fl strategies`."""
        strategy = self.begin().strategy
        assert strategy.name and strategy.name == strategy.name.strip(), "expected a name"
        assert (type(strategy).__doc__ or "").strip(), "expected a docstring: it is shown"

    def test_what_is_picked_can_be_trained_and_costs_what_it_says(self) -> None:
        """Kept counts of the network; the cost that the clock charges is that of the work."""
        subject = self.begin()
        macs = MacCost(subject.network.channels)
        for share in BUDGETS:
            plan = subject.plan(share)
            for _ in range(8):
                vector = plan.pick(share * subject.context.macs.full)
                counts = check_counts(vector.kept_counts, subject.network.groups)
                assert counts == vector.kept_counts, "expected a tuple of whole kept counts"
                spent = plan.training_macs(macs, vector)
                assert math.isclose(vector.cost, spent, rel_tol=1e-9), (
                    f"expected vectors to cost their MACs, {spent:g}, found {vector.cost:g}"
                )

    def test_costs_are_seconds_where_those_of_the_run_are(self) -> None:
        """Vectors are priced by `StrategyContext.price`; the MACs of the work stay MACs."""
        subject = self.begin(timed=True)
        macs = MacCost(subject.network.channels)
        for share in BUDGETS:
            plan = subject.plan(share)
            for _ in range(8):
                vector = plan.pick(share * subject.context.full.cost)
                spent = plan.training_macs(macs, vector)
                assert math.isclose(vector.cost, spent * SECONDS_PER_MAC, rel_tol=1e-9), (
                    "expected vectors to cost what StrategyContext.price() says, here "
                    f"{spent * SECONDS_PER_MAC:g} s for {spent:g} MACs, found {vector.cost:g}"
                )
        results = list(subject.run.rounds())
        assert results[1].mini_batches > 0, "expected the first round to train something"
        of_full = results[-1].virtual_seconds / subject.run.training.clock.full_seconds
        plain = self.begin()
        expected = list(plain.run.rounds())[-1].virtual_seconds
        expected /= plain.run.training.clock.full_seconds
        assert 0.5 * expected < of_full < 2 * expected, (
            f"expected about as long a run as with costs in MACs, {expected:g} mini-batches of the "
            f"full network, found {of_full:g}"
        )

    def test_plans_follow_from_their_arguments_alone(self) -> None:
        """The same from a strategy made anew, and whoever else had a plan before."""
        one, other = self.begin(), self.begin()
        for share in BUDGETS:
            drawn = _picks(one, share)
            other.plan(1.0, device=1, round_number=2).pick(one.context.macs.full)
            assert drawn == _picks(other, share), "expected plans to follow from arguments alone"
            assert drawn == _picks(one, share), "expected a plan to be the same when made again"

    def test_devices_trained_at_once_come_to_what_each_comes_to(self) -> None:
        """What ``work`` of a plan says is what its ``step`` does, where it says so."""
        run = self.begin().run
        samples = [torch.arange(device * 20, device * 20 + 20) for device in range(3)]
        tasks = [Task(Device(n, "any", (0.3, 1.0, 1.0)[n]), own) for n, own in enumerate(samples)]
        state = _copy(run.checkpoint().state)
        expected = InProcess(run.training).train(tasks, state, 1, 0.0, math.inf)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BatchingWarning)
            found = Batched(run.training).train(tasks, state, 1, 0.0, math.inf)
        if caught:
            return  # it says so: they are trained one by one
        for one, other in zip(found, expected, strict=True):
            for name, value in other.state.items():
                assert torch.allclose(one.state[name], value, rtol=1e-3, atol=1e-5), (
                    f"expected LocalPlan.work to say what step does, found other values of {name} "
                    "where devices are trained at once"
                )

    def test_no_plan_shares_its_masks_with_another(self) -> None:
        """Each device draws its masks for itself."""
        subject = self.begin()
        plans = [subject.plan(1.0, device) for device in range(2)]
        assert plans[0].masks is not plans[1].masks, "expected masks of its own for each plan"

    def test_what_is_sent_holds_all_that_is_trained(self) -> None:
        """What travels to a device and back, whatever happens to its budget in the round."""
        subject = self.begin()
        groups = subject.network.full_counts
        for share in BUDGETS:
            plan = subject.plan(share)
            sent = plan.sent() or groups
            for other in (*BUDGETS, share):
                counts = plan.pick(other * subject.context.macs.full).kept_counts
                assert all(kept <= held for kept, held in zip(counts, sent, strict=True)), (
                    f"expected vectors within what is sent, {sent}, found {counts}"
                )
        for device, speed in enumerate((0.2, 0.5, 1.0)):
            update = subject.train(device, speed)
            trained = update.masks.any(0).split(list(groups))
            size = subject.run.training.size_of(tuple(int(units.sum()) for units in trained))
            assert size <= update.bytes_down, (
                "expected the filters that a round trains to be sent: masks that stay the same, or "
                f"nested ones, found {size} bytes of them, and {update.bytes_down} sent"
            )

    def test_updates_are_averaged_without_changing_them(self) -> None:
        """Names, shapes and types stay; the same from the same; nothing of the arguments moves."""
        subject = self.begin()
        channels, state = subject.network.channels, _copy(subject.start)
        updates = [subject.train(device) for device in range(3)]
        before = [_copy(update.state) for update in updates]
        merged = subject.strategy.aggregate(state, updates, channels)
        assert (fault := fault_of_state(merged, subject.start)) is None, fault
        assert all(bool(one.isfinite().all()) for one in merged.values()), "expected finite values"
        changed = any(not torch.equal(merged[name], state[name]) for name in state)
        assert changed, "expected three devices that trained to change something"
        given = [state, *(update.state for update in updates)]
        for now, then in zip(given, [subject.start, *before], strict=True):
            assert _same(now, then), "expected aggregate() to leave its arguments alone"
        again = subject.strategy.aggregate(state, updates, channels)
        assert _same(merged, again), "expected the same average of the same updates"

    def test_the_output_layer_can_be_averaged_by_itself(self) -> None:
        """With a masked loss, it is asked for those tensors and devices alone."""
        subject = self.begin()
        rows = output_tensors(subject.network.module, subject.network.example)
        state = {name: subject.start[name] for name in rows}
        updates = []
        for update in (subject.train(device) for device in range(2)):
            updates.append(replace(update, state={name: update.state[name] for name in rows}))
        merged = subject.strategy.aggregate(state, updates, subject.network.channels)
        assert (fault := fault_of_state(merged, state)) is None, fault

    def test_devices_train_by_the_optimiser_of_the_run(self) -> None:
        """A proximal term acts on each step but the first, which starts where it pulls to."""

        def moved(weight: float, epochs: int) -> tuple[State, float]:
            subject = self.begin(replace(STUDY, batch_size=20))  # one mini-batch per epoch
            subject.strategy.learning_rate, subject.strategy.proximal = 0.1, weight
            found, names = subject.train(epochs=epochs).state, _parameters(subject)
            ways = [(found[name] - subject.start[name]).flatten() for name in names]
            return found, float(torch.cat(ways).norm())

        assert _same(moved(5, 1)[0], moved(0, 1)[0]), "expected the first step without a pull"
        assert 0 < moved(5, 4)[1] < 0.9 * moved(0, 4)[1], "expected a pull to the global state"

    def test_pytorchs_global_generator_is_left_alone(self) -> None:
        """Randomness comes from the seed, the device and the round."""
        subject = self.begin()
        updates = [subject.train()]
        before = torch.get_rng_state()
        _picks(subject, 0.5)
        subject.strategy.aggregate(subject.start, updates, subject.network.channels)
        assert torch.equal(torch.get_rng_state(), before), "expected no use of the global generator"

    def test_a_run_repeats_itself(self) -> None:
        """Rounds on devices whose budgets change, and updates that the server believes."""
        subject, again = self.begin(), self.begin()
        results = list(subject.run.rounds())
        assert results[1].mini_batches > 0, "expected the first round to train something"
        assert not any(one.rejected for one in results), "expected updates that can be believed"
        assert all(one.accuracy is not None for one in results)
        assert results == list(again.run.rounds()), "expected the same figures again"
        assert _same(_state(subject), _state(again)), "expected the same bits again"

    def test_a_run_goes_on_from_a_checkpoint(self) -> None:
        """Nothing that decides the next round may live in the strategy."""
        through, stopped, resumed = self.begin(), self.begin(), self.begin()
        results = list(through.run.rounds())
        rounds: Iterator[RoundResult] = stopped.run.rounds()
        begun = [next(rounds) for _ in range(3)]
        resumed.run.resume(stopped.run.checkpoint())
        rest = list(resumed.run.rounds())
        assert [*begun, *rest] == results, "expected a resumed run to have the same figures"
        assert _same(_state(through), _state(resumed)), "expected the same bits when resumed"


def _picks(subject: Subject, share: float) -> list[tuple[tuple[int, ...], float]]:
    plan = subject.plan(share, device=0, round_number=1)
    budgets = [one * subject.context.macs.full for one in (share, 1.0, 0.2, 0.7, share, share)]
    return [(vector.kept_counts, vector.cost) for vector in map(plan.pick, budgets)]


def hand_made_front(
    network: DroppableNetwork, *vectors: KeptCounts, name: str = "hand-made", study: str = "noise"
) -> Front:
    """Make a front of given kept counts, by rising cost, priced in MACs; each gains more."""
    macs, widths = MacCost(network.channels), network.full_counts
    points = tuple(
        FrontPoint(
            rates=tuple(1 - kept / width for kept, width in zip(counts, widths, strict=True)),
            kept_counts=counts,
            cost=macs.training(counts),
            convergence=float(gain),
            standard_error=0.0,
            replicates=1,
            accuracy=0.5,
            uniform=False,
        )
        for gain, counts in enumerate(vectors)
    )
    return Front(
        name=name,
        study=study,
        model_fingerprint=network.channels.fingerprint,
        groups=tuple(FrontGroup(group.name, group.channels) for group in network.groups),
        cost_metric="macs",
        device={},
        reference_cost=macs.full,
        settings={},
        points=points,
    )


def _example_front(network: DroppableNetwork) -> Front:
    """Three vectors of about 15 %, 40 % and all of the MACs."""
    return hand_made_front(network, (3, 4), (5, 10), network.full_counts)


def _timed_front(front: Front, network: DroppableNetwork) -> Front:
    """The front in seconds of a device on which all that may be cut out was timed."""
    macs = MacCost(network.channels)

    def timed(counts: KeptCounts) -> VectorLatency:
        ratio = macs.training(counts) / macs.full
        return VectorLatency(counts, same(ratio * reference), same(ratio), 1)

    def same(number: float) -> Quartiles:
        return Quartiles(number, number, number)

    reference = macs.full * SECONDS_PER_MAC
    everything = [*product(*(range(1, width + 1) for width in network.full_counts))]
    latencies = Latencies(same(reference), tuple(map(timed, everything)))
    knots = one_rate_knots(network.groups, granularity=1)
    one_rate = {
        "cut": [[*counts] for counts in knots],
        "alone": [timed(counts).as_json() for counts in knots],
    }
    return replace(
        front,
        cost_metric="latency",
        reference_cost=reference,
        settings={"latency": {**latencies.as_json(), ONE_RATE: one_rate}},
        points=tuple(replace(p, cost=p.cost * SECONDS_PER_MAC) for p in front.points),
    )


def _copy(state: State) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _state(subject: Subject) -> Mapping[str, Tensor]:
    found: Mapping[str, Tensor] = subject.network.module.state_dict()
    return found


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def _parameters(subject: Subject) -> list[str]:
    return [name for name, _ in subject.network.module.named_parameters()]

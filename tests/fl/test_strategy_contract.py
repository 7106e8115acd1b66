"""What every strategy has to keep to, whichever it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, KeptCounts, make_policy
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front
from distreal_dse.study.preparation import prepare
from fl.client import VirtualTraining, train_virtually
from fl.engine import FederatedRun
from fl.masking import drift
from fl.results import Update
from fl.settings import RunSettings
from fl.strategies import (
    LocalPlan,
    PricedVector,
    Strategy,
    StrategyContext,
    check_strategy,
    make_strategy,
    strategy_names,
)
from fl.strategies.distreal import Distreal
from fl.strategies.fjord import TaughtVector
from fl.strategies.nested import Nested
from fl.testing import StrategyContract
from fl.world.availability import ConstantAvailability, MarkovAvailability
from fl.world.clock import make_clock
from fl.world.deadlines import RoundRules
from fl.world.devices import Device, DeviceClass
from fl.world.splits import labels_of
from fl.world.transfer import state_sizes
from networks import Residual, inputs_of, trained

NAMES = strategy_names()
# Those that look at the budget when the round begins, and those that do before each mini-batch.
AT_START = ("heterofl", "fjord", "fedrolex")
CHOSEN_ONCE = (
    "nested:choose=round", "distreal:choose=round", "distreal-uniform:choose=round",
    "nested:choose=run",
    "distreal-uniform:choose=round,masks=random-round",
)  # fmt: skip
ALWAYS = ("distreal-uniform", "distreal", "nested")
# One vector and one mask for the whole round.
FIXED = ("fedavg", "fedavg-drop", "small", "federated-dropout", "heterofl", "fedrolex")
SETTINGS = RunSettings(
    rounds=2,
    devices=6,
    cohort=4,
    classes=(DeviceClass("strong", 0.5, 1.0), DeviceClass("weak", 0.5, 0.2)),
    rules=RoundRules(deadline=2.5, late="partial"),
    seed=3,
)


@pytest.fixture
def context(study: Study, network: DroppableNetwork, front: Front) -> StrategyContext:
    macs = MacCost(network.channels)
    return StrategyContext(network, front, macs, 0.3 * macs.full, study)


def plan_of(strategy: Strategy, budget: float, device: int = 0, round_number: int = 1) -> LocalPlan:
    plan = strategy.plan(Device(device, "any", 1.0), round_number, budget, seed=5)
    plan.masks.start_round(round_number)
    return plan


def picks(strategy: Strategy, start: float, budgets: Sequence[float]) -> list[PricedVector]:
    plan = plan_of(strategy, start)
    return [plan.pick(budget) for budget in budgets]


def counts_of(vectors: Sequence[PricedVector]) -> list[KeptCounts]:
    return [vector.kept_counts for vector in vectors]


def test_names_are_those_of_the_strategies(context: StrategyContext) -> None:
    assert [make_strategy(name, context).name for name in NAMES] == NAMES
    assert len(set(NAMES)) == len(NAMES) == 11


class TestBuiltInStrategies(StrategyContract):
    """What the tests of a plug-in check, too."""

    @pytest.fixture(params=[*NAMES, "federated-dropout:rates=own", *CHOSEN_ONCE], autouse=True)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.strategy = request.param


@pytest.mark.parametrize("name", NAMES)
class TestEveryStrategy:
    def test_pupils_are_paid_for(self, name: str, context: StrategyContext) -> None:
        """What is charged is what the vectors train, whoever says it."""
        strategy = make_strategy(name, context)
        macs = MacCost(strategy.network(context.network).channels)
        for share in (0.1, 0.6, 1.0):
            for vector in picks(strategy, share * context.macs.full, [share * macs.full] * 8):
                expected = macs.training(vector.kept_counts)
                if isinstance(vector, TaughtVector) and vector.pupil != vector.kept_counts:
                    expected += macs.training(vector.pupil)
                assert vector.cost == pytest.approx(expected, rel=1e-12)

    def test_budgets_are_kept_wherever_the_smallest_fits(
        self, name: str, context: StrategyContext
    ) -> None:
        strategy, full = make_strategy(name, context), context.macs.full
        shares = [0.05, 0.2, 0.5, 0.75, 1.0]
        smallest = min(vector.cost for vector in picks(strategy, 0, [0.0] * 20))
        for share in shares:
            for vector in picks(strategy, share * full, [share * full] * 10):
                if name in (*AT_START, *ALWAYS):
                    assert vector.cost <= max(share * full, smallest)
                elif name in ("small", "federated-dropout"):
                    assert vector.cost <= context.weakest_budget
                elif name == "fjord-kd":
                    assert isinstance(vector, TaughtVector)
                    teacher = context.macs.training(vector.kept_counts)
                    assert teacher <= max(share * full, smallest)
                else:
                    assert vector.cost == full

    def test_the_largest_that_fits_is_taken(self, name: str, context: StrategyContext) -> None:
        strategy, full = make_strategy(name, context), context.macs.full
        largest = max(picks(strategy, full, [full] * 50), key=lambda vector: vector.cost)
        if name in ("small", "federated-dropout"):
            # One filter more in the narrowest or widest group costs more than the budget.
            finer = (context.uniform(k / 64) for k in range(1, 65))
            best = max(v.cost for v in finer if v.cost <= context.weakest_budget)
            assert largest.cost >= best
        else:
            assert largest.kept_counts == context.network.full_counts

    def test_a_plan_follows_its_budget_only_as_it_says(
        self, name: str, context: StrategyContext
    ) -> None:
        full = context.macs.full
        strategy = make_strategy(name, context)
        falling = picks(strategy, full, [full, 0.4 * full, 0.1 * full])
        steady = picks(strategy, full, [full] * 3)
        assert (counts_of(falling) != counts_of(steady)) == (name in ALWAYS)

    def test_what_is_sent_is_what_the_round_chose_or_everything(
        self, name: str, context: StrategyContext
    ) -> None:
        strategy, full = make_strategy(name, context), context.macs.full
        for share in (0.1, 0.4, 1.0):
            plan = plan_of(strategy, share * full)
            if name in FIXED:
                assert counts_of([plan.pick(share * full)] * 3) == [plan.sent()] * 3
            assert (plan.sent() is None) == (name in ALWAYS and name != "nested")

    def test_a_proximal_term_keeps_devices_near_the_global_state(
        self, name: str, context: StrategyContext, study: Study, data: Data
    ) -> None:
        """Not in the first step, which starts there (Li et al. 2020, equation 2)."""
        whole = replace(study, batch_size=20)  # one mini-batch is all that `train` gives a device

        def moved(text: str, epochs: int) -> tuple[dict[str, Tensor], float]:
            training = training_of(make_strategy(text, context), context, whole, data)
            state = copy_of(training.network.copy_state())
            update = train(training, 0, epochs)
            names = [key for key, _ in training.network.module.named_parameters()]
            ways = [(update.state[key] - state[key]).flatten() for key in names]
            return copy_of(update.state), float(torch.cat(ways).norm())

        # Each further step pulls half the way back, 0.1 · 5, and momentum adds to it.
        pulled, plain = f"{name}:lr=0.1,prox=5", f"{name}:lr=0.1"
        for one, other, epochs in ((pulled, plain, 1), (f"{plain},prox=0", plain, 4)):
            found, expected = moved(one, epochs)[0], moved(other, epochs)[0]
            assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert 0 < moved(pulled, 4)[1] < 0.9 * moved(plain, 4)[1]

    def test_masks_are_aligned_across_shortcuts(
        self, name: str, study: Study, data: Data, make_front: object
    ) -> None:
        """What a device trained of two layers that are added together are the same filters."""
        network = DroppableNetwork(trained(Residual).float(), inputs_of().float())
        assert callable(make_front)
        front = make_front(network, *[tuple(max(1, w * k // 4) for w in network.full_counts)
                                      for k in (1, 2, 4)])  # fmt: skip
        macs = MacCost(network.channels)
        context = StrategyContext(network, front, macs, 0.3 * macs.full, study)
        strategy = make_strategy(name, context)
        inputs, targets = inputs_of(120).float(), torch.arange(120) % 5
        images = torch.utils.data.TensorDataset(inputs, targets)
        training = training_of(strategy, context, study, Data(images, images, images))
        state = training.network.copy_state()
        for index in range(3):
            update = train(training, index, epochs=1, speed=0.4)
            changed = {
                layer: (update.state[f"{layer}.weight"] != state[f"{layer}.weight"])
                .reshape(len(state[f"{layer}.weight"]), -1)
                .any(1)
                for layer in ("stem_norm", "outer_norm", "stem", "wide_norm", "shortcut_norm")
            }
            assert torch.equal(changed["stem_norm"], changed["outer_norm"])
            assert torch.equal(changed["stem_norm"], changed["stem"])
            assert torch.equal(changed["wide_norm"], changed["shortcut_norm"])
            # And they are what the masks say.
            units = training.network.channels.axes["stem.weight"][0]
            assert units is not None
            assert torch.equal(changed["stem"], update.masks[:, units].any(0))

    def test_devices_train_what_they_can_afford(
        self, name: str, study: Study, data: Data, make_front: object
    ) -> None:
        network = prepare(study, seed=0)[0]
        macs = MacCost(network.channels)
        assert callable(make_front)
        front = make_front(network, (3, 4), (5, 10), (8, 16))
        weakest = 0.2 * SETTINGS.availability.mean_share() * macs.full
        context = StrategyContext(network, front, macs, weakest, study)
        run = FederatedRun(study, data, network, make_strategy(name, context), front, SETTINGS)
        results = list(run.rounds())
        assert len(results) == 3 and results[1].mini_batches > 0
        same_for_all = name in ("fedavg", "fedavg-drop", "small", "federated-dropout")
        shares = {one.mean_cost_share for one in results[1].devices if one.mini_batches}
        assert (len(shares) == 1) == same_for_all


def training_of(
    strategy: Strategy, context: StrategyContext, study: Study, data: Data
) -> VirtualTraining:
    clock = make_clock(context.front, context.macs, study.batch_size)
    network = strategy.network(context.network)
    return VirtualTraining(
        study=study,
        dataset=data.train,
        network=network,
        macs=MacCost(network.channels),
        size_of=state_sizes(network.module.state_dict(), network.channels),
        strategy=strategy,
        availability=MarkovAvailability(),
        clock=clock,
        labels=labels_of(data.train),
        masked_loss=False,
        epochs=2,
        seed=1,
    )


def train(training: VirtualTraining, index: int, epochs: int = 2, speed: float = 0.7) -> Update:
    state = training.network.copy_state()
    samples = torch.arange(index * 20, index * 20 + 20)
    training = replace(training, epochs=epochs)
    update = train_virtually(training, Device(index, "any", speed), samples, state, 1, 0.0)
    training.network.module.load_state_dict(state)
    return update


def copy_of(state: object) -> dict[str, Tensor]:
    assert hasattr(state, "items")
    return {name: tensor.clone() for name, tensor in state.items()}


def test_rates_of_their_own_let_devices_train_different_shares(
    context: StrategyContext, study: Study, data: Data
) -> None:
    shares = {}
    for rates in ("common", "own"):
        strategy = make_strategy(f"federated-dropout:rates={rates}", context)
        network = prepare(study, seed=0)[0]
        results = list(FederatedRun(study, data, network, strategy, None, SETTINGS).rounds())
        by_class: dict[str, set[float]] = {"strong": set(), "weak": set()}
        for one in (device for result in results[1:] for device in result.devices):
            if one.mean_cost_share is not None:
                by_class[one.device_class].add(one.mean_cost_share)
        shares[rates] = by_class
    assert len(shares["common"]["strong"] | shares["common"]["weak"]) == 1
    assert max(shares["own"]["weak"]) <= 0.2 < max(shares["own"]["strong"])  # a speed of 0.2


def test_distreal_uniform_draws_masks_for_each_mini_batch(context: StrategyContext) -> None:
    plan = plan_of(make_strategy("distreal-uniform", context), context.macs.full)
    counts = plan.pick(0.4 * context.macs.full).kept_counts
    draws = torch.Generator().manual_seed(0)
    masks = [plan.masks.draw(context.network.full_counts, counts, draws) for _ in range(20)]
    assert len({tuple(mask.tolist()) for mask in masks}) > 15


def test_distreal_uniform_reaches_down_to_the_slowest_device(context: StrategyContext) -> None:
    half = replace(context, study=replace(context.study, max_rate=0.5))
    bound = context.uniform(0.5).cost
    for weakest, reaches in ((bound, bound), (0.6 * bound, context.uniform(0.01).cost)):
        strategy = make_strategy("distreal-uniform", replace(half, weakest_budget=weakest))
        assert plan_of(strategy, 0.0).pick(0.0).cost == reaches <= weakest


def test_distreal_uniform_takes_any_masks(context: StrategyContext) -> None:
    assert make_policy("ordered").spec == _masks_of(context, "distreal-uniform:masks=ordered")
    spec = "distreal-uniform:masks=core:core=0.5:redraw=2,averaging=pooled"
    assert make_policy("core:core=0.5,redraw=2").spec == _masks_of(context, spec)
    with pytest.raises(InputError, match="mask policy 'orderd': expected .*ordered"):
        make_strategy("distreal-uniform:masks=orderd", context)


def _masks_of(context: StrategyContext, spec: str) -> str:
    return plan_of(make_strategy(spec, context), context.macs.full).masks.spec


@pytest.mark.parametrize("name", ["distreal", "distreal-uniform", "nested"])
def test_what_is_chosen_for_a_round_stays_and_alone_is_sent(
    context: StrategyContext, name: str
) -> None:
    full = context.macs.full
    for when, follows in (("run", False), ("round", False), ("mini-batch", True)):
        strategy = make_strategy(f"{name}:choose={when}", context)
        strategy.network(context.network)
        plan = plan_of(strategy, full)
        first = plan.pick(full).kept_counts
        assert (plan.pick(0.35 * full).kept_counts != first) == follows
        everything = (
            first if name == "nested" else None
        )  # levels are nested, and so is what is sent
        redrawn = name != "nested"  # within the round, so all may be trained
        assert plan.sent() == (everything if follows or redrawn else first)
    with pytest.raises(InputError, match="expected one of run, round, mini-batch, found 'week'"):
        make_strategy(f"{name}:choose=week", context)


def test_nested_sends_the_levels_that_a_device_may_train(context: StrategyContext) -> None:
    sent = []
    for speed, pace in ((0.01, 1.0), (0.3, 2.0), (1.0, 1.0)):
        strategy = make_strategy("nested", replace(context, pace=pace))
        strategy.network(context.network)
        plan = strategy.plan(Device(0, "own", speed), 1, 0.0, 0)
        most = min(1.0, speed * pace) * context.macs.full
        assert plan.sent() == plan.pick(most).kept_counts == plan.pick(10 * most).kept_counts
        sent.append(plan.sent())
    assert sent == sorted(set(sent)) and sent[-1] == context.network.full_counts


def test_levels_that_know_some_classes_stay_near_what_the_core_says_of_them(
    context: StrategyContext, data: Data
) -> None:
    """Else they would win over it, or lose to it, on inputs of all other classes."""
    study, full = context.study, context.macs.full
    labels = labels_of(data.train)
    here = (labels < 2).nonzero().flatten()
    inputs, targets = fetch(data.train, here)
    others, _ = fetch(data.train, (labels >= 2).nonzero().flatten())
    largest, moved = {}, {}
    for anchor in (0.0, 1.0):
        strategy = make_strategy(f"nested:anchor={anchor}", context)
        assert isinstance(strategy, Nested)
        network = strategy.network(context.network)
        plan = plan_of(strategy, full)
        plan.labels, plan.loss = targets, study.loss
        optimizer = torch.optim.SGD(network.module.parameters(), lr=0.2)
        trainer = DropoutTrainer(network, optimizer, study.loss, plan.masks, torch.Generator())
        for _ in range(100):
            plan.step(trainer, inputs, targets, plan.pick(full))
        assert strategy._nesting is not None
        with torch.no_grad():
            _, *added = strategy._nesting.outputs(network.module, others, network.full_counts)
            core, *more = strategy._nesting.outputs(network.module, inputs, network.full_counts)
        assert (sum(added)[:, 2:] == 0).all()  # of classes that nobody here has seen
        largest[anchor] = max(float(part[:, :2].max()) for part in added)
        together = (core + sum(more))[:, :2].logsumexp(1) - core[:, :2].logsumexp(1)
        moved[anchor] = float(together.abs().mean())
    assert largest[1.0] < 0.5 * largest[0.0], largest
    assert moved[1.0] < 0.5 * moved[0.0], moved


def test_drift_is_what_is_raised_and_how_known_classes_change_together() -> None:
    core, part = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.5, -1.0, 3.0]])
    together = math.log(math.exp(1.5) + math.exp(1.0)) - math.log(math.exp(1.0) + math.exp(2.0))
    found = drift(core, core + part, part, torch.tensor([0, 1]))
    assert found.item() == pytest.approx(0.5**2 / 2 + together**2, rel=1e-6)
    shifted = torch.tensor([[-0.7, -0.7, 9.0]])
    down = drift(core, core + shifted, shifted, torch.tensor([0, 1]))
    assert down.item() == pytest.approx(0.7**2, rel=1e-6)  # raises nothing, and loses to the third


def test_fjord_draws_anew_for_each_device_and_round(context: StrategyContext) -> None:
    strategy, full = make_strategy("fjord", context), context.macs.full
    plans = [plan_of(strategy, full), plan_of(strategy, full, 1), plan_of(strategy, full, 0, 2)]
    drawn = [counts_of([plan.pick(full) for _ in range(12)]) for plan in plans]
    assert all(drawn[0] != other for other in drawn[1:])


def test_weakest_budgets_above_the_full_cost_take_the_full_network(
    context: StrategyContext,
) -> None:
    roomy = replace(context, weakest_budget=2 * context.macs.full)
    small = make_strategy("small", roomy)
    assert small.network(context.network) is context.network
    assert plan_of(small, 0).pick(0).kept_counts == context.network.full_counts


def test_where_not_even_the_smallest_fits_it_is_taken(context: StrategyContext) -> None:
    poor = replace(context, weakest_budget=1.0)
    for name in ("small", "federated-dropout"):
        strategy = make_strategy(name, poor)
        strategy.network(context.network)
        assert set(plan_of(strategy, 0).pick(0).kept_counts) == {1}


def test_kept_counts_are_of_the_studys_granularity(context: StrategyContext) -> None:
    coarse = replace(context, study=replace(context.study, granularity=4))
    for name in ("small", "federated-dropout", *AT_START, "distreal-uniform"):
        for share in (0.1, 0.5):
            budget = share * context.macs.full
            vector = picks(make_strategy(name, coarse), budget, [budget])[0]
            assert all(count % 4 == 0 for count in vector.kept_counts), name


def test_the_wrong_front_is_refused_in_one_line(context: StrategyContext) -> None:
    assert context.front is not None
    timed = replace(context, front=replace(context.front, cost_metric="latency"))
    for name in NAMES:
        if name != "distreal":
            with pytest.raises(InputError, match=f"'{name}'.*alone: .* found none; .*reprice"):
                make_strategy(name, timed)
            make_strategy(name, replace(context, front=None))
    make_strategy("distreal", timed)
    with pytest.raises(InputError, match="'distreal': expected a front .* found none"):
        make_strategy("distreal:form=random", replace(context, front=None))


def test_distreal_has_the_form_of_its_front_and_nested_levels_without_one(
    context: StrategyContext,
) -> None:
    bare = replace(context, front=None)
    for spec, given, expected in (
        ("distreal", context, Distreal),
        ("distreal:form=random,lr=0.2", context, Distreal),
        ("distreal:form=nested", context, Nested),
        ("distreal", bare, Nested),
        ("distreal:levels=2,lr=0.2", bare, Nested),
    ):
        made = make_strategy(spec, given)
        assert type(made) is expected, spec
        assert made.learning_rate == (0.2 if "lr" in spec else None)
    for spec, given, message in (
        ("distreal:form=round", context, "form of strategy 'distreal': expected random or nested"),
        ("distreal:levels=2", context, "expected the settings form, averaging, .*found 'levels'"),
        ("distreal:from=nested", bare, "expected the settings form, levels, anchor, .*mean form"),
        ("nested:form=random", bare, "expected the settings levels, .*found 'form'"),
    ):
        with pytest.raises(InputError, match=message):
            make_strategy(spec, given)


def test_names_and_settings_that_do_not_exist_are_refused(context: StrategyContext) -> None:
    for name, message in (
        ("fedprox", "strategy 'fedprox': expected one of fedavg, .* found 'fedprox'"),
        ("fedavg:rate=1", "expected the settings lr, .*of 'fedavg', found 'rate'"),
        ("small:rate=1", "expected the settings share, lr, .*of 'small', found 'rate'"),
        ("small:share=0", "share of strategy small: expected above 0 and at most 1, found 0"),
        ("nested:levels=1", "levels of strategy nested: expected 2 or more, found 1"),
        ("nested:levels=2.5", "levels: expected a whole number, found '2.5'"),
        ("distreal:averaging=mean", "expected one of plain, contributors, pooled, found 'mean'"),
        ("fjord-kd:alpha=2", "alpha of strategy fjord-kd: expected 0 to 1, found 2"),
        ("fjord-kd:alpha=much", "alpha: expected a number, found 'much'"),
    ):
        with pytest.raises(InputError, match=message):
            make_strategy(name, context)


DROPPING = {
    "federated-dropout": "contributors", "heterofl": "contributors", "fjord": "contributors",
    "fjord-kd": "contributors", "fedrolex": "contributors", "distreal-uniform": "plain",
    "distreal": "plain", "nested": "pooled",
}  # fmt: skip


@pytest.mark.parametrize(("name", "default"), DROPPING.items())
def test_averaging_is_a_setting_of_all_that_drop_something(
    name: str, default: str, context: StrategyContext, study: Study, data: Data
) -> None:
    found = {}
    for averaging in ("plain", "contributors", "pooled", None):
        text = name if averaging is None else f"{name}:averaging={averaging}"
        strategy = make_strategy(text, context)
        training = training_of(strategy, context, study, data)
        state = training.network.copy_state()
        updates = [train(training, index, speed=speed) for index, speed in enumerate((0.3, 0.9))]
        found[averaging] = strategy.aggregate(state, updates, training.network.channels)["4.weight"]
    assert torch.equal(found[None], found[default])
    pairs = [("plain", "contributors"), ("contributors", "pooled"), ("plain", "pooled")]
    assert not any(torch.equal(found[one], found[other]) for one, other in pairs)


def test_averaging_is_no_setting_where_all_averages_are_the_same() -> None:
    for name in NAMES:
        if name not in DROPPING:
            with pytest.raises(InputError, match="found 'averaging'"):
                check_strategy(f"{name}:averaging=plain", None)


def test_only_the_upper_bound_does_without_deadlines(context: StrategyContext) -> None:
    unlimited = [name for name in NAMES if not make_strategy(name, context).limited]
    assert unlimited == ["fedavg"]


# --- Nested levels --------------------------------------------------------------------------------


def test_devices_that_afford_the_core_alone_train_it_as_the_small_network(
    study: Study, data: Data, network: DroppableNetwork
) -> None:
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.3 * macs.full, study)
    states = {}
    for name in ("small", "nested"):
        training = training_of(make_strategy(name, context), context, study, data)
        updates = [train(training, index, speed=0.3) for index in range(3)]
        state = training.network.copy_state()
        merged = training.strategy.aggregate(state, updates, training.network.channels)
        training.network.load_state(merged)
        states[name] = training.network
    small, nested = states["small"], states["nested"]
    counts = small.full_counts
    core = nested.subnetwork(counts)
    mask = make_policy("ordered").draw(nested.channels.widths, counts, torch.Generator())
    core.load(core.select(mask))
    expected = small.module.state_dict()
    found = core.module.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("core", ["alone", "taught"])
def test_a_core_learns_from_levels_only_where_it_is_taught(
    core: str, study: Study, data: Data, network: DroppableNetwork
) -> None:
    """A strong device trains the core as a weak one does, which trains nothing else."""
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.2 * macs.full, study)
    training = training_of(make_strategy(f"nested:core={core}", context), context, study, data)
    training = replace(training, availability=ConstantAvailability())
    samples, before = torch.arange(24), training.network.copy_state()
    weak, strong = (
        train_virtually(training, Device(0, "any", speed), samples, before, 1, 0.0).state
        for speed in (0.2, 1.0)
    )
    trained = {name for name, value in weak.items() if not torch.equal(value, before[name])}
    parameters = trained & dict(training.network.module.named_parameters()).keys()
    assert parameters
    same = True
    for name in parameters:
        changed = weak[name] != before[name]
        same = same and torch.allclose(weak[name][changed], strong[name][changed], atol=1e-6)
    assert same == (core == "alone")


def test_what_a_level_adds_learns_nothing_of_classes_that_a_device_has_not(
    study: Study, data: Data, network: DroppableNetwork
) -> None:
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.2 * macs.full, study)
    training = training_of(make_strategy("nested", context), context, study, data)
    training = replace(training, availability=ConstantAvailability(), epochs=3)
    own = (training.labels != 1).nonzero().flatten()[:24]
    before = training.network.copy_state()
    update = train_virtually(training, Device(0, "any", 1.0), own, before, 1, 0.0)
    changed = update.state["9.weight"] != before["9.weight"]
    core = make_strategy("small", context).network(network).full_counts[-1]
    per_filter = changed.shape[1] // network.full_counts[-1]
    rows = changed[:, core * per_filter :].any(1).tolist()
    assert rows == [True, False, True]
    # The core learns on the ordinary loss that it has no sample of class 1.
    assert changed[:, : core * per_filter].any(1).all()

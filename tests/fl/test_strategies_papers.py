"""Strategies against what their papers say, on tensors small enough to do by hand."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from distreal_dse import Study
from distreal_dse.cost import MacCost
from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    kept_counts,
    make_policy,
)
from distreal_dse.errors import InputError
from fl.strategies import Fjord, LocalPlan, Strategy, StrategyContext, check_strategy, make_strategy
from fl.strategies.fjord import LEVELS as FJORD_LEVELS
from fl.strategies.fjord import TaughtVector
from fl.strategies.small import small_copy
from fl.world.devices import Device
from networks import NETWORKS, inputs_of, trained
from update_examples import update

MakeCnn = Callable[..., nn.Module]


class TwoLayers(nn.Sequential):
    """Four filters of one weight each, and a classifier of two classes."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )


@pytest.fixture
def tiny(study: Study) -> StrategyContext:
    network = DroppableNetwork(TwoLayers(), torch.randn(2, 1, 2, 2))
    macs = MacCost(network.channels)
    return StrategyContext(network, None, macs, macs.full, study)


def state_of(filters: list[float], classifier: list[list[float]]) -> dict[str, Tensor]:
    return {
        "0.weight": torch.tensor(filters, dtype=torch.float32).reshape(4, 1, 1, 1),
        "3.weight": torch.tensor(classifier, dtype=torch.float32),
        "3.bias": torch.zeros(2),
    }


def plan_of(strategy: Strategy, budget: float, round_number: int = 1, device: int = 0) -> LocalPlan:
    plan = strategy.plan(Device(device, "any", 1.0), round_number, budget, seed=0)
    plan.masks.start_round(round_number)
    return plan


def mask_of(plan: LocalPlan, context: StrategyContext, seed: int = 0) -> list[int]:
    """Indices of the units that the next mini-batch keeps."""
    counts = plan.pick(0).kept_counts
    draws = torch.Generator().manual_seed(seed)
    mask = plan.masks.draw(context.network.full_counts, counts, draws)
    return mask.nonzero().flatten().tolist()


def budget_of(context: StrategyContext, keep: float) -> float:
    return context.uniform(keep).cost


# --- HeteroFL -------------------------------------------------------------------------------------


def test_heterofl_averages_each_part_over_the_levels_that_hold_it(tiny: StrategyContext) -> None:
    """Section 3: the part that only larger levels hold is theirs alone."""
    strategy = make_strategy("heterofl", tiny)
    old = state_of([9, 9, 9, 9], [[9, 9, 9, 9], [9, 9, 9, 9]])
    updates = []
    for device, (keep, value) in enumerate([(1 / 4, 1.0), (1 / 2, 3.0), (1 / 2, 5.0)]):
        plan = plan_of(strategy, budget_of(tiny, keep), device=device)
        units = mask_of(plan, tiny)
        assert units == list(range(round(4 * keep)))
        masks = torch.zeros(2, 4, dtype=torch.bool)
        masks[:, units] = True
        trained_part = {name: tensor.clone() for name, tensor in old.items()}
        trained_part["0.weight"][units] = value
        trained_part["3.weight"][:, units] = 10 * value
        updates.append(update(device, 10, trained_part, masks))
    merged = strategy.aggregate(old, updates, tiny.network.channels)
    # Filter 0: (1 + 3 + 5) / 3 = 3. Filter 1: (3 + 5) / 2 = 4. Nobody has the others.
    assert merged["0.weight"].flatten().tolist() == [3, 4, 9, 9]
    assert merged["3.weight"].tolist() == [[30, 40, 9, 9], [30, 40, 9, 9]]


def test_heterofl_levels_halve_the_widths(study: Study) -> None:
    network = DroppableNetwork(NETWORKS["biased"](), inputs_of().float())  # 8 and 6 filters
    macs = MacCost(network.channels)
    strategy = make_strategy("heterofl", StrategyContext(network, None, macs, macs.full, study))
    found = {
        plan_of(strategy, macs.full * share / 1000).pick(0).kept_counts for share in range(1, 1001)
    }
    # 8, 4, 2, 1, and half a filter, of which there is one at least; 6, 3, 1.5 → 2, 0.75 → 1, 1.
    assert found == {(8, 6), (4, 3), (2, 2), (1, 1)}


@pytest.mark.parametrize("name", ["heterofl", "fjord", "fjord-kd:alpha=0.5", "fedrolex"])
def test_levels_by_cost_fill_a_budget_that_widths_leave_to_a_quarter(
    study: Study, make_cnn: Callable[..., nn.Module], name: str
) -> None:
    """Half the width costs a little more than a quarter, so a quarter buys a quarter's width."""
    network = DroppableNetwork(make_cnn(width=16), torch.zeros(2, 1, 4, 4))  # 16 and 32 filters
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, macs.full, study)
    assert 0.25 < macs.training((8, 16)) / macs.full < 0.3
    colon = "," if ":" in name else ":"

    def largest(levels: str) -> KeptCounts:
        strategy = make_strategy(f"{name}{colon}{levels}", context)
        plan = plan_of(strategy, 0.25 * macs.full)
        return max((plan.pick(0).kept_counts for _ in range(40)), key=macs.training)

    assert largest("widths=1/0.5/0.25") == (4, 8)
    widest = largest("costs=1/0.25/0.0625")
    # By brute force: of all uniform widths, the dearest within a quarter of the cost.
    uniform = {context.uniform(step / 1000).kept_counts for step in range(1, 1001)}
    fitting = [one for one in uniform if macs.training(one) <= 0.25 * macs.full]
    assert widest == max(fitting, key=macs.training) == (7, 15)
    # And what `small` is for devices that can spend as much.
    small = make_strategy("small:share=0.25", context)
    assert plan_of(small, 0).pick(0).kept_counts == widest


@pytest.mark.parametrize("name", ["heterofl", "fjord", "fjord-kd", "fedrolex"])
def test_levels_by_hand_are_those_that_devices_choose_from(study: Study, name: str) -> None:
    network = DroppableNetwork(NETWORKS["biased"](), inputs_of().float())  # 8 and 6 filters
    macs = MacCost(network.channels)
    strategy = make_strategy(
        f"{name}:widths=0.5/1/0.75", StrategyContext(network, None, macs, macs.full, study)
    )
    sent = [plan_of(strategy, macs.full * step / 100).sent() for step in range(1, 101)]
    assert list(dict.fromkeys(sent)) == [(4, 3), (6, 4), (8, 6)]  # 4.5 filters are 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heterofl:costs=1/0", "levels of a strategy: expected shares above 0 .* found 0"),
        ("fedrolex:widths=1/1.5", "expected shares above 0 and at most 1, .* found 1.5"),
        ("fjord:widths=nan", "expected shares above 0 and at most 1, .* found nan"),
        ("fjord:costs=1/half", "costs: expected a number, found 'half'"),
        ("fjord-kd:costs=1/", "costs: expected a number, found ''"),
        (
            "heterofl:widths=1,costs=1",
            "expected widths or costs, .* found both",
        ),
        ("heterofl:width=1", "found 'width'; did you mean widths"),
        ("nested:costs=1", "expected the settings levels, anchor, core, averaging.* found 'costs'"),
    ],
)
def test_levels_that_are_none_are_refused_without_a_network(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_strategy(text, None)


# --- FedRolex -------------------------------------------------------------------------------------


def test_fedrolex_windows_roll_and_wrap(tiny: StrategyContext) -> None:
    """Section 3: in round j the filters i, i + 1, … mod K, with i = j mod K."""
    strategy = make_strategy("fedrolex", tiny)
    half = budget_of(tiny, 1 / 2)
    windows = [mask_of(plan_of(strategy, half, number), tiny) for number in range(1, 6)]
    assert windows == [[1, 2], [2, 3], [0, 3], [0, 1], [1, 2]]
    # The same for all devices of a round; a smaller level has the beginning of the window.
    assert mask_of(plan_of(strategy, half, 3, device=7), tiny, seed=9) == [0, 3]
    assert mask_of(plan_of(strategy, budget_of(tiny, 1 / 4), 3), tiny) == [3]


def test_fedrolex_averages_each_filter_over_the_windows_that_hold_it(
    tiny: StrategyContext,
) -> None:
    strategy = make_strategy("fedrolex", tiny)
    old = state_of([9, 9, 9, 9], [[9, 9, 9, 9], [9, 9, 9, 9]])
    updates = []
    for device, (keep, samples, value) in enumerate([(1 / 4, 10, 1.0), (1 / 2, 30, 5.0)]):
        units = mask_of(plan_of(strategy, budget_of(tiny, keep), 3, device), tiny)
        masks = torch.zeros(1, 4, dtype=torch.bool)
        masks[:, units] = True
        trained_part = {name: tensor.clone() for name, tensor in old.items()}
        trained_part["0.weight"][units] = value
        updates.append(update(device, samples, trained_part, masks))
    merged = strategy.aggregate(old, updates, tiny.network.channels)
    # Round 3: filter 3 is in both windows, (1·10 + 5·30) / 40 = 4; filter 0 in the wider one alone.
    assert merged["0.weight"].flatten().tolist() == [5, 9, 9, 4]


def test_every_filter_is_in_as_many_windows(tiny: StrategyContext) -> None:
    strategy = make_strategy("fedrolex", tiny)
    half = budget_of(tiny, 1 / 2)
    times = Counter(i for n in range(8) for i in mask_of(plan_of(strategy, half, n), tiny))
    assert times == {0: 4, 1: 4, 2: 4, 3: 4}


# --- Federated Dropout ----------------------------------------------------------------------------


def test_federated_dropout_keeps_one_random_sub_model_for_a_round(study: Study) -> None:
    network = DroppableNetwork(NETWORKS["plain"](), inputs_of().float())
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.3 * macs.full, study)
    strategy = make_strategy("federated-dropout", context)
    seen = set()
    for device in range(12):
        plan = plan_of(strategy, macs.full, device=device)
        draws = torch.Generator().manual_seed(device)
        counts = plan.pick(0).kept_counts
        masks = [plan.masks.draw(network.full_counts, counts, draws) for _ in range(3)]
        assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])
        seen.add(tuple(masks[0].tolist()))
        assert counts == plan_of(strategy, 0.0, device=device).pick(0).kept_counts
    assert len(seen) > 6


def test_federated_dropout_may_give_each_device_the_smallest_rate_that_it_affords(
    study: Study, make_cnn: MakeCnn
) -> None:
    network = DroppableNetwork(make_cnn(width=16), torch.zeros(2, 1, 4, 4))
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.1 * macs.full, study)
    own = make_strategy("federated-dropout:rates=own", context)
    uniform = {context.uniform(step / 1000).kept_counts for step in range(1, 1001)}
    for device, share in enumerate((0.05, 0.3, 0.62, 1.0)):
        plan = plan_of(own, share * macs.full, device=device)
        fitting = [one for one in uniform if macs.training(one) <= share * macs.full]
        largest = max(fitting, key=macs.training)
        # Whatever becomes of the budget, as is sent.
        assert [plan.pick(later).kept_counts for later in (0.0, macs.full)] == [largest] * 2
        assert plan.sent() == largest
        kept = mask_of(plan, context)
        assert mask_of(plan, context, seed=1) == kept and len(kept) == sum(largest)
    assert plan_of(own, 0.0).sent() == (1, 1)
    for text in ("federated-dropout", "federated-dropout:rates=common"):
        plans = [plan_of(make_strategy(text, context), share * macs.full) for share in (0.05, 1.0)]
        small = context.largest_within(0.1 * macs.full).kept_counts
        assert [plan.sent() for plan in plans] == [small] * 2
    with pytest.raises(InputError, match="rates of federated-dropout 'owm': .* did you mean own"):
        check_strategy("federated-dropout:rates=owm", None)


# --- FjORD ----------------------------------------------------------------------------------------


@pytest.fixture
def wide(study: Study) -> StrategyContext:
    """Ten filters, so that all levels differ."""
    module = nn.Sequential(
        nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Conv2d(10, 10, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4),
    ).double()  # fmt: skip
    network = DroppableNetwork(module, inputs_of())
    macs = MacCost(network.channels)
    return StrategyContext(network, None, macs, macs.full, study)


@pytest.mark.parametrize("affordable", [1, 3, 5])
def test_fjord_draws_uniformly_from_the_levels_that_fit(
    affordable: int, wide: StrategyContext
) -> None:
    strategy = Fjord(wide)
    plan = plan_of(strategy, budget_of(wide, FJORD_LEVELS[affordable - 1]))
    number = 1000 * affordable
    drawn = Counter(plan.pick(0).kept_counts for _ in range(number))
    assert set(drawn) == {(2 * level,) * 2 for level in range(1, affordable + 1)}
    five_sigma = 5 * math.sqrt(number / affordable)
    assert all(abs(times - 1000) < five_sigma for times in drawn.values())
    assert plan.sent() == (2 * affordable,) * 2


def test_fjord_kd_trains_both_levels_by_one_step(wide: StrategyContext) -> None:
    """Section 3, by autograd on slices: what is kept are the first filters."""
    strategy = make_strategy("fjord-kd:alpha=0.75", wide)
    plan = plan_of(strategy, budget_of(wide, 0.6))
    module = wide.network.module
    inputs, targets = inputs_of(6), torch.tensor([0, 1, 2, 3, 0, 1])
    vector = next(v for v in (plan.pick(0) for _ in range(99)) if differs(v))
    assert isinstance(vector, TaughtVector) and vector.kept_counts == (6, 6)
    small = vector.pupil[0]
    weights = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}

    def outputs(kept: int) -> Tensor:
        scale = 10 / kept if wide.network.scaling == "inverted" else 1.0
        maps = functional.conv2d(inputs, weights["0.weight"][:kept], weights["0.bias"][:kept])
        maps = functional.conv2d(
            scale * maps.relu(), weights["2.weight"][:kept, :kept], weights["2.bias"][:kept]
        )
        pooled = scale * maps.relu().mean((2, 3))
        return pooled @ weights["6.weight"][:, :kept].T + weights["6.bias"]

    teacher, pupil = outputs(6), outputs(small)
    loss = functional.cross_entropy(teacher, targets)
    p = teacher.detach().softmax(1)
    divergence = (p * (p.log() - pupil.log_softmax(1))).sum(1).mean()
    (loss + 0.25 * functional.cross_entropy(pupil, targets) + 0.75 * divergence).backward()

    trainer = DropoutTrainer(
        wide.network,
        torch.optim.SGD(module.parameters(), lr=0.1),
        wide.study.loss,
        plan.masks,
        torch.Generator(),
    )
    assert plan.step(trainer, inputs, targets, vector) == pytest.approx(loss.item(), rel=1e-12)
    for name, parameter in module.named_parameters():
        grad = weights[name].grad
        assert grad is not None
        torch.testing.assert_close(parameter, weights[name] - 0.1 * grad, rtol=1e-9, atol=1e-12)
    assert trainer.last_mask.tolist() == ([True] * 6 + [False] * 4) * 2


def differs(vector: object) -> bool:
    return isinstance(vector, TaughtVector) and vector.pupil != vector.kept_counts


# --- The small network ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_small_network_stands_on_its_own(kind: str, study: Study) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]).float(), inputs_of().float())
    before = copy.deepcopy(network.module.state_dict())
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.3 * macs.full, study)
    strategy = make_strategy("small", context)
    small = strategy.network(network)
    vector = plan_of(strategy, macs.full).pick(0)
    assert vector.kept_counts == small.full_counts
    assert vector.cost == MacCost(small.channels).full
    assert vector.cost <= max(context.weakest_budget, context.uniform(1e-6).cost)
    # It trains, and the full network has no part in that.
    trainer = DropoutTrainer(
        small, study.optimizer(small.module.parameters()), study.loss, make_policy("random"),
        torch.Generator(),
    )  # fmt: skip
    trainer.step(inputs_of(8).float(), torch.arange(8) % 5, small.full_counts)
    after = network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    storages = {t.untyped_storage().data_ptr() for t in network.module.state_dict().values()}
    assert not storages & {
        t.untyped_storage().data_ptr() for t in small.module.state_dict().values()
    }
    numbers = sum(t.numel() for t in small.module.state_dict().values())
    held = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() // t.element_size()
        for t in small.module.state_dict().values()
    }
    assert sum(held.values()) <= numbers


def test_small_weights_are_slices_scaled_to_the_narrower_inputs() -> None:
    network = DroppableNetwork(trained(NETWORKS["plain"]).float(), inputs_of().float())
    full, small = network.module, small_copy(network, (2, 3))
    first, second, classifier = (
        (full.get_parameter(name), small.get_parameter(name))
        for name in ("0.weight", "4.weight", "8.weight")
    )
    assert torch.equal(first[1], first[0][:2])  # all inputs of the image are there
    torch.testing.assert_close(second[1], second[0][:3, :2] * math.sqrt(8 / 2))
    kept = torch.arange(6 * 16).reshape(6, 16)[:3].flatten()  # 16 positions per filter
    torch.testing.assert_close(classifier[1], classifier[0][:, kept] * math.sqrt(6 / 3))
    assert torch.equal(small.get_parameter("8.bias"), full.get_parameter("8.bias"))
    assert torch.equal(small.get_parameter("5.weight"), full.get_parameter("5.weight")[:3])
    assert torch.equal(small.get_buffer("5.running_var"), full.get_buffer("5.running_var")[:3])


def test_small_weights_spread_as_pytorch_initialises_them(make_cnn: MakeCnn) -> None:
    torch.manual_seed(0)
    network = DroppableNetwork(make_cnn(width=64), torch.randn(2, 1, 4, 4))
    counts = kept_counts([0.75] * 2, network.groups)
    small, fresh = small_copy(network, counts), make_cnn(width=16)
    for name in ("4.weight", "9.weight"):
        spread, expected = (m.get_parameter(name).std().item() for m in (small, fresh))
        assert spread == pytest.approx(expected, rel=0.2)
        assert network.module.get_parameter(name).std().item() < 0.6 * expected

"""That the tests which are shipped for strategies fail where a strategy is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from distreal_dse.dropout import ChannelMap, DropoutTrainer, KeptCounts, MaskPolicy, make_policy
from fl.results import State, Update
from fl.strategies import (
    BudgetPlan,
    FixedPlan,
    LocalPlan,
    PricedVector,
    Strategy,
    StrategyContext,
    Vector,
)
from fl.testing import StrategyContract
from fl.world.devices import Device


class Right(Strategy):
    """The vector of one rate that fits the budget when the round begins, first filters kept."""

    name = "right"
    chosen = "per round"
    masks: str | MaskPolicy = "ordered"
    averaging = "contributors"

    def pick(self, budget: float) -> Vector:
        return self.context.largest_within(budget)


class Unsaid(Right):
    pass


class Cheap(Right):
    """Says that vectors cost half."""

    def pick(self, budget: float) -> Vector:
        vector = super().pick(budget)
        return Vector(vector.kept_counts, vector.cost / 2)


class Counting(Right):
    """Gives every other device the full network."""

    asked = 0

    def pick(self, budget: float) -> Vector:
        self.asked += 1
        return self.context.full if self.asked % 2 else super().pick(budget)


class Shared(Right):
    """One mask policy for all devices."""

    def __init__(self, context: StrategyContext) -> None:
        super().__init__(context)
        self.policy = make_policy("random-round")

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        return FixedPlan(self.pick(budget), self.policy)


class Unsent(Right):
    """Sends the smallest vector, and trains what fits."""

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        smallest = self.pick(0.0).kept_counts

        class Plan(BudgetPlan):
            def sent(self) -> KeptCounts:
                return smallest

        return Plan(self.pick, make_policy("ordered"))


class OneSent(FixedPlan):
    def sent(self) -> KeptCounts:
        return self.pick(0.0).kept_counts


class Redrawn(Right):
    """Sends one sub-network, and trains another in each mini-batch."""

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        return OneSent(self.pick(budget), make_policy("random"))


class InPlace(Right):
    """Averages into the first update."""

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        for update in updates[1:]:
            for name, tensor in updates[0].state.items():
                if tensor.is_floating_point():
                    tensor.add_(update.state[name]).div_(2)
        return updates[0].state


class Idle(Right):
    """Never learns."""

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        return state


class Whole(Right):
    """Needs tensors of the first layer."""

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        merged = dict(super().aggregate(state, updates, channels))
        return merged | {"0.weight": merged["0.weight"].clone()}


class OwnSteps(Right):
    """Trains past the trainer."""

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        module, loss = self.context.network.module, self.context.study.loss

        class Plan(FixedPlan):
            def step(
                self, trainer: DropoutTrainer, inputs: Tensor, targets: Tensor, vector: PricedVector
            ) -> float:
                parameters = list(module.parameters())
                found = loss(module(inputs), targets)
                gradients = torch.autograd.grad(found, parameters)
                with torch.no_grad():
                    for one, gradient in zip(parameters, gradients, strict=True):
                        one -= 0.1 * gradient
                return found.item()

        return Plan(self.context.full, make_policy("ordered"))


class Dicing(Right):
    """Draws from the global generator."""

    def pick(self, budget: float) -> Vector:
        return super().pick(budget * (0.5 + 0.5 * float(torch.rand(()))))


class Noisy(Right):
    """Adds noise of its own generator to averages."""

    noise = torch.Generator().manual_seed(0)

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        merged = dict(super().aggregate(state, updates, channels))
        noise = torch.rand(merged["9.bias"].shape, generator=self.noise)
        return merged | {"9.bias": merged["9.bias"] + noise}


class Momentum(Right):
    """Remembers the last average."""

    last: State | None = None

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        merged = super().aggregate(state, updates, channels)
        last = self.last or merged
        self.last = merged
        return {n: torch.lerp(t, last[n], 0.5) if t.is_floating_point() else t
                for n, t in merged.items()}  # fmt: skip


class Made(StrategyContract):
    def __init__(self, kind: type[Strategy]) -> None:
        self.kind = kind

    def make(self, context: StrategyContext) -> Strategy:
        return self.kind(context)


class TestRight(StrategyContract):
    def make(self, context: StrategyContext) -> Strategy:
        return Right(context)


@pytest.mark.parametrize(
    ("kind", "test", "message"),
    [
        (Unsaid, "it_says_what_it_is", "expected a docstring"),
        (Cheap, "what_is_picked_can_be_trained_and_costs_what_it_says", "to cost their MACs"),
        (Counting, "plans_follow_from_their_arguments_alone", "expected (a plan|plans) to"),
        (Dicing, "plans_follow_from_their_arguments_alone", "expected (a plan|plans) to"),
        (Shared, "no_plan_shares_its_masks_with_another", "masks of its own for each plan"),
        (Unsent, "what_is_sent_holds_all_that_is_trained", "expected vectors within what is sent"),
        (Redrawn, "what_is_sent_holds_all_that_is_trained", "masks that stay the same, or nested"),
        (InPlace, "updates_are_averaged_without_changing_them", "to leave its arguments alone"),
        (Noisy, "updates_are_averaged_without_changing_them", "the same average of the same"),
        (Idle, "updates_are_averaged_without_changing_them", "to change something"),
        (OwnSteps, "devices_train_by_the_optimiser_of_the_run", "a pull to the global state"),
        (Dicing, "pytorchs_global_generator_is_left_alone", "no use of the global generator"),
        (Noisy, "a_run_repeats_itself", "expected the same figures again"),
        (Momentum, "a_run_goes_on_from_a_checkpoint", "expected a resumed run"),
    ],
)
def test_each_shipped_test_fails_where_a_strategy_is_wrong(
    kind: type[Strategy], test: str, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        getattr(Made(kind), f"test_{test}")()


def test_averages_of_the_output_layer_alone_are_asked_for() -> None:
    with pytest.raises(KeyError, match=r"0\.weight"):
        Made(Whole).test_the_output_layer_can_be_averaged_by_itself()

"""Schedules of learning rates: against PyTorch's schedulers, and through whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
    StepLR,
)

from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.errors import InputError
from distreal_dse.study.preparation import prepare
from fl.engine import FederatedRun
from fl.schedules import make_schedule
from fl.server_optimizers import ServerOptimizer, make_server_optimizer
from fl.settings import RunSettings
from fl.strategies import StrategyContext, make_strategy

ROUNDS = 12
SETTINGS = RunSettings(rounds=2, devices=4, cohort=2)


def warmed(optimizer: SGD, decay: Callable[[SGD], LRScheduler], rounds: int = 4) -> LRScheduler:
    warmup = LinearLR(optimizer, start_factor=1 / (rounds + 1), total_iters=rounds)
    return SequentialLR(optimizer, [warmup, decay(optimizer)], milestones=[rounds])


@pytest.mark.parametrize(
    ("text", "oracle"),
    [
        ("constant", lambda o: StepLR(o, ROUNDS)),
        ("constant:warmup=4", lambda o: LinearLR(o, start_factor=1 / 5, total_iters=4)),
        ("cosine", lambda o: CosineAnnealingLR(o, ROUNDS)),
        ("cosine:end=0.1", lambda o: CosineAnnealingLR(o, ROUNDS, eta_min=0.1 * 0.3)),
        (
            "cosine:end=0.1,warmup=4",
            lambda o: warmed(o, lambda o: CosineAnnealingLR(o, ROUNDS - 4, eta_min=0.1 * 0.3)),
        ),
        ("step:every=3", lambda o: StepLR(o, 3, gamma=0.1)),
        ("step:every=3:factor=0.5", lambda o: StepLR(o, 3, gamma=0.5)),
        (
            "step:every=3,factor=0.5,warmup=4",
            lambda o: warmed(o, lambda o: StepLR(o, 3, gamma=0.5)),
        ),
        ("step:at=2/7,factor=0.5", lambda o: MultiStepLR(o, [2, 7], gamma=0.5)),
        (  # rounds given by hand are those of the run
            "step:at=5/7,factor=0.5,warmup=4",
            lambda o: ChainedScheduler(
                [LinearLR(o, start_factor=1 / 5, total_iters=4), MultiStepLR(o, [5, 7], gamma=0.5)]
            ),
        ),
        ("exponential:factor=0.8", lambda o: ExponentialLR(o, 0.8)),
        (
            "exponential:factor=0.8,warmup=4",
            lambda o: warmed(o, lambda o: ExponentialLR(o, 0.8)),
        ),
    ],
)
def test_rates_are_those_of_pytorchs_schedulers(
    text: str, oracle: Callable[[SGD], LRScheduler]
) -> None:
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=0.3)
    scheduler = oracle(optimizer)
    schedule = make_schedule(text)
    for number in range(1, ROUNDS + 1):
        expected = optimizer.param_groups[0]["lr"]
        assert 0.3 * schedule.of_round(number, ROUNDS) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        scheduler.step()


TEXTS = st.sampled_from(
    ["constant", "cosine", "cosine:end=0.5", "step:every=2", "step:at=7", "exponential:factor=0.9"]
)


@given(TEXTS, st.integers(0, 6), st.integers(7, 20), st.floats(0, 1, exclude_max=True))
def test_rates_rise_to_the_full_one_and_never_rise_again(
    text: str, warmup: int, rounds: int, spent: float
) -> None:
    schedule = make_schedule(f"{text}{',' if ':' in text else ':'}warmup={warmup}")
    factors = [schedule.of_round(number, rounds, spent) for number in range(1, rounds + 1)]
    # A cosine that begins a round in the last instant of its time rounds to 0.
    assert all(0 < factor <= 1 or (factor == 0 and spent > 0.999999) for factor in factors)
    assert all(a < b for a, b in zip(factors[:warmup], factors[1:warmup], strict=False))
    assert all(a >= b for a, b in zip(factors[warmup:], factors[warmup + 1 :], strict=False))
    if spent == 0:
        assert factors[warmup] == 1


def test_a_cosine_follows_the_virtual_time_where_that_ends_the_run() -> None:
    factor = make_schedule("cosine:end=0.2").over(rounds=300, until=8.0)
    # Half and three quarters of the time: (1 + cos 90°) / 2 and (1 + cos 135°) / 2.
    assert factor(1, 0.0) == 1
    assert factor(5, Fraction(4)) == pytest.approx(0.2 + 0.8 * 0.5)
    assert factor(9, 6.0) == pytest.approx(0.2 + 0.8 * (1 - 0.5**0.5) / 2)
    # Where rounds are further on, they count.
    assert factor(151, 1.0) == pytest.approx(0.2 + 0.8 * 0.5)
    stepping = make_schedule("step:every=3").over(rounds=300, until=8.0)
    assert stepping(3, 7.9) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "schedule 'cosin': expected one of constant, .*; did you mean cosine"),
        (
            "cosine:warmpu=3",
            "end, warmup of 'cosine', found 'warmpu'; did you mean warmup",
        ),
        ("cosine:end=1.5", "end of a schedule: expected 0 to 1, found 1.5"),
        ("cosine:end=nan", "end of a schedule: expected 0 to 1, found nan"),
        ("cosine:end=low", "schedule 'cosine:end=low': end: expected a number, found 'low'"),
        ("cosine:warmup=-1", "warmup of a schedule: expected 0 rounds or more, found -1"),
        ("cosine:warmup=0.5", "warmup: expected a whole number, found '0.5'"),
        ("step", "schedule step: expected either every=ROUNDS, .* found none"),
        ("step:every=3,at=3", "schedule step: expected either .* found both"),
        ("step:every=0", "every of a schedule: expected 1 round or more, found 0"),
        ("step:every=3,factor=0", "factor of a schedule: expected above 0, at most 1, found 0"),
        ("step:at=5/3", "expected rounds behind the warmup that rise, .* found 5/3"),
        ("step:at=0", "at of a schedule: .* found 0"),
        ("step:at=5,warmup=5", "at of a schedule: expected rounds behind the warmup .* found 5"),
        ("step:at=a", "at: expected a whole number, found 'a'"),
        ("step:at=10/20:factor=x", "schedule 'step:at=10/20:factor=x': factor: expected a number"),
        ("exponential", "write exponential:factor=VALUE"),
        ("exponential:factor=1.1", "factor of a schedule: expected above 0, at most 1, found 1.1"),
    ],
)
def test_schedules_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        make_schedule(text)
    assert "\n" not in str(refused.value)


def begin(
    study: Study,
    data: Data,
    strategy: str = "fedavg",
    settings: RunSettings = SETTINGS,
    server: ServerOptimizer | None = None,
) -> FederatedRun:
    network = prepare(study, 0)[0]
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, macs.full / 4, study)
    made = make_strategy(strategy, context)
    return FederatedRun(study, data, network, made, None, settings, server)


def trained(run: FederatedRun) -> dict[str, Tensor]:
    list(run.rounds())
    return run.network.copy_state()


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("strategy", ["fedavg", "small", "heterofl", "distreal-uniform", "nested"])
def test_each_round_is_trained_at_its_own_rate(study: Study, data: Data, strategy: str) -> None:
    """A step after the first round is a second run at that rate from where the first came to."""
    first = begin(study, data, f"{strategy}:lr=0.2", replace(SETTINGS, rounds=1))
    second = begin(study, data, f"{strategy}:lr=0.05")
    list(first.rounds())
    second.resume(first.checkpoint())
    expected = trained(second)
    found = begin(study, data, f"{strategy}:lr=0.2,schedule=step:at=1:factor=0.25")
    assert_equal(trained(found), expected)
    of_run = replace(SETTINGS, schedule=make_schedule("step:at=1,factor=0.25"))
    assert_equal(trained(begin(study, data, f"{strategy}:lr=0.2", of_run)), expected)


def test_the_schedule_of_a_strategy_comes_before_that_of_the_run(study: Study, data: Data) -> None:
    falling = replace(SETTINGS, schedule=make_schedule("exponential:factor=0.1"))
    constant = trained(begin(study, data, "fedavg"))
    assert_equal(trained(begin(study, data, "fedavg:schedule=constant", falling)), constant)
    other = trained(begin(study, data, "fedavg", falling))
    assert not all(torch.equal(other[name], constant[name]) for name in other)


def test_the_rate_of_the_study_is_scheduled_too(study: Study, data: Data) -> None:
    own = trained(begin(study, data, "fedavg:schedule=exponential:factor=0.5"))
    # The study says nothing of its optimiser, so it is SGD with 0.05.
    given = trained(begin(study, data, "fedavg:lr=0.05,schedule=exponential:factor=0.5"))
    assert_equal(own, given)


def test_the_servers_step_falls_as_its_schedule_says(study: Study, data: Data) -> None:
    merged = begin(study, data, settings=replace(SETTINGS, rounds=2))
    states = []
    for result in merged.rounds():
        states.append(merged.network.copy_state())
        assert result.rejected == 0
    text = "momentum:lr=1,beta=0,schedule=step:at=1:factor=0.25"
    found = trained(begin(study, data, server=make_server_optimizer(text)))
    _, first, second = states
    for name, value in found.items():
        learned = value.is_floating_point() and "running" not in name
        expected = first[name] - 0.25 * (first[name] - second[name]) if learned else second[name]
        # A step of 1 is what was merged but for rounding, and the second round trains on.
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
        if learned and name.endswith("weight"):
            assert not torch.allclose(value, second[name], rtol=1e-4, atol=1e-5)


def test_devices_and_server_fall_with_the_virtual_time(study: Study, data: Data) -> None:
    first = begin(study, data, "fedavg:lr=0.2", replace(SETTINGS, rounds=1))
    list(first.rounds())
    checkpoint = first.checkpoint()
    until = 1.5 * checkpoint.virtual_seconds  # so two thirds of the time are over
    timed = replace(SETTINGS, rounds=300, until=until)
    factor = (1 + math.cos(math.pi * 2 / 3)) / 2

    def second_round(strategy: str, server: str) -> dict[str, Tensor]:
        run = begin(study, data, strategy, timed, make_server_optimizer(server))
        run.resume(checkpoint)
        next(run.rounds())
        return run.network.copy_state()

    found = second_round("fedavg:lr=0.2,schedule=cosine", "replace")
    expected = second_round(f"fedavg:lr={0.2 * factor!r}", "replace")
    steps = (
        second_round("fedavg:lr=0.2", f"momentum:beta=0,{text}")
        for text in ("lr=1,schedule=cosine", f"lr={factor!r}")
    )
    for one, other in ((found, expected), tuple(steps)):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "server"),
    [
        ("fedavg:schedule=cosine:warmup=2", "replace"),
        ("fedavg", "momentum:schedule=constant:warmup=2"),
    ],
)
def test_a_run_that_would_end_within_its_warmup_is_refused(
    study: Study, data: Data, strategy: str, server: str
) -> None:
    with pytest.raises(InputError, match="expected less than the 2 rounds of the run, found 2"):
        begin(study, data, strategy, SETTINGS, make_server_optimizer(server))


def test_settings_refuse_a_warmup_that_takes_all_rounds() -> None:
    with pytest.raises(InputError, match="expected less than the 2 rounds of the run, found 3"):
        replace(SETTINGS, schedule=make_schedule("constant:warmup=3"))

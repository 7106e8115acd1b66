from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, pstdev

import psutil
import pytest
import torch
from torch import nn

from distreal_dse import Study
from distreal_dse.cost import LatencySamples, StepTimer
from distreal_dse.dropout import DropoutTrainer, KeptCounts, make_policy
from distreal_dse.errors import InputError
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator
from fl.live import CpuLoad, LiveBudget, LoadMonitor
from fl.live.budget import OUTLIER, PAUSE_SECONDS

COSTS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass
class Steps:
    """Steps that were simulated: what was asked, chosen and taken at each."""

    budgets: list[float]
    costs: list[float]
    seconds: list[float]

    def keeping(self, slot: float, first: int, last: int) -> float:
        """Share of the steps that kept to the slot, but for a hundredth."""
        taken = self.seconds[first:last]
        return sum(one <= 1.01 * slot for one in taken) / len(taken)


def simulated(
    slowdown: Callable[[int], float],
    steps: int,
    noise: float = 0.0,
    outliers: float = 0.0,
    building: float = 1.0,
    seed: int = 0,
) -> Steps:
    """A device on which step k takes cost × slowdown(k), and the first of each vector longer.

    ``noise`` is the standard deviation of the logarithm of times; ``outliers`` the share of steps
    that take 3 to 10 times as long.
    """
    draw, live, built = random.Random(seed), LiveBudget(1.0, 1.0, 1.0), set()
    found = Steps([], [], [])
    for step in range(steps):
        budget = live.budget()
        cost = max((one for one in COSTS if one <= budget), default=COSTS[0])
        seconds = cost * slowdown(step) * math.exp(draw.gauss(0, noise))
        if draw.random() < outliers:
            seconds *= draw.uniform(3, 10)
        if cost not in built:
            seconds *= building
            built.add(cost)
        live.observe(cost, seconds)
        found.budgets.append(budget)
        found.costs.append(cost)
        found.seconds.append(seconds)
    return found


def between(first: int, last: int, slowdown: float) -> Callable[[int], float]:
    """A load from one step up to another."""
    return lambda step: slowdown if first <= step < last else 1.0


def test_the_budget_is_the_slot_at_the_speed_that_was_measured() -> None:
    live = LiveBudget(reference_cost=4e6, reference_seconds=0.2, slot_seconds=0.1)
    assert 0.85 * 2e6 < live.budget() < 2e6  # room for noise that was not seen yet
    for _ in range(40):
        live.observe(1e6, 0.05)
    assert live.budget() == pytest.approx(2e6, rel=1e-3)
    assert live.predict(1e6) == pytest.approx(0.05)
    assert live.slowdown == pytest.approx(1)


def test_there_is_no_budget_above_the_full_network() -> None:
    live = LiveBudget(1.0, 1.0, slot_seconds=10.0)
    assert live.budget() == 1.0
    for _ in range(40):
        live.observe(1.0, 0.1)
    assert live.budget() == 1.0


@pytest.mark.parametrize("slowdown", [1.3, 2.0, 5.0])
def test_a_load_is_followed_within_a_few_steps_and_without_overshoot(slowdown: float) -> None:
    found = simulated(between(40, 80, slowdown), 130)
    right = 1 / slowdown
    assert all(abs(budget - right) < 0.25 * right for budget in found.budgets[45:80])
    assert all(abs(budget - right) < 0.01 * right for budget in found.budgets[70:80])
    assert min(found.budgets[40:80]) > 0.75 * right
    assert all(budget > 0.75 for budget in found.budgets[85:])
    assert found.budgets[-1] > 0.99
    assert found.keeping(1.0, 46, 80) == 1


def test_a_steady_device_is_not_asked_to_change_its_vector() -> None:
    for noise in (0, 0.05):
        found = simulated(lambda step: 2.25, 200, noise)  # a budget of 0.44, and less for noise
        assert set(found.costs[20:]) == {0.4}


@pytest.mark.parametrize(("noise", "keeping"), [(0.05, 0.95), (0.2, 0.85), (0.5, 0.7)])
def test_most_steps_keep_to_the_slot_whatever_the_noise(noise: float, keeping: float) -> None:
    for seed in range(5):
        found = simulated(lambda step: 2.5, 400, noise, seed=seed)
        assert found.keeping(1.0, 20, 400) >= keeping
        # No more than that takes: on average more than half of the slot is used.
        assert sum(found.seconds[20:]) / 380 > 0.5
        # The budget is steadier than the steps that it comes from.
        assert pstdev(math.log(budget) for budget in found.budgets[20:]) < 0.7 * noise


def test_a_hiccup_hardly_changes_the_budget() -> None:
    live = LiveBudget(1.0, 1.0, 1.0)
    for _ in range(40):
        live.observe(0.5, 0.5)
    for seconds in (50.0, 0.5, 0.001, 0.5, 50.0):  # each alone, or to the other side
        live.observe(0.5, seconds)
        assert live.budget() > 0.75
    assert 1 / OUTLIER < live.slowdown < OUTLIER


def test_noise_and_hiccups_leave_the_budget_where_it_belongs() -> None:
    for seed in range(5):
        found = simulated(between(100, 300, 2.0), 400, 0.1, 0.05, seed=seed)
        assert 0.35 < median(found.budgets[110:300]) <= 0.5
        assert median(found.budgets[310:]) > 0.7
        assert found.keeping(1.0, 110, 300) > 0.8


def test_the_time_to_build_a_sub_network_is_no_load() -> None:
    found = simulated(lambda step: 1.0, 60, building=20.0)
    assert min(found.budgets) > 0.5
    assert found.budgets[-1] > 0.95
    under_load = simulated(between(30, 60, 3.0), 90, building=20.0)
    assert 0.3 < under_load.budgets[59] < 0.34
    assert under_load.budgets[-1] > 0.95


class Told(LoadMonitor):
    """A load that a test sets, and seconds that it lets pass."""

    def __init__(self) -> None:
        self.load, self.now, self.waited = 1.0, 1000.0, 0.0

    def slowdown(self, interval: float = 0.0) -> float:
        self.waited += interval
        self.now += interval
        return self.load

    def clock(self) -> float:
        return self.now


def test_the_first_budget_follows_the_load_that_is_seen() -> None:
    told = Told()
    told.load = 3.0
    live = LiveBudget(1.0, 1.0, 1.0, told, told.clock)
    assert live.budget() == pytest.approx(1 / 3, rel=0.15)
    waited = told.waited
    assert waited > 0
    live.budget()
    live.observe(0.3, 0.9)
    live.budget()
    assert told.waited == waited  # while steps are taken, nobody waits


def test_a_load_that_changed_in_a_pause_is_seen_before_the_next_step() -> None:
    told = Told()
    live = LiveBudget(1.0, 1.0, 1.0, told, told.clock)
    live.budget()
    for _ in range(30):  # the device is half as fast as was measured, whatever the load
        told.now += 1
        live.observe(0.3, 0.6)
    assert live.budget() == pytest.approx(1 / 2, rel=0.01)
    told.load = 2.0
    told.now += PAUSE_SECONDS + 1
    assert live.budget() == pytest.approx(1 / 4, rel=0.01)


def test_a_load_that_steps_have_shown_is_not_counted_twice() -> None:
    told = Told()
    live = LiveBudget(1.0, 1.0, 1.0, told, told.clock)
    live.budget()
    told.load = 2.0
    for _ in range(30):
        told.now += 1
        live.observe(0.3, 0.6)
    assert live.budget() == pytest.approx(1 / 2, rel=0.01)
    told.now += PAUSE_SECONDS + 1
    assert live.budget() == pytest.approx(1 / 2, rel=0.01)
    told.load = 1.0
    told.now += PAUSE_SECONDS + 1
    assert live.budget() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_impossible_numbers_are_refused(bad: float) -> None:
    for name, values in (
        ("reference cost", (bad, 1.0, 1.0)),
        ("reference seconds", (1.0, bad, 1.0)),
        ("slot", (1.0, 1.0, bad)),
    ):
        with pytest.raises(InputError, match=f"{name} of the live budget: expected above 0"):
            LiveBudget(*values)
    live = LiveBudget(1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="cost of a measured step: expected above 0"):
        live.observe(bad, 1.0)
    with pytest.raises(InputError, match="seconds of a measured step: expected above 0"):
        live.observe(1.0, bad)
    assert live.slowdown == 1


@pytest.mark.parametrize(
    ("cores", "threads", "others", "slowdown"),
    [
        (2, 1, 0.0, 1.0),
        (2, 1, 1.0, 1.0),  # one core each
        (2, 1, 2.0, 1.5),  # three share two cores
        (2, 2, 1.0, 1.5),
        (1, 1, 1.0, 2.0),
        (1, 1, 0.4, 1.4),
        (8, 4, 3.5, 1.0),
        (1, 4, 0.0, 1.0),  # four threads on one core are what was measured
    ],
)
def test_work_that_wants_more_than_the_cores_shares_them(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, others: float, slowdown: float
) -> None:
    load = CpuLoad(threads)
    monkeypatch.setattr(load, "cores", lambda: list(range(cores)))
    monkeypatch.setattr(load, "others", lambda interval=0.0: others)
    assert load.slowdown() == pytest.approx(slowdown)


needs_pinning = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system can't pin processes to a core"
)


@contextmanager
def on_one_core() -> Iterator[int]:
    """Keep this process to the core that is least busy now, with one thread."""
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    busy = psutil.cpu_percent(interval=0.2, percpu=True)
    core = min(allowed, key=lambda one: busy[one])
    try:
        os.sched_setaffinity(0, {core})
        torch.set_num_threads(1)
        yield core
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


@contextmanager
def busy(core: int, processes: int, seconds: float) -> Iterator[None]:
    """Keep a core busy; the processes end by themselves, whatever becomes of the test."""
    code = (
        f"import os, time; os.sched_setaffinity(0, {{{core}}}); print(flush=True)\n"
        f"end = time.monotonic() + {seconds}\n"
        "while time.monotonic() < end: pass"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it is at work now
        yield
    finally:
        for process in started:
            process.terminate()
            process.communicate()


@needs_pinning
@pytest.mark.alone
def test_other_programs_are_seen() -> None:
    with on_one_core() as core:
        load = CpuLoad()
        assert load.cores() == [core]
        before = load.others(0.4)
        with busy(core, 1, seconds=3):
            during = load.others(0.4)
        assert during > 0.8 * max(0.5, before)
        # Its own work is not another's: what is left of it is what others did meanwhile.
        load.others()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        assert load.others() < max(0.5, 1.2 * before)


@needs_pinning
@pytest.mark.alone
def test_real_steps_keep_to_their_slot_under_real_load(
    make_cnn: Callable[..., nn.Module], study: Study
) -> None:
    """Two other processes on the same core leave about a third of it: budgets fall, and recover."""
    study = Study(model=lambda: make_cnn(width=48), data=study.data, batch_size=96, name="busy")
    network = prepare(study, seed=0)[0]
    vectors = [(48, 96), (36, 72), (24, 48), (16, 32), (12, 24), (8, 16), (4, 8)]
    inputs, targets = torch.randn(96, 1, 16, 16), torch.randint(3, (96,))
    with on_one_core() as core:
        samples = LatencySamples(network.full_counts)
        StepTimer(study, network, (1, 16, 16), study.batch_size).measure(vectors, 5, samples)
        latencies = samples.latencies(vectors)
        table = sorted((cost, counts) for counts, cost in latencies.costs().items())
        full = latencies.full.median
        slot = 0.8 * full
        live = LiveBudget(full, full, slot, CpuLoad())
        trainer = DropoutTrainer(
            network,
            study.optimizer(network.module.parameters()),
            study.loss,
            make_policy("random"),
            generator(0, "masks"),
        )

        def train(seconds: float) -> tuple[float, float, float]:
            """Medians of budgets, of steps over the slot, and of the full network over the slot."""
            budgets, over_slot, full_over_slot = [], [], []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                budget = live.budget()
                cost, counts = fitting(table, budget)
                start = time.perf_counter()
                trainer.step(inputs, targets, counts)
                taken = time.perf_counter() - start
                live.observe(cost, taken)
                budgets.append(budget)
                over_slot.append(taken / slot)
                full_over_slot.append(taken / cost * full / slot)
            settled = slice(len(budgets) // 3, None)
            return (
                median(budgets[settled]),
                median(over_slot[settled]),
                median(full_over_slot[settled]),
            )

        idle_budget, idle_steps, _ = train(1.0)
        with busy(core, 2, seconds=5):
            loaded_budget, loaded_steps, loaded_full = train(2.5)
        recovered_budget, recovered_steps, _ = train(1.0)
    # A third of the core is expected; as long as others are at work too, bounds are wide.
    assert loaded_budget < 0.75 * idle_budget
    assert recovered_budget > 1.3 * loaded_budget
    assert idle_steps < 1.4 and recovered_steps < 1.4
    # Who trained the full network nevertheless would miss the slot by far.
    assert loaded_steps < 1.4
    assert loaded_full > 1.5 * loaded_steps


def fitting(table: list[tuple[float, KeptCounts]], budget: float) -> tuple[float, KeptCounts]:
    return max((one for one in table if one[0] <= budget), default=table[0])

import math
from dataclasses import replace
from fractions import Fraction

import pytest

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front
from fl.world.availability import RedrawnAvailability, Timeline
from fl.world.clock import Clock, make_clock
from fl.world.devices import Device
from fl.world.exact import BITS, Seconds

# 4 MMACs per sample · 32 samples at 1 GMAC/s = 0.128 s.
CLOCK = Clock(reference_cost=4e6, full_seconds=0.128, batch_size=32)


@pytest.mark.parametrize(
    ("cost", "capacity", "samples", "seconds"),
    [
        (4e6, 1.0, 32, 0.128),  # the full network in its slot
        (1e6, 0.25, 32, 0.128),  # a quarter of the cost at a quarter of the capacity
        (1e6, 1.0, 32, 0.032),  # a quarter of the cost is done early
        (2e6, 0.25, 32, 0.256),  # twice what fits runs over
        (4e6, 2.0, 32, 0.064),  # a device twice as fast
        (4e6, 1.0, 8, 0.032),  # a quarter of the samples
    ],
)
def test_mini_batches_take_what_their_sub_network_costs(
    cost: float, capacity: float, samples: int, seconds: float
) -> None:
    assert CLOCK.seconds(cost, capacity, samples) == pytest.approx(seconds, rel=1e-12)


def test_the_budget_is_what_a_device_finishes_within_a_slot() -> None:
    assert CLOCK.budget(1.0) == 4e6
    assert CLOCK.budget(0.25) == 1e6
    assert CLOCK.budget(3.0) == 4e6  # there is nothing above the full network to spend it on
    assert CLOCK.seconds(CLOCK.budget(0.3), 0.3, 32) == pytest.approx(CLOCK.slot)


def test_slot_of_a_front_in_macs_is_a_mini_batch_of_macs(
    network: DroppableNetwork, front: Front
) -> None:
    # Training MACs by hand, 4×4 inputs, first layer without the gradient of its input:
    # conv 2·16·9·8, conv after pooling 3·4·9·8·16, linear 3·16·3.
    macs = 2 * 16 * 9 * 8 + 3 * 4 * 9 * 8 * 16 + 3 * 16 * 3
    clock = make_clock(front, MacCost(network.channels), batch_size=8)
    assert clock.reference_cost == macs
    assert clock.slot == pytest.approx(macs * 8 / 1e9)
    assert make_clock(None, MacCost(network.channels), batch_size=8) == clock


def test_slot_of_a_front_in_latency_is_the_measured_mini_batch(
    network: DroppableNetwork, front: Front
) -> None:
    points = tuple(
        replace(point, cost=cost)
        for point, cost in zip(front.points, (0.05, 0.1, 0.2), strict=True)
    )
    latency = replace(front, cost_metric="latency", reference_cost=0.2, points=points)
    clock = make_clock(latency, MacCost(network.channels), batch_size=8)
    assert clock.slot == 0.2
    assert clock.seconds(0.05, 0.5, 8) == pytest.approx(0.1)
    assert clock.budget(0.25) == pytest.approx(0.05)


def test_latencies_of_other_mini_batches_are_refused(
    network: DroppableNetwork, front: Front
) -> None:
    latency = replace(front, cost_metric="latency", settings={"batch size": 64})
    macs = MacCost(network.channels)
    with pytest.raises(FrontError, match="mini-batches of 64 samples: expected 8.*reprice"):
        make_clock(latency, macs, batch_size=8)
    assert make_clock(latency, macs, batch_size=64).batch_size == 64
    # MACs are per sample: they hold for any batch size.
    in_macs = replace(front, settings={"batch size": 64})
    assert make_clock(in_macs, macs, batch_size=8).batch_size == 8


class Steps(Timeline):
    """Shares that change at given times; the last one stays."""

    def __init__(self, *pieces: tuple[float, float]) -> None:
        self._pieces = pieces  # share, until when

    def at(self, seconds: float) -> tuple[float, float]:
        return next(piece for piece in self._pieces if seconds < piece[1])


@pytest.mark.parametrize(
    ("pieces", "start", "end"),
    [
        ([(0.5, math.inf)], 1.0, 1.256),
        # 0.064 s at full share do half of the work, the rest takes twice as long at half of it.
        ([(1.0, 1.064), (0.5, math.inf)], 1.0, 1.192),
        ([(1.0, 0.5), (0.25, 1.2), (1.0, math.inf)], 1.0, 1.2 + 0.128 - 0.05),
        ([(0.5, 1.1), (0.0, 3.0), (1.0, math.inf)], 1.0, 3.0 + 0.128 - 0.05),
        ([(0.5, 1.1), (0.0, math.inf)], 1.0, math.inf),
    ],
)
def test_changes_during_a_mini_batch_count_from_when_they_happen(
    pieces: list[tuple[float, float]], start: float, end: float
) -> None:
    assert CLOCK.end(start, 4e6, 32, 1.0, Steps(*pieces)) == pytest.approx(end, rel=1e-12)
    # A device half as fast with half of the cost.
    assert CLOCK.end(start, 2e6, 32, 0.5, Steps(*pieces)) == pytest.approx(end, rel=1e-12)


def test_times_with_random_shares_stay_short_numbers_and_right() -> None:
    timeline = RedrawnAvailability().timeline(Device(0, "weak", 0.7), 1, 0.0, CLOCK.slots(1), 0)
    end: Seconds = 0.0
    for _ in range(200):
        end = CLOCK.end(end, 1.23e6, 32, 0.7, timeline)
        assert isinstance(end, Fraction) and end.denominator.bit_length() <= BITS + 1
    worked, now = 0.0, Fraction(0)  # seconds with everything free
    while now < end:
        share, until = timeline.at(now)
        worked += share * float(min(until, end) - now)
        now = Fraction(until)
    assert worked == pytest.approx(200 * float(CLOCK.seconds(1.23e6, 0.7, 32)), rel=1e-9)


def test_a_longer_slot_allows_more() -> None:
    slow = replace(CLOCK, pace=2.0)
    assert slow.slot == 0.256
    assert slow.budget(0.25) == 2e6
    assert slow.budget(0.6) == 4e6
    assert slow.seconds(4e6, 1.0, 32) == pytest.approx(0.128)  # the work is the same

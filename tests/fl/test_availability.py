from collections import Counter
from itertools import pairwise
from math import sqrt

import pytest

from distreal_dse.errors import InputError
from fl.availability import Availability, ConstantAvailability, MarkovAvailability
from fl.devices import Device

DEVICES = [Device(index, "strong", 1.0) for index in range(5)]


def shares(
    source: Availability, device: Device, round_number: int, count: int, seed: int = 3
) -> list[float]:
    """In the middle of each of the first slots of two seconds, from the 100th second on."""
    timeline = source.timeline(device, round_number, start=100.0, slot=2.0, seed=seed)
    return [timeline.at(101.0 + 2 * step)[0] for step in range(count)]


@pytest.mark.parametrize(
    "source",
    [ConstantAvailability(0.5), MarkovAvailability(), MarkovAvailability((0.1,), stay=0.0)],
    ids=repr,
)
class TestEveryAvailability:
    def test_shares_lie_above_0_and_up_to_1(self, source: Availability) -> None:
        assert all(0 < share <= 1 for share in shares(source, DEVICES[0], 1, 100))

    def test_a_device_sees_the_same_whoever_else_is_asked(self, source: Availability) -> None:
        alone = shares(source, DEVICES[2], 4, 50)
        at_once = [source.timeline(device, 4, 100.0, 2.0, seed=3) for device in DEVICES]
        together = [[one.at(101.0 + 2 * step)[0] for one in at_once] for step in range(50)]
        assert [step[2] for step in together] == alone

    def test_a_share_does_not_depend_on_what_was_asked_before(self, source: Availability) -> None:
        asked_once = source.timeline(DEVICES[1], 4, 100.0, 2.0, seed=3)
        last = asked_once.at(149.0)
        assert shares(source, DEVICES[1], 4, 25)[-1] == last[0]
        assert [asked_once.at(101.0 + 2 * i)[0] for i in range(25)] == shares(
            source, DEVICES[1], 4, 25
        )

    def test_pieces_end_after_the_time_that_was_asked_for(self, source: Availability) -> None:
        timeline = source.timeline(DEVICES[0], 1, start=0.1, slot=0.1, seed=3)
        now = 0.1
        for _ in range(1000):
            share, until = timeline.at(now)
            assert until > now
            assert timeline.at((now + min(until, now + 1)) / 2) == (share, until)
            if until == float("inf"):
                break
            now = until

    def test_the_mean_share_is_that_of_the_timelines(self, source: Availability) -> None:
        found = [share for n in range(300) for share in shares(source, DEVICES[0], n, 3)]
        assert source.mean_share() == pytest.approx(sum(found) / len(found), rel=0.1)


def test_markov_differs_by_device_round_and_seed() -> None:
    source = MarkovAvailability()
    base = shares(source, DEVICES[0], 1, 60)
    assert shares(source, DEVICES[1], 1, 60) != base
    assert shares(source, DEVICES[0], 2, 60) != base
    assert shares(source, DEVICES[0], 1, 60, seed=4) != base


def test_markov_starts_from_its_stationary_distribution() -> None:
    source, rounds = MarkovAvailability(), 2000
    first = [shares(source, DEVICES[0], number, 4) for number in range(rounds)]
    four_sigma = 4 * sqrt(rounds * 0.25 * 0.75)
    for step in range(4):  # uniform at the start, and it stays so
        for level in source.levels:
            found = sum(chain[step] == level for chain in first)
            assert abs(found - rounds / 4) < four_sigma


@pytest.mark.parametrize("stay", [0.0, 0.8, 1.0])
def test_markov_keeps_its_level_as_often_as_said(stay: float) -> None:
    chain = shares(MarkovAvailability(stay=stay), DEVICES[0], 1, 3000)
    kept = sum(a == b for a, b in pairwise(chain)) / (len(chain) - 1)
    assert abs(kept - stay) <= 4 * sqrt(stay * (1 - stay) / len(chain))


def test_markov_moves_to_each_other_level_equally_often() -> None:
    source = MarkovAvailability(stay=0.0)
    moves = Counter(pairwise(shares(source, DEVICES[0], 1, 3001)))
    assert len(moves) == 12
    assert all(abs(found - 250) < 5 * sqrt(250) for found in moves.values())


def test_impossible_shares_are_refused() -> None:
    for levels in ((), (0.0, 1.0), (0.5, 1.5), (float("nan"),)):
        with pytest.raises(InputError, match="free shares"):
            MarkovAvailability(levels)
    with pytest.raises(InputError, match="period above 0 slots"):
        MarkovAvailability(period=0)
    with pytest.raises(InputError, match="stay"):
        MarkovAvailability(stay=1.2)
    with pytest.raises(InputError, match="free shares"):
        ConstantAvailability(0)

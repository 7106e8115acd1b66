from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from math import inf, sqrt
from pathlib import Path
from pickle import dumps, loads

import pytest

from distreal_dse.errors import InputError
from fl.world.availability import (
    Availability,
    ConstantAvailability,
    MarkovAvailability,
    RedrawnAvailability,
    TraceAvailability,
    make_availability,
)
from fl.world.clock import Clock
from fl.world.devices import Device

DEVICES = [Device(index, "strong", 1.0) for index in range(5)]
TRACE = """device,time,availability
a,0,0.5
a,7.1,0
b,0.3,1
a,19.7,0.9
b,2.2,0.25
b,3.4,0.25
a,30.1,0.1
b,7.7,0
"""


def trace(folder: Path, assign: str) -> Availability:
    path = folder / "trace.csv"
    path.write_text(TRACE)
    return make_availability(f"trace:{path},assign={assign}")


# A new kind of availability inherits the tests of its contract by a line here.
KINDS: dict[str, Callable[[Path], Availability]] = {
    "constant": lambda folder: ConstantAvailability(0.5),
    "redrawn": lambda folder: RedrawnAvailability(),
    "redrawn rarely": lambda folder: RedrawnAvailability(0.1, 0.9, period=13.7),
    "markov": lambda folder: MarkovAvailability(),
    "markov of one level": lambda folder: MarkovAvailability((0.1,), stay=0.0),
    "markov of short periods": lambda folder: MarkovAvailability(period=0.3),
    "trace": lambda folder: trace(folder, "order"),
    "trace, seeded": lambda folder: trace(folder, "seeded"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Availability:
    made: Availability = request.param(tmp_path)
    return made


def shares(
    source: Availability,
    device: Device,
    round_number: int,
    count: int,
    seed: int = 3,
    start: float = 100.0,
) -> list[float]:
    """In the middle of each of the first slots of two seconds, from ``start`` on."""
    timeline = source.timeline(device, round_number, start=start, slot=2.0, seed=seed)
    return [timeline.at(start + 1 + 2 * step)[0] for step in range(count)]


class TestEveryAvailability:
    def test_shares_lie_within_0_and_1(self, source: Availability) -> None:
        for device in DEVICES:
            assert all(0 <= share <= 1 for share in shares(source, device, 1, 100))

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
        # Tenths and thirds are no binary fractions: sums and quotients of them are rounded.
        for device, start, slot in ((DEVICES[0], 0.1, 0.1), (DEVICES[1], 1e6 / 3, 1 / 3)):
            timeline = source.timeline(device, 1, start=start, slot=slot, seed=3)
            now = start
            for _ in range(1000):
                share, until = timeline.at(now)
                assert until > now
                assert timeline.at((now + min(until, now + 1)) / 2) == (share, until)
                if until == inf:
                    break
                now = until

    def test_the_mean_share_is_that_of_the_timelines(self, source: Availability) -> None:
        found = [
            share
            for number in range(500)
            for device in (*DEVICES, Device(5, "weak", 0.2))
            for share in shares(source, device, number, 3, start=7.3 * number)
        ]
        assert source.mean_share() == pytest.approx(sum(found) / len(found), rel=0.1)
        assert 0 < source.mean_share() <= 1

    def test_every_mini_batch_ends_some_time(self, source: Availability) -> None:
        clock = Clock(reference_cost=1.0, full_seconds=2.0, batch_size=8)
        for device in DEVICES:
            timeline = source.timeline(device, 1, 5.0, 2.0, seed=3)
            assert 5.0 <= timeline.next_free(5.0) < inf
            assert timeline.at(timeline.next_free(5.0))[0] > 0
            assert 7.0 <= clock.end(5.0, 1.0, 8, 1.0, timeline) < inf

    def test_a_copy_in_another_process_says_the_same(self, source: Availability) -> None:
        copy = loads(dumps(source))
        assert copy == source
        assert shares(copy, DEVICES[3], 2, 20) == shares(source, DEVICES[3], 2, 20)

    def test_its_settings_are_plain_values(self, source: Availability) -> None:
        for value in asdict(source).values():  # type: ignore[call-overload]
            assert isinstance(value, str | float | int | tuple)


def test_redrawn_goes_on_from_round_to_round_and_differs_by_device_and_seed() -> None:
    source = RedrawnAvailability(period=3)
    base = shares(source, DEVICES[0], 1, 60)
    assert shares(source, DEVICES[0], 2, 60) == base
    assert shares(source, DEVICES[0], 9, 10, start=140.0) == base[20:30]
    assert shares(source, DEVICES[1], 1, 60) != base
    assert shares(source, DEVICES[0], 1, 60, seed=4) != base


def test_redrawn_keeps_a_share_for_a_period_and_draws_them_uniformly() -> None:
    source = RedrawnAvailability(0.2, 0.7, period=4)
    drawn = shares(source, DEVICES[0], 1, 8000, start=0.0)  # four slots a period
    assert all(len(set(drawn[i : i + 4])) == 1 for i in range(0, 8000, 4))
    found = drawn[::4]
    assert len(set(found)) == 2000
    for fifth in range(5):
        inside = sum(0.2 + fifth * 0.1 <= share < 0.3 + fifth * 0.1 for share in found)
        assert abs(inside - 400) < 4 * sqrt(2000 * 0.2 * 0.8)
    # Neighbours are independent: their correlation has standard deviation 1/√2000.
    centred = [share - 0.45 for share in found]
    correlation = sum(a * b for a, b in pairwise(centred)) / sum(a * a for a in centred)
    assert abs(correlation) < 4 / sqrt(2000)


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
    with pytest.raises(InputError, match="stay"):
        MarkovAvailability(stay=1.2)
    with pytest.raises(InputError, match="free shares"):
        ConstantAvailability(0)
    with pytest.raises(InputError, match="free shares"):
        RedrawnAvailability(low=0)
    with pytest.raises(InputError, match=r"low up to high, found 0\.6 and 0\.5"):
        RedrawnAvailability(0.6, 0.5)


@pytest.mark.parametrize("period", [0.0, -1.0, 1e-300, inf, float("nan")])
def test_periods_without_length_or_end_are_refused(period: float) -> None:
    for kind in (MarkovAvailability, RedrawnAvailability):
        with pytest.raises(InputError, match=r"period of 0\.001 slots or more"):
            kind(period=period)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("constant", ConstantAvailability()),
        ("constant:share=0.5", ConstantAvailability(0.5)),
        ("markov:stay=0.5,period=2", MarkovAvailability(stay=0.5, period=2)),
        ("redrawn", RedrawnAvailability()),
        ("redrawn:low=0.1,high=0.4,period=8", RedrawnAvailability(0.1, 0.4, 8)),
    ],
)
def test_availability_is_made_from_text(spec: str, expected: Availability) -> None:
    assert make_availability(spec) == expected


def test_traces_are_named_by_their_path(tmp_path: Path) -> None:
    path = tmp_path / "a,b=c.csv"
    path.write_text(TRACE)
    assert make_availability(f"trace:{path}") == TraceAvailability(str(path))
    seeded = make_availability(f"trace:{path},assign=seeded")
    assert seeded == TraceAvailability(str(path), "seeded")


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("magic", "availability 'magic': expected one of constant, redrawn, markov, trace:PATH"),
        ("constant:level=1", "expected the settings share of 'constant', found 'level'"),
        ("constant:share=half", "share: expected a number, found 'half'"),
        ("constant:share=2", r"free shares in \(0, 1\]"),
        ("redrawn:low", "expected NAME:SETTING=VALUE"),
        ("trace", "expected trace:PATH, the path of a CSV file"),
        ("trace:", "expected trace:PATH"),
        ("trace:x.csv,assign=alphabet", "expected one of order, seeded, found 'alphabet'"),
        ("trace:nowhere.csv", "nowhere.csv: expected a trace of free compute, found: No such file"),
    ],
)
def test_texts_that_make_no_availability_are_refused(spec: str, error: str) -> None:
    with pytest.raises(InputError, match=error) as refused:
        make_availability(spec)
    assert "\n" not in str(refused.value)

"""Prices of vectors that nobody timed, from what was timed beside a front."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from distreal_dse.cost import Latencies, LatencySamples, MacCost, StepTimer, VectorLatency
from distreal_dse.dropout import ChannelGroup, DroppableNetwork, KeptCounts, RandomMasks
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front, load_front
from distreal_dse.pricing import (
    ONE_RATE,
    MeasureSettings,
    SecondsPrices,
    Wanted,
    check_priced,
    one_rate_knots,
    one_rate_setting,
    reprice,
    seconds_of,
    subject_of_front,
    timeable,
)
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare_network
from pricing_examples import FULL, make_front
from timed_fronts import timed_front
from tiny_study import write_study

# The second convolution can't keep two or fewer filters.
PICKY = """
def refuse(layer, inputs, outputs):
    if outputs.shape[1] < 3:
        raise RuntimeError("too narrow")


def picky():
    network = model()
    network[4].register_forward_hook(refuse)
    return network


study = replace(study, model=picky)
"""


@pytest.fixture
def network(study: Path) -> DroppableNetwork:
    return prepare_network(StudySource(str(study)).load(), seed=0)[0]


@pytest.fixture
def macs(network: DroppableNetwork) -> MacCost:
    return MacCost(network.channels)


@pytest.fixture
def front(study: Path) -> Front:
    return make_front(study, {(1, 1): 0.1, (5, 3): 0.2, (6, 7): 0.3})


def test_knots_are_the_levels_of_the_papers_and_the_narrowest(network: DroppableNetwork) -> None:
    knots = one_rate_knots(network.groups, 1)
    assert knots[0] == (1, 1) and FULL not in knots
    assert {(3, 4), (2, 2), (1, 2), (5, 6), (4, 5), (5, 7)} <= {*knots}
    assert len({*knots}) == len(knots)
    wide = one_rate_knots([ChannelGroup("wide", 80, ("wide",))], 1)
    assert wide[0] == (1,)
    assert {*wide} == {(1,), *((5 * part,) for part in range(1, 16)), (16,), (32,), (48,), (64,)}
    coarse = one_rate_knots(network.groups, 4)
    assert coarse[0] == (4, 4) and {*coarse} <= {(4, 4), (4, 8), (6, 4)}


def test_what_was_timed_has_its_time(front: Front, macs: MacCost) -> None:
    prices = seconds_of(
        timed_front(
            front,
            cut={(1, 1): 0.5, (3, 4): 0.9, (6, 7): 1.2},
            alone={(1, 1): 0.2, (3, 4): 0.6},
            others={(5, 3): 0.7},
        ),
        macs,
    )
    for counts, ratio in {(1, 1): 0.5, (3, 4): 0.9, (6, 7): 1.2, (5, 3): 0.7, FULL: 1.0}.items():
        assert prices.cut.cost(counts) == pytest.approx(2.0 * ratio), counts
    for counts, ratio in {(1, 1): 0.2, (3, 4): 0.6, FULL: 1.0}.items():
        assert prices.alone.cost(counts) == pytest.approx(2.0 * ratio), counts
    assert prices.cut.full == prices.alone.full == 2.0
    assert prices.cut.one_rate == ((1, 1), (3, 4), (6, 7), FULL)
    assert prices.alone.one_rate == ((1, 1), (3, 4), FULL)


def test_all_else_lies_on_lines_of_one_rate_over_macs(front: Front, macs: MacCost) -> None:
    timed = timed_front(
        front,
        cut={(2, 2): 0.5, (3, 4): 0.9, (5, 6): 1.2},
        alone={(2, 2): 0.2, (3, 4): 0.6},
        others={(5, 3): 0.1},  # no knot, so it bends nothing
    )
    prices = seconds_of(timed, macs)

    def between(counts: KeptCounts, low: KeptCounts, high: KeptCounts) -> float:
        return (macs.training(counts) - macs.training(low)) / (
            macs.training(high) - macs.training(low)
        )

    for counts in ((2, 3), (3, 3), (4, 2)):
        way = between(counts, (2, 2), (3, 4))
        assert 0 < way < 1
        assert prices.cut.cost(counts) == pytest.approx(2 * (0.5 + way * 0.4)), counts
        assert prices.alone.cost(counts) == pytest.approx(2 * (0.2 + way * 0.4)), counts
    way = between((5, 7), (3, 4), FULL)
    assert prices.alone.cost((5, 7)) == pytest.approx(2 * (0.6 + way * 0.4))
    # Nothing is cut out of a step of the full network, so the line to it is not known.
    assert prices.cut.cost((6, 7)) == prices.cut.cost((5, 7)) == pytest.approx(2 * 1.2)
    assert prices.cut.cost((1, 1)) == pytest.approx(2 * 0.5)


def test_the_full_network_has_its_own_time(macs: MacCost) -> None:
    prices = SecondsPrices(macs, FULL, 2.0, {}, {(1, 1): 0.5, (3, 4): 2.5})
    assert prices.cost(FULL) == 2.0 and prices.cost((6, 7)) == 2.5


def test_prices_follow_from_the_front_alone(front: Front, macs: MacCost) -> None:
    timed = timed_front(front, cut={(1, 1): 0.5, (3, 4): 0.9}, alone={(1, 1): 0.2, (3, 4): 0.6})
    again = Front.from_content(json.loads(json.dumps(timed.content())))
    one, other = seconds_of(timed, macs), seconds_of(again, macs)
    for counts in [(a, b) for a in range(1, 7) for b in range(1, 9)]:
        assert one.cut.cost(counts) == other.cut.cost(counts)
        assert one.alone.cost(counts) == other.alone.cost(counts)


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(settings: dict[str, Any]) -> None:
        for part in path[:-1]:
            settings = settings[part]
        del settings[path[-1]]

    return change


def put(value: object, *path: Any) -> Callable[[dict[str, Any]], None]:
    def change(settings: Any) -> None:
        for part in path[:-1]:
            settings = settings[part]
        settings[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without("latency"), "none"),
        (without("latency", ONE_RATE), "none"),
        (put(3, "latency"), "none"),
        (put([[1, 1]], "latency", ONE_RATE, "cut"), "1"),
        (put([[1, 1], [6, 8]], "latency", ONE_RATE, "cut"), "1"),
        (put([[1, 1], [2, 9]], "latency", ONE_RATE, "cut"), r"something else \(\(2, 9\)\)"),
        (put([], "latency", ONE_RATE, "alone"), "0"),
        (put("much", "latency", ONE_RATE), "something else"),
        (put([1], "latency", ONE_RATE, "alone", 0, "counts"), "something else .*kept counts"),
        (put(-1.0, "latency", ONE_RATE, "alone", 0, "ratio", "median"), "something else .* s for"),
        (put("x", "latency", "vectors", 0, "ratio", "median"), "something else"),
    ],
)
def test_a_front_that_can_not_price_others_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], found: str, front: Front, macs: MacCost
) -> None:
    timed = timed_front(front, cut={(1, 1): 0.5, (3, 4): 0.9}, alone={(1, 1): 0.2, (3, 4): 0.6})
    check_priced(timed)
    settings = json.loads(json.dumps(timed.settings))
    change(settings)
    odd = replace(timed, settings=settings)
    for refuse in (lambda: check_priced(odd), lambda: seconds_of(odd, macs)):
        with pytest.raises(FrontError, match=f"found {found}.*front reprice tiny`$") as caught:
            refuse()
        assert "\n" not in str(caught.value)
    check_priced(replace(odd, cost_metric="macs"))


def measured_ratios(samples: LatencySamples, vectors: Sequence[KeptCounts], alone: bool) -> Any:
    return {one.counts: one.ratio.median for one in samples.latencies(vectors, alone).vectors}


def test_repricing_times_networks_of_one_rate_beside_the_points(
    study: Path, database: Engine, front: Front, macs: MacCost, network: DroppableNetwork
) -> None:
    subject = subject_of_front(front, Wanted(study=str(study)))
    made = reprice(subject, MeasureSettings(repetitions=3), database).front
    stored = load_front(database, made.label)
    knots = one_rate_knots(network.groups, 1)
    timed = stored.settings["latency"]
    assert [tuple(counts) for counts in timed[ONE_RATE]["cut"]] == [*knots]
    found = Latencies.from_json(timed)
    assert {*knots} <= {one.counts for one in found.vectors}
    alone = [VectorLatency.from_json(one) for one in timed[ONE_RATE]["alone"]]
    assert [one.counts for one in alone] == [*knots]
    assert all(one.repetitions == 3 for one in alone)
    prices = seconds_of(stored, macs)
    for point in stored.points:
        assert prices.cut.cost(point.kept_counts) == pytest.approx(point.cost)
    for one in alone:
        expected = one.ratio.median * stored.reference_cost
        assert prices.alone.cost(one.counts) == pytest.approx(expected)


def test_what_can_not_be_timed_is_no_knot(tmp_path: Path, database: Engine, front: Front) -> None:
    picky = write_study(tmp_path, "picky", PICKY)
    subject = subject_of_front(replace(front, points=front.points[1:]), Wanted(study=str(picky)))
    made = reprice(subject, MeasureSettings(repetitions=1), database).front
    knots = made.settings["latency"][ONE_RATE]["cut"]
    assert knots and all(second >= 3 for _, second in knots)
    check_priced(made)


def test_a_network_of_its_own_is_not_cut_out(study: Path) -> None:
    """Cutting a sub-network out calls the mask policy; a network of its own never does."""
    drawn: list[KeptCounts] = []
    source = StudySource(str(study)).load()
    network, shape = prepare_network(source, seed=0)

    class Watched(RandomMasks):
        def draw(self, widths: Any, counts: KeptCounts, generator: Any) -> Any:
            drawn.append(counts)
            time.sleep(0.02)
            return super().draw(widths, counts, generator)

    watched = replace(source, masks=Watched())
    samples = LatencySamples(network.full_counts)
    timer = StepTimer(watched, network, shape, 4)
    timer.measure([(3, 4)], 3, samples, alone=[(3, 4), (2, 2)])
    assert {*drawn} == {(3, 4)}
    assert samples.latencies([(3, 4)]).vectors[0].seconds.median > 0.02
    alone = samples.latencies([(3, 4), (2, 2), FULL], alone=True)
    assert [one.counts for one in alone.vectors] == [(3, 4), (2, 2), FULL]
    assert [one.repetitions for one in alone.vectors[:2]] == [3, 3]
    setting = one_rate_setting(samples, [(3, 4), (2, 2)])
    assert setting["alone"] == [one.as_json() for one in alone.vectors[:2]]
    assert timeable(timer, network.full_counts, [(3, 4)]) == ((3, 4),)

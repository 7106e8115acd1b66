from __future__ import annotations

import json
import random

import pytest

from distreal_dse.cost import (
    Latencies,
    LatencySamples,
    NoiseVerdict,
    Quartiles,
    VectorLatency,
    noise_verdict,
)

FULL, HALF, QUARTER, EIGHTH = (16, 8), (8, 4), (4, 2), (2, 1)


def vector(counts: tuple[int, ...], ratios: list[float]) -> VectorLatency:
    return VectorLatency(counts, Quartiles.of(ratios), Quartiles.of(ratios), len(ratios))


def test_quartiles_are_those_of_the_sample() -> None:
    assert Quartiles.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Quartiles(2.0, 3.0, 4.0)
    assert Quartiles.of([1.0, 2.0]) == Quartiles(1.25, 1.5, 1.75)
    assert Quartiles.of([7.0]) == Quartiles(7.0, 7.0, 7.0)


def test_a_machine_that_grows_slower_does_not_change_ratios() -> None:
    samples = LatencySamples(FULL)
    for slowness in (1.0, 1.0, 2.0, 5.0, 5.0):
        samples.add_full(0.1 * slowness)
        samples.add(HALF, 0.04 * slowness, 0.1 * slowness)
        samples.add(QUARTER, 0.01 * slowness, 0.1 * slowness)
    found = samples.latencies([QUARTER, HALF])
    quarter, half = found.vectors
    assert half.ratio.low == pytest.approx(0.4) == half.ratio.high
    assert quarter.ratio.median == pytest.approx(0.1)
    assert found.full.median == pytest.approx(0.2)
    # Seconds as they were timed show what the machine did.
    assert (half.seconds.low, half.seconds.high) == pytest.approx((0.04, 0.2))
    assert found.costs() == pytest.approx({QUARTER: 0.02, HALF: 0.08})


def test_one_disturbed_step_changes_nothing() -> None:
    samples = LatencySamples(FULL)
    for full, half in ((0.1, 0.05), (3.0, 0.05), (0.1, 0.05), (0.1, 4.0), (0.1, 0.05)):
        samples.add_full(full)
        samples.add(HALF, half, full)
    found = samples.latencies([HALF])
    assert found.cost(found.vectors[0]) == pytest.approx(0.05)


def test_the_full_network_is_the_unit() -> None:
    samples = LatencySamples(FULL)
    for seconds in (0.1, 0.2, 0.3):
        samples.add_full(seconds)
    (full,) = samples.latencies([FULL]).vectors
    assert full.ratio == Quartiles(1.0, 1.0, 1.0)
    assert full.seconds.median == pytest.approx(0.2)
    assert full.repetitions == len(samples) == 3


def test_what_was_never_timed_is_left_out() -> None:
    samples = LatencySamples(FULL)
    samples.add_full(0.1)
    samples.add(HALF, 0.05, 0.1)
    assert [one.counts for one in samples.latencies([QUARTER, HALF]).vectors] == [HALF]


def test_latencies_survive_json() -> None:
    found = Latencies(Quartiles(0.1, 0.2, 0.3), (vector(HALF, [0.4, 0.5]), vector(FULL, [1.0])))
    assert Latencies.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_neighbours_far_apart_can_be_ranked() -> None:
    verdict = noise_verdict(
        [
            vector(HALF, [0.49, 0.5, 0.51] * 2),
            vector(FULL, [1.0] * 6),
            vector(QUARTER, [0.19, 0.2, 0.21] * 2),
        ]
    )
    assert (verdict.pairs, verdict.too_close, verdict.warning) == (2, 0, "")


def test_neighbours_within_the_noise_are_counted_and_told_in_one_line() -> None:
    verdict = noise_verdict(
        [
            vector(HALF, [0.4, 0.5, 0.6] * 2),
            vector(QUARTER, [0.35, 0.48, 0.62] * 2),
            vector(EIGHTH, [0.009, 0.01, 0.011] * 2),
            vector(FULL, [1.0] * 6),
        ]
    )
    assert (verdict.pairs, verdict.too_close) == (3, 1)
    assert "1 of 3 pairs" in verdict.warning
    assert "--repetitions" in verdict.warning and "close other programs" in verdict.warning
    assert "\n" not in verdict.warning


def test_the_interval_is_that_of_the_notches_of_a_box_plot() -> None:
    # IQR 0.1 at n = 4: half an interval is 1.57 · 0.1 / 2 = 0.0785, of the full network 0.
    near = VectorLatency(HALF, Quartiles(1, 1, 1), Quartiles(0.87, 0.92, 0.97), 4)
    far = VectorLatency(HALF, Quartiles(1, 1, 1), Quartiles(0.87, 0.921, 0.97), 4)
    nearer = VectorLatency(HALF, Quartiles(1, 1, 1), Quartiles(0.87, 0.922, 0.97), 4)
    full = vector(FULL, [1.0] * 6)
    verdicts = [noise_verdict([one, full]).too_close for one in (near, far, nearer)]
    assert verdicts == [0, 0, 1]


def test_more_repetitions_tell_more_vectors_apart() -> None:
    def verdict(repetitions: int) -> int:
        noise = random.Random(0)
        vectors = []
        for step in range(8):
            ratios = [0.2 + 0.02 * step + noise.gauss(0, 0.05) for _ in range(repetitions)]
            vectors.append(vector((step,), ratios))
        return noise_verdict(vectors).too_close

    assert verdict(10) > verdict(1000) == 0


def test_equal_vectors_are_seldom_called_different() -> None:
    noise = random.Random(1)
    different = 0
    for _ in range(400):
        pair = [vector((n,), [noise.gauss(0.5, 0.05) for _ in range(30)]) for n in (1, 2)]
        different += noise_verdict(pair).too_close == 0
    assert different / 400 < 0.09  # 5 % where the normal approximation holds


@pytest.mark.parametrize("vectors", [[], [vector(FULL, [1.0] * 6)]])
def test_fewer_than_two_vectors_have_no_neighbours(vectors: list[VectorLatency]) -> None:
    assert noise_verdict(vectors).pairs == 0
    assert noise_verdict(vectors).warning == ""


def test_too_few_repetitions_to_know_the_noise_are_told() -> None:
    once = noise_verdict([vector(HALF, [0.5]), vector(QUARTER, [0.2]), vector(FULL, [1.0])])
    assert (once.pairs, once.too_close, once.repetitions) == (2, 2, 1)
    assert once.warning.startswith("1 repetition is too few") and "\n" not in once.warning
    some = noise_verdict([vector(HALF, [0.49, 0.5, 0.51]), vector(FULL, [1.0] * 9)])
    assert some.too_close == 0
    assert some.warning.startswith("3 repetitions are too few") and "at least 6" in some.warning
    assert noise_verdict([vector(FULL, [1.0])]).warning.startswith("1 repetition is too few")
    # That of a front that was stored before.
    assert NoiseVerdict(pairs=2, too_close=0).warning == ""


def test_with_enough_repetitions_equal_vectors_are_called_different_in_less_than_a_tenth() -> None:
    noise = random.Random(2)
    different = 0
    for _ in range(4000):
        pair = [vector((n,), [noise.gauss(0.5, 0.05) for _ in range(6)]) for n in (1, 2)]
        verdict = noise_verdict(pair)
        assert verdict.warning == "" or verdict.too_close
        different += verdict.too_close == 0
    assert different / 4000 < 0.1

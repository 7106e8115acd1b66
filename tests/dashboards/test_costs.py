"""Costs by layer, and time against MACs, agree with what they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.made_up import write_search
from dashboards.costs import (
    breakdown_figure,
    breakdown_finding,
    cost_breakdown,
    latency_figure,
    latency_finding,
    timed_vectors,
)
from distreal_dse.fronts import Front, StoredLatency
from front_examples import HOSTILE, make_front


def measured(front: Front, counts: tuple[int, ...], ratio: float, at: str = "a") -> StoredLatency:
    return StoredLatency(
        "made", front.model_fingerprint, counts, {"cpu": HOSTILE}, at, 32, 1,
        ratio, ratio, ratio, ratio, ratio - 0.1, ratio, ratio + 0.2, 9,
    )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Front:
    front = write_search(f"sqlite:///{tmp_path / 'made.db'}")
    assert front is not None
    return front


def test_the_layers_of_a_vector_sum_to_its_cost(made: Front) -> None:
    breakdown = cost_breakdown(made)
    assert breakdown is not None
    assert breakdown.layers == ("conv1", "conv2")
    for column, cost in enumerate([*(p.cost for p in made.points), made.reference_cost]):
        assert sum(row[column] for row in breakdown.macs) == pytest.approx(cost)
    # By hand: 600 · 3 · 16 of 600 · (3 · 16 + 16 · 32).
    assert breakdown.share(0, -1) == pytest.approx(48 / 560)
    assert breakdown_finding(breakdown).startswith("conv2 takes 91% of the MACs of the full")
    heat_map, *_ = breakdown_figure(made, breakdown).data
    assert made.points[-1].kept_counts == (16, 32)  # so that there is no other column for it
    assert len(heat_map.z) == 2 and len(heat_map.z[0]) == len(made.points)


@pytest.mark.parametrize(
    "layers", [3, [{"name": "a"}], [{"name": "a", "macs": 1, "inputs": {"9": 1}, "outputs": {}}]]
)
def test_a_front_that_does_not_tell_its_layers_has_no_breakdown(layers: object) -> None:
    assert cost_breakdown(make_front(settings={"layers": layers})) is None
    assert cost_breakdown(make_front()) is None


def test_time_is_drawn_over_macs_with_the_last_measurement(made: Front) -> None:
    first, full = made.points[0].kept_counts, (16, 32)
    timed = timed_vectors(
        made,
        [
            measured(made, first, 9.0),
            measured(made, first, 0.5),
            measured(made, full, 1.0),
            measured(make_front(model_fingerprint="other"), first, 8.0),
            measured(made, first, 0.7, at="b"),
        ],
    )
    share = made.points[0].cost / made.reference_cost
    assert sorted((one.macs, one.time) for one in timed) == [(share, 0.5), (share, 0.7), (1, 1)]
    assert "takes 70% of the time" in latency_finding(timed)
    line, *devices = latency_figure(timed).data
    assert list(line.x) == list(line.y)
    assert [len(trace.x) for trace in devices] == [2, 1]
    assert list(devices[0].error_y.array) == pytest.approx([20.0, 20.0])
    assert "<" not in "".join(trace.name for trace in devices)

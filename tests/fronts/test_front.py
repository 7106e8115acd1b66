from __future__ import annotations

import math
import pickle
import random
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.errors import FrontError
from distreal_dse.fronts import (
    Front,
    FrontGroup,
    FrontPoint,
    channel_counts,
    hypervolume,
    kept_counts_key,
    non_dominated,
    useful_front,
)
from front_examples import fronts, make_front

# A coarse grid, so that ties and points on the reference are frequent.
grid_points = st.lists(st.tuples(st.integers(0, 12), st.integers(-3, 9)), max_size=12)


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(grid_points)
def test_non_dominated_agrees_with_comparing_all_pairs(points: list[tuple[int, int]]) -> None:
    expected = {p for p in points if not any(dominates(q, p) for q in points)}
    kept = non_dominated([c for c, _ in points], [v for _, v in points])
    assert [points[i] for i in kept] == sorted(expected)
    assert kept == [points.index(points[i]) for i in kept], "of equal points the first is kept"


@given(grid_points)
def test_hypervolume_agrees_with_counting_grid_cells(points: list[tuple[int, int]]) -> None:
    reference = 10
    cells = sum(
        any(cost <= x and convergence >= y + 1 for cost, convergence in points)
        for x in range(reference)
        for y in range(9)
    )
    assert hypervolume(points, reference) == pytest.approx(float(Fraction(cells, reference)))


def test_hypervolume_ignores_order_and_dominated_points() -> None:
    points = [(1.0, 1.0), (2.0, 2.0), (5.0, 3.0), (6.0, 2.5)]
    random.Random(0).shuffle(points)
    assert hypervolume(points, 10.0) == 0.9 * 1 + 0.8 * 1 + 0.5 * 1


@pytest.mark.parametrize("points", [[], [(11.0, 5.0)], [(1.0, 0.0)], [(1.0, -2.0)], [(10.0, 3.0)]])
def test_points_outside_the_reference_add_no_hypervolume(
    points: list[tuple[float, float]],
) -> None:
    assert hypervolume(points, 10.0) == 0.0


def test_non_dominated_refuses_nan_and_unequal_lengths() -> None:
    with pytest.raises(FrontError, match="NaN"):
        non_dominated([1.0, math.nan], [0.0, 0.0])
    with pytest.raises(ValueError):
        non_dominated([1.0], [])


def test_a_large_front_is_sorted_out_in_linearithmic_time() -> None:
    count = 200_000  # comparing all pairs would take hours
    costs = [float(i) for i in range(count)]
    assert len(non_dominated(costs, costs)) == count


def test_front_knows_its_hypervolume_label_and_unit() -> None:
    front = make_front()
    assert front.hypervolume == pytest.approx(0.9375 * 0.25 + 0.75 * 0.25)
    assert (front.label, replace(front, version=3).label) == ("digits", "digits@3")
    assert (front.cost_unit, make_front(cost_metric="latency").cost_unit) == ("MACs", "s")
    assert front.points[0].key == kept_counts_key((4, 2)) == "4-2"


def test_front_is_immutable_hashable_and_can_be_sent_to_another_process() -> None:
    front = make_front()
    with pytest.raises(FrozenInstanceError):
        front.name = "other"  # type: ignore[misc]
    assert hash(front) == hash(make_front())
    assert pickle.loads(pickle.dumps(front)) == front


def test_front_does_not_share_settings_with_its_maker() -> None:
    settings = {"options": {"width": 1}}
    front = make_front(settings=settings)
    settings["options"]["width"] = 2
    assert front.settings == {"options": {"width": 1}}


def test_numbers_of_numpy_give_the_same_front() -> None:
    front = make_front()
    points = tuple(
        replace(
            p,
            rates=tuple(np.asarray(p.rates)),
            kept_counts=tuple(np.asarray(p.kept_counts)),
            cost=np.float64(p.cost),
            uniform=np.bool_(p.uniform),  # type: ignore[arg-type]
        )
        for p in front.points
    )
    groups = tuple(
        FrontGroup(g.name, np.int64(g.channels))  # type: ignore[arg-type]
        for g in front.groups
    )
    same = make_front(points=points, groups=groups, reference_cost=1600)
    assert same == front and same.content_hash == front.content_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"study": "other"},
        {"model_fingerprint": "f" * 16},
        {"groups": (FrontGroup("conv1", 16), FrontGroup("conv2", 9))},
        {"cost_metric": "latency"},
        {"device": {"cpu": "x"}},
        {"reference_cost": math.nextafter(1600.0, 0)},
        {"settings": {"seed": 1}},
        {"points": make_front().points[:2]},
        {"created_at": "2026-01-31T12:00:01+00:00"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_content_hash_covers(changes: dict[str, object]) -> None:
    assert make_front(**changes).content_hash != make_front().content_hash


def test_content_hash_covers_every_field_of_a_point() -> None:
    front = make_front()
    first = front.points[0]
    hashes = {front.content_hash}
    changes: tuple[dict[str, Any], ...] = (
        {"rates": (0.75, 0.7)},
        {"kept_counts": (4, 3)},
        {"cost": 99.0},
        {"convergence": 0.2},
        {"standard_error": 0.02},
        {"replicates": 7},
        {"accuracy": 0.4},
        {"uniform": False},
        {"trial": None},
    )
    for change in changes:
        hashes.add(
            replace(front, points=(replace(first, **change), *front.points[1:])).content_hash
        )
    assert len(hashes) == 10


def test_content_hash_leaves_out_the_version_and_the_order_of_keys() -> None:
    front = make_front(settings={"a": 1, "b": 2})
    assert replace(front, version=7).content_hash == front.content_hash
    assert make_front(settings={"b": 2, "a": 1}).content_hash == front.content_hash


def test_content_hash_stays_the_same_over_releases() -> None:
    # Stored in databases and files of users: if this changes, their fronts can't be loaded.
    assert make_front().content_hash == (
        "ba6cdb5060ba2fe7015b7aaf40f34d5d1d8e83fd5acd5e9728cf392e40c4e637"
    )


@given(fronts())
def test_content_is_the_whole_front(front: Front) -> None:
    assert Front.from_content(front.content()) == front


def _points(**change: Any) -> dict[str, object]:
    first, *rest = make_front().points
    return {"points": (replace(first, **change), *rest)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda: {"points": ()}, "at least one point"),
        (lambda: {"points": make_front().points[::-1]}, "rise from point to point"),
        (lambda: {"points": make_front().points[:1] * 2}, "rise from point to point"),
        (lambda: _points(convergence=0.5), "rise from point to point"),
        (lambda: _points(cost=400.0), "rise from point to point"),
        (lambda: _points(cost=math.nan), "cost: expected a finite number, found nan"),
        (lambda: _points(convergence=math.inf), "convergence: expected a finite number"),
        (lambda: _points(standard_error=-1.0), "standard error ≥ 0"),
        (lambda: _points(cost=-1.0), "a cost of 0 or more"),
        (lambda: _points(accuracy=1.5), r"accuracy in \[0, 1\]"),
        (lambda: _points(replicates=0), "at least 1 replicate"),
        (lambda: _points(rates=(1.0, 0.5)), r"rates in \[0, 1\)"),
        (lambda: _points(rates=(0.5,)), "each of 16-8, found 1 rates"),
        (lambda: _points(kept_counts=(4,)), "each of 16-8"),
        (lambda: _points(kept_counts=(0, 2)), "kept count of 1 … channels"),
        (lambda: _points(kept_counts=(4, 9)), "found 2 rates and kept counts 4-9"),
        (lambda: {"groups": (FrontGroup("conv1", 16),)}, "each of 16"),
        (lambda: {"groups": (FrontGroup("conv1", 16), FrontGroup("conv2", 0))}, "conv2"),
        (lambda: {"reference_cost": 0.0}, "reference cost > 0"),
        (lambda: {"reference_cost": 10**400}, "finite"),
        (lambda: {"cost_metric": "joules"}, "macs or latency, found joules"),
        (lambda: {"name": ""}, "a name of letters"),
        (lambda: {"name": "digits@3"}, "a name of letters"),
        (lambda: {"name": "digits.json"}, "doesn't end in .json"),
        (lambda: {"study": "a\nb"}, "a printable study"),
        (lambda: {"created_at": "yesterday"}, "UTC"),
        (lambda: {"created_at": "2026-01-31T12:00:00"}, "UTC"),
        (lambda: {"created_at": "2026-01-31T12:00:00+01:00"}, "UTC"),
        (lambda: {"settings": {"x": math.nan}}, "settings: expected values that JSON can hold"),
        (lambda: {"device": {"x": object()}}, "device: expected values that JSON can hold"),
        (lambda: {"version": -1}, "version of 0 or more"),
    ],
)
def test_what_is_no_front_is_refused_in_one_line(changes: object, message: str) -> None:
    with pytest.raises(FrontError, match=message) as caught:
        make_front(**changes())  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_front_of_another_model_is_refused() -> None:
    front = make_front(version=2)
    front.check_model("0123456789abcdef", "study digits")
    with pytest.raises(FrontError, match="digits@2 is for another model than study other"):
        front.check_model("f" * 16, "study other")


@given(grid_points)
def test_a_useful_front_is_what_is_non_dominated_and_does_not_harm(
    pairs: list[tuple[int, int]],
) -> None:
    points = [FrontPoint((0.5,), (1,), cost, gain, 0, 1, 0, False) for cost, gain in pairs]
    useful, harmful = useful_front(points)
    best = non_dominated([cost for cost, _ in pairs], [gain for _, gain in pairs])
    assert list(harmful + useful) == [points[index] for index in best]
    assert all(point.convergence < 0 for point in harmful)
    assert all(point.convergence >= 0 for point in useful)


def test_a_front_with_points_that_harm_names_them_and_the_cheapest_useful_one() -> None:
    cheap, middle, dear = make_front().points
    points = (replace(cheap, convergence=-0.25), replace(middle, convergence=0.0), dear)
    front = make_front(points=points)
    assert front.harmful == points[:1] and front.cheapest_useful == points[1]
    worst = make_front(points=(points[0],))
    assert worst.harmful == worst.points and worst.cheapest_useful is None


@pytest.mark.parametrize(
    "layers",
    [
        3,
        [{"name": "conv1", "macs": 1, "inputs": {}, "outputs": {"0": 2.0}}],
        [{"name": "conv1", "macs": 1, "inputs": {}, "outputs": {"0": size}} for size in (0.5, 2)],
    ],
)
def test_a_front_that_does_not_tell_its_channels_shows_units(layers: object) -> None:
    for settings in ({}, {"layers": layers}):
        channels = channel_counts(make_front(settings=settings))
        assert (channels.noun, channels.text((3, 2))) == ("units", "3-2")


def test_groups_of_one_layer_have_the_channels_of_that_layer() -> None:
    layer = {"name": "conv", "macs": 1, "inputs": {}, "outputs": {"0": 2.0, "1": 3.0}}
    groups = (FrontGroup("conv", 16), FrontGroup("conv:2", 8))
    channels = channel_counts(make_front(groups=groups, settings={"layers": [layer]}))
    assert (channels.noun, channels.of((4, 2))) == ("channels", (8, 6))

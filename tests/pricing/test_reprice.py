from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from distreal_dse.cost import device_fingerprint, fingerprint_hash
from distreal_dse.errors import FrontError
from distreal_dse.fronts import (
    PILOT,
    TABLE,
    VERIFICATION,
    Front,
    LookupTable,
    MeasuredVector,
    load_front,
    load_latencies,
    measured_vectors,
    save_front,
    table_setting,
    verdict_of,
    verification_setting,
)
from distreal_dse.pricing import (
    MeasureSettings,
    Repricing,
    Wanted,
    find_subject,
    reprice,
    subject_of_front,
)
from pricing_examples import FULL, make_front
from tiny_study import write_study

QUICK = MeasureSettings(repetitions=3)

# Whoever keeps few filters of the first convolution waits: far longer than any step here takes.
SLOW_WHEN_NARROW = """
def wait(layer, inputs, outputs):
    import time

    if outputs.shape[1] < 4:
        time.sleep(0.05)


def slow():
    network = model()
    network[0].register_forward_hook(wait)
    return network


study = replace(study, model=slow)
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return write_study(tmp_path, "slow", SLOW_WHEN_NARROW)


def repriced(front: Front, study: Path, database: Engine, name: str = "") -> Repricing:
    subject = subject_of_front(front, Wanted(study=str(study)))
    return reprice(subject, QUICK, database, name)


def test_a_repriced_front_has_this_device_and_says_where_it_comes_from(
    study: Path, database: Engine
) -> None:
    front = save_front(database, make_front(study, {(1, 1): 0.1, (3, 5): 0.2, (6, 7): 0.3}))
    made = repriced(front, study, database)
    new = made.front
    device = device_fingerprint("cpu", 1)
    assert (new.cost_metric, new.cost_unit, new.device) == ("latency", "s", device)
    assert new.label == f"tiny-{fingerprint_hash(device)[:6]}@1"
    assert new.reference_cost == made.measurement.latencies.full.median > 0
    assert new.model_fingerprint == front.model_fingerprint
    origin = new.settings["repriced from"]
    assert (origin["front"], origin["hash"]) == ("tiny@1", front.content_hash)
    assert origin["cost metric"] == "macs"
    assert new.settings["cost"] == "latency" and new.settings["batch size"] == 16
    # Convergence is as it was, costs are as measured; every point is kept or named.
    before = {point.kept_counts: point for point in front.points}
    costs = made.measurement.latencies.costs()
    for point in new.points:
        now = replace(point, memory=None)  # which make_front's points don't tell
        assert now == replace(before[point.kept_counts], cost=costs[point.kept_counts])
    assert origin["dropped"] == [point.key for point in made.dropped]
    kept = {point.kept_counts for point in new.points}
    assert {point.kept_counts for point in made.dropped} == before.keys() - kept
    # The old one stays, the new one is stored, the measurements too.
    assert load_front(database, "tiny@1") == front
    assert load_front(database, new.label) == new
    measured = {one.kept_counts for one in load_latencies(database, front.model_fingerprint)}
    assert measured >= {FULL, *before}


def test_points_that_became_dominated_are_dropped_and_named(slow: Path, database: Engine) -> None:
    front = make_front(slow, {(2, 2): 0.1, (3, 5): 0.2, (5, 5): 0.3})
    made = repriced(front, slow, database, "own-name")
    assert made.front.label == "own-name@1"
    assert [point.kept_counts for point in made.front.points] == [(5, 5)]
    assert [point.key for point in made.dropped] == ["2-2", "3-5"]
    assert made.front.settings["repriced from"]["dropped"] == ["2-2", "3-5"]


def test_uniform_vectors_that_pay_here_come_in(slow: Path, database: Engine) -> None:
    # 4-6 (rate 0.3) gains a bit less than 3-7 for more MACs, but here it is far cheaper.
    front = make_front(slow, {(2, 2): 0.1, (3, 7): 0.3}, family={0.3: 0.29, 0.6: 0.05})
    made = repriced(front, slow, database)
    assert [point.kept_counts for point in made.front.points] == [(4, 6), (3, 7)]
    (added,) = made.added
    assert added == made.front.points[0]
    assert (added.rates, added.uniform, added.convergence) == ((0.3, 0.3), True, 0.29)
    assert (added.standard_error, added.replicates, added.accuracy) == (0.01, 2, 0.5)
    assert [point.kept_counts for point in made.dropped] == [(2, 2)]
    assert made.front.settings["repriced from"]["added"] == ["4-6"]
    family = made.front.settings["uniform family"]
    costs = made.measurement.latencies.costs()
    assert sorted(entry["cost"] for entry in family) == [entry["cost"] for entry in family]
    assert {entry["rate"]: entry["cost"] for entry in family} == {
        0.3: costs[4, 6],
        0.6: costs[2, 3],
    }
    assert made.beaten == 0
    assert made.front.uniform_hypervolume is not None


def test_uniform_vectors_are_those_of_the_fronts_granularity(slow: Path, database: Engine) -> None:
    front = make_front(slow, {(3, 7): 0.3}, family={0.55: 0.5})
    made = repriced(replace(front, settings={**front.settings, "granularity": 4}), slow, database)
    # Of widths 6 and 8 the rate 0.55 keeps 3 and 4; with the granularity, it keeps 4 and 4.
    assert [point.kept_counts for point in made.added] == [(4, 4)]


def test_a_family_that_says_too_little_is_counted_instead(slow: Path, database: Engine) -> None:
    front = make_front(slow, {(3, 7): 0.3}, family={0.3: 0.5})
    (entry,) = front.settings["uniform family"]
    del entry["accuracy"]
    made = repriced(replace(front, settings={"uniform family": [entry]}), slow, database)
    assert made.added == () and made.beaten == 1


@pytest.mark.parametrize("family", [3, [{"rate": 2.0}], [{"rate": 0.5, "convergence": "much"}]])
def test_a_family_that_is_none_changes_nothing(
    family: object, study: Path, database: Engine
) -> None:
    front = make_front(study, {(3, 4): 0.1})
    made = repriced(replace(front, settings={"uniform family": family}), study, database)
    assert len(made.front.points) == 1
    assert made.front.settings["uniform family"] == family


def test_a_front_of_another_device_can_be_repriced(study: Path, database: Engine) -> None:
    front = make_front(study, {(3, 4): 0.1})
    elsewhere = replace(
        front,
        cost_metric="latency",
        device={"cpu": "another"},
        reference_cost=100.0,
        points=(replace(front.points[0], cost=40.0),),
    )
    new = repriced(elsewhere, study, database).front
    assert new.device == device_fingerprint("cpu", 1)
    assert new.reference_cost < 10
    assert new.settings["repriced from"]["cost metric"] == "latency"


def test_a_front_of_another_model_is_refused(study: Path, database: Engine) -> None:
    front = replace(make_front(study, {(3, 4): 0.1}), model_fingerprint="other")
    with pytest.raises(FrontError, match="another model than study tiny"):
        repriced(front, study, database)


def test_a_study_is_no_front(study: Path, database: Engine) -> None:
    with pytest.raises(FrontError, match="study tiny can't be re-priced: expected a front"):
        reprice(find_subject(str(study), Wanted(), database), QUICK, database)


def test_a_bad_name_is_refused_before_anything_is_measured(study: Path, database: Engine) -> None:
    front = make_front(study, {(3, 4): 0.1})
    with pytest.raises(FrontError, match="a name of letters"):
        repriced(front, study, database, "no name")
    assert load_latencies(database, front.model_fingerprint) == []


def test_points_that_harm_are_left_out_and_named(study: Path, database: Engine) -> None:
    front = save_front(database, make_front(study, {(1, 1): -0.2, (3, 5): -0.1, (6, 8): 0.3}))
    made = repriced(front, study, database)
    assert [point.kept_counts for point in made.front.points] == [(6, 8)]
    assert {point.kept_counts for point in made.harmful} == {(1, 1), (3, 5)}
    assert made.harmful == made.dropped


def test_a_front_whose_points_all_harm_is_not_repriced(study: Path, database: Engine) -> None:
    front = save_front(database, make_front(study, {(1, 1): -0.2, (3, 5): -0.1}))
    with pytest.raises(FrontError, match="can't be re-priced.*all 2 harm"):
        repriced(front, study, database)
    assert load_latencies(database, front.model_fingerprint) == []


def test_what_a_front_says_of_its_own_costs_is_said_anew(slow: Path, database: Engine) -> None:
    """Narrow ones are the cheapest in MACs, and here by far the dearest."""
    own, plain = (0.5, 0.52, 0.51), (0.1, 0.13, 0.12)
    front = make_front(slow, {(2, 8): 0.5, (6, 8): 0.6}, family={0.3: 0.12})
    costs = {point.kept_counts: point.cost for point in front.points}
    verified = [
        MeasuredVector((2, 8), costs[2, 8], own, False),
        MeasuredVector((4, 6), 2 * costs[2, 8], plain, True),
        MeasuredVector((6, 8), costs[6, 8], (0.6, 0.61, 0.6), True),
    ]
    settings = {
        **front.settings,
        VERIFICATION: verification_setting(verified),
        TABLE: table_setting([*costs], [*costs.values()]),
        PILOT: {"kind": "of MACs"},
    }
    front = replace(front, settings=settings)
    before = verdict_of(front)
    assert before is not None and [one.vector.kept_counts for one in before.better] == [(2, 8)]
    new = repriced(front, slow, database).front
    assert TABLE not in new.settings and PILOT not in new.settings
    looked_up = {one.kept_counts: one.cost for one in LookupTable(new).vectors}
    assert looked_up == {point.kept_counts: point.cost for point in new.points}
    after = verdict_of(new)
    assert after is not None and after.better == ()
    measured = {one.kept_counts: one for one in measured_vectors(new)}
    assert measured[2, 8].gains == own and measured[2, 8].cost > 2 * measured[6, 8].cost


def test_verified_vectors_of_another_network_are_left_out(study: Path, database: Engine) -> None:
    strange = verification_setting([MeasuredVector((1, 1, 1), 1.0, (0.1, 0.2), True)])
    front = make_front(study, {(3, 4): 0.1})
    front = replace(front, settings={**front.settings, VERIFICATION: strange})
    assert VERIFICATION not in repriced(front, study, database).front.settings


def test_a_repriced_front_tells_what_its_points_need_in_its_mini_batches(
    study: Path, database: Engine
) -> None:
    subject = subject_of_front(
        make_front(study, {(1, 1): 0.1, (3, 5): 0.2, (6, 7): 0.3}), Wanted(study=str(study))
    )
    memory = {}
    for batch_size in (4, 8):
        settings = MeasureSettings(repetitions=1, batch_size=batch_size)
        for point in reprice(subject, settings, database, f"b{batch_size}").front.points:
            memory[batch_size, point.kept_counts] = point.memory or 0
    assert all(need > 0 for need in memory.values())
    both = {counts for _, counts in memory if (4, counts) in memory and (8, counts) in memory}
    assert both and all(memory[4, counts] < memory[8, counts] for counts in both)

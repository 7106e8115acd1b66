from __future__ import annotations

import shutil
import sqlite3
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from distreal_dse.convergence import ShortRuns
from distreal_dse.cost import MacCost
from distreal_dse.errors import NoGainError
from distreal_dse.fronts import channel_counts, list_fronts, open_database
from distreal_dse.search import SearchSettings, search
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from tiny_study import (
    HARMS_ALWAYS,
    HARMS_WHEN_NARROW,
    NORM_GROUPS,
    Finished,
    write_study,
)

Rows = dict[tuple[int, ...], list[float]]


def verified(file: Path) -> Rows:
    """Loss gains of the verification runs in a database, by kept counts, in order of replicates."""
    rows: Rows = defaultdict(list)
    connection = sqlite3.connect(file)
    query = "SELECT kept_counts_key, loss_gain FROM verifications ORDER BY replicate"
    for key, gain in connection.execute(query):
        if not key.startswith("search "):
            rows[tuple(map(int, key.split("-")))].append(gain)
    connection.close()
    return dict(rows)


def execute(file: Path, statement: str, *values: object) -> int:
    connection = sqlite3.connect(file)
    with connection:
        changed = connection.execute(statement, values).rowcount
    connection.close()
    return changed


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished search without its front."""
    file = tmp_path / "copy.db"
    shutil.copy(finished.file, file)
    execute(file, "DELETE FROM front_points")
    execute(file, "DELETE FROM fronts")
    return file


def test_the_values_of_the_front_come_from_fresh_seeds(finished: Finished) -> None:
    study = finished.settings.source.load()
    network, data = prepare(study, seed=0)
    runs = ShortRuns(study, data, network, seed=0)
    trials = finished.trials()
    assert finished.front.points
    for point in finished.front.points:
        replicates = [runs.run(point.kept_counts, "verification", r) for r in range(2)]
        assert point.convergence == pytest.approx(fmean(r.loss_gain for r in replicates))
        assert point.accuracy == pytest.approx(fmean(r.accuracy for r in replicates))
        assert point.replicates == 2
        if point.trial is None:  # one of the one-rate vectors that are verified beside the others
            assert point.uniform
            continue
        trial = trials[point.trial]
        assert tuple(trial.user_attrs["kept channels"].values()) == point.kept_counts
        assert trial.values[0] == point.cost
        assert trial.values[1] != point.convergence


def test_the_front_is_what_no_other_verified_vector_beats(finished: Finished) -> None:
    network, _ = prepare(finished.settings.source.load(), seed=0)
    cost = MacCost(network.channels)
    pairs = {
        counts: (cost.training(counts), fmean(gains))
        for counts, gains in verified(finished.file).items()
    }

    def beaten(counts: tuple[int, ...]) -> bool:
        macs, gain = pairs[counts]
        return any(
            one <= macs and other >= gain and (one, other) != (macs, gain)
            for one, other in pairs.values()
        )

    expected = {counts for counts in pairs if not beaten(counts)}
    assert {point.kept_counts for point in finished.front.points} == expected


def kept_by_one_rate() -> set[tuple[int, ...]]:
    rates = (step / 5000 for step in range(5000))
    return {tuple(max(1, round(width * (1 - rate))) for width in (6, 8)) for rate in rates}


def test_vectors_of_the_search_and_a_family_of_one_rate_are_verified(finished: Finished) -> None:
    tried = {tuple(t.user_attrs["kept channels"].values()) for t in finished.trials()}
    rows = verified(finished.file)
    uniform = rows.keys() & kept_by_one_rate()
    searched = rows.keys() - uniform
    assert {(6, 8), (1, 1)} <= uniform and len(uniform) >= 9
    assert searched and searched <= tried
    assert all(len(gains) == 2 for gains in rows.values())


def test_the_uniform_family_stands_in_the_settings_of_the_front(finished: Finished) -> None:
    family = finished.front.settings["uniform family"]
    rows = verified(finished.file)
    network, _ = prepare(finished.settings.source.load(), seed=0)
    cost = MacCost(network.channels)
    counts = rows.keys() & kept_by_one_rate()
    assert len(family) == len(set(counts))
    assert [one["cost"] for one in family] == sorted(cost.training(c) for c in set(counts))
    gains = {cost.training(c): fmean(rows[c]) for c in counts}
    for one in family:
        assert one["convergence"] == pytest.approx(gains[one["cost"]])
        assert one["standard_error"] >= 0
    assert family[-1]["rate"] == 0.0
    uniform = {p.cost: p.convergence for p in finished.front.points if p.uniform}
    assert uniform.items() <= {one["cost"]: one["convergence"] for one in family}.items()


def test_an_interrupted_verification_uses_the_runs_that_it_finished(
    finished: Finished, copy: Path
) -> None:
    before = verified(copy)
    # A value that no run gives shows that the row is used and not measured again.
    changed = execute(
        copy,
        "UPDATE verifications SET loss_gain = 100 WHERE kept_counts_key = '6-8' AND replicate = 0",
    )
    assert changed == 1
    of_verification = "kept_counts_key NOT LIKE 'search %'"
    lost = execute(copy, f"DELETE FROM verifications WHERE replicate = 1 AND {of_verification}")
    assert lost == len(before)

    front = search(finished.settings, f"sqlite:///{copy}")
    after = verified(copy)
    expected = {**before, (6, 8): [100.0, before[6, 8][1]]}
    assert after == expected
    points = {point.kept_counts: point for point in front.points}
    assert points[6, 8].convergence == pytest.approx((100 + before[6, 8][1]) / 2)


def test_a_lost_verification_is_measured_with_the_same_result(
    finished: Finished, copy: Path
) -> None:
    before = verified(copy)
    assert execute(copy, "DELETE FROM verifications") > 2 * len(before)  # and those of the search
    front = search(finished.settings, f"sqlite:///{copy}")
    assert front.points == finished.front.points
    assert verified(copy) == before


def test_verification_runs_of_another_seed_are_not_used(finished: Finished, copy: Path) -> None:
    execute(copy, "UPDATE verifications SET seed = 1, loss_gain = 100")
    front = search(finished.settings, f"sqlite:///{copy}")
    assert front.points == finished.front.points


def test_vectors_that_harm_are_left_out_of_the_front_and_named(tmp_path: Path) -> None:
    file, study = tmp_path / "search.db", write_study(tmp_path, "tiny", HARMS_WHEN_NARROW)
    front = search(SearchSettings(StudySource(str(study)), trials=12), f"sqlite:///{file}")
    gains = {counts: fmean(values) for counts, values in verified(file).items()}
    network, _ = prepare(StudySource(str(study)).load(), seed=0)
    cost = MacCost(network.channels)
    best = {
        counts: gain
        for counts, gain in gains.items()
        if not any(
            cost.training(other) <= cost.training(counts) and gains[other] > gain for other in gains
        )
    }
    harmful = {"-".join(map(str, counts)): gain for counts, gain in best.items() if gain < 0}
    assert harmful and front.settings["harmful"] == pytest.approx(harmful)
    useful = {counts: gain for counts, gain in best.items() if gain >= 0}
    assert {p.kept_counts: p.convergence for p in front.points} == pytest.approx(useful)
    assert front.harmful == () and front.cheapest_useful == front.points[0]


def test_where_every_vector_harms_no_front_is_stored(tmp_path: Path) -> None:
    url, study = f"sqlite:///{tmp_path}/search.db", write_study(tmp_path, "tiny", HARMS_ALWAYS)
    with pytest.raises(NoGainError, match="search 'tiny'.*no front is stored.*learning rate"):
        search(SearchSettings(StudySource(str(study)), trials=10), url)
    engine = open_database(url)
    assert list_fronts(engine) == []
    engine.dispose()
    assert verified(tmp_path / "search.db")  # what was found is kept


def test_a_front_of_norm_groups_knows_the_channels_of_its_sub_networks(tmp_path: Path) -> None:
    source = StudySource(str(write_study(tmp_path, "tiny", NORM_GROUPS)))
    front = search(SearchSettings(source, trials=10), f"sqlite:///{tmp_path}/search.db")
    channels = channel_counts(front)
    assert [group.channels for group in front.groups] == [6, 8]
    assert channels.per_unit == (2, 4) and channels.text((6, 8)) == "12-32"
    network, _ = prepare(source.load(), seed=0)
    for point in front.points:
        small = network.subnetwork(point.kept_counts).module
        widths = [small.get_submodule(group.name).out_channels for group in front.groups]
        assert channels.of(point.kept_counts) == tuple(widths)

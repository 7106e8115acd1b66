from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Engine, text

from distreal_dse.errors import FrontError, StorageError
from distreal_dse.fronts import (
    Front,
    export_front,
    find_front,
    list_fronts,
    load_front,
    load_verifications,
    open_database,
    save_front,
    save_verification,
)
from front_examples import fronts, make_front


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(front=fronts())
def test_a_saved_front_comes_back_equal(front: Front, database: Engine) -> None:
    stored = save_front(database, front)
    assert stored == replace(front, version=stored.version)
    assert load_front(database, stored.label) == load_front(database, front.name) == stored


def test_a_saved_front_comes_back_equal_from_postgres(postgres_url: str) -> None:
    engine = open_database(postgres_url)

    @settings(max_examples=30, deadline=None)
    @given(front=fronts())
    def round_trip(front: Front) -> None:
        stored = save_front(engine, front)
        assert load_front(engine, stored.label) == replace(front, version=stored.version)

    round_trip()
    assert list_fronts(engine)
    engine.dispose()


def test_versions_count_up_per_name(database: Engine) -> None:
    first = save_front(database, make_front())
    second = save_front(database, make_front(settings={}))
    other = save_front(database, make_front(name="other"))
    assert [f.label for f in (first, second, other)] == ["digits@1", "digits@2", "other@1"]
    assert load_front(database, "digits") == second
    assert load_front(database, "digits@1") == first


def test_saving_the_latest_content_again_writes_nothing(database: Engine) -> None:
    first = save_front(database, make_front())
    assert save_front(database, make_front()) == first
    assert save_front(database, replace(first, version=9)) == first
    assert len(list_fronts(database)) == 1


def test_list_shows_fronts_without_loading_points(database: Engine) -> None:
    assert list_fronts(database) == []
    save_front(database, make_front(name="b", cost_metric="latency", device={"cpu": "x"}))
    save_front(database, make_front(name="a"))
    front = save_front(database, make_front(name="a", points=make_front().points[:2]))
    summaries = list_fronts(database)
    assert [s.label for s in summaries] == ["a@1", "a@2", "b@1"]
    assert [s.points for s in summaries] == [3, 2, 3]
    assert summaries[1].hypervolume == front.hypervolume
    assert summaries[1].content_hash == front.content_hash
    assert summaries[2].device == {"cpu": "x"} and summaries[2].cost_unit == "s"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("digts", "found digits close to it; see `distreal-dse front list`"),
        ("zzz", "found 2 other names"),
        ("digits@2", "found versions 1 of it"),
        ("digits@0", "found versions 1 of it"),
        ("digits@x", "found version 'x'"),
        ("digits@", "NAME@VERSION"),
        ("digits@-1", "NAME@VERSION"),
        ("digits@99999999999999999999", "NAME@VERSION"),
        ("", "found 2 other names"),
    ],
)
def test_an_unknown_front_is_refused_with_the_nearest(
    database: Engine, label: str, message: str
) -> None:
    save_front(database, make_front())
    save_front(database, make_front(name="cifar10"))
    with pytest.raises(FrontError, match=message):
        load_front(database, label)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE front_points SET accuracy = 0.6 WHERE position = 1",
        "UPDATE front_points SET accuracy = 60 WHERE position = 1",
        "UPDATE front_points SET kept_counts = '[4, 3]' WHERE position = 0",
        "DELETE FROM front_points WHERE position = 1",
        "DELETE FROM front_points",
        "UPDATE fronts SET reference_cost = 1601",
        "UPDATE fronts SET model_fingerprint = 'other'",
        "UPDATE fronts SET settings = '{}'",
        "UPDATE fronts SET content_hash = 'a' || substr(content_hash, 2)",
    ],
)
def test_a_front_changed_in_the_database_is_refused(database: Engine, change: str) -> None:
    # A front whose hash doesn't begin with "a", so that the last change is one.
    front = next(f for s in range(9) if (f := make_front(settings={"s": s})).content_hash[0] != "a")
    save_front(database, front)
    with database.begin() as connection:
        connection.execute(text(change))
    with pytest.raises(FrontError, match="stored front digits@1.*was changed"):
        load_front(database, "digits")


def test_points_go_with_their_front(database: Engine) -> None:
    save_front(database, make_front())
    with database.begin() as connection:
        connection.execute(text("DELETE FROM fronts"))
        assert connection.scalar(text("SELECT count(*) FROM front_points")) == 0


def test_find_front_takes_files_and_stored_names(tmp_path: Path, url: str) -> None:
    export_front(make_front(name="file"), tmp_path / "front.JSON")
    assert find_front(url, str(tmp_path / "front.JSON")).name == "file"
    assert not (tmp_path / "fronts.db").exists(), "a file needs no database"
    engine = open_database(url)
    stored = save_front(engine, make_front())
    assert find_front(url, "digits") == find_front(engine, "digits@1") == stored
    engine.dispose()


WORKER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from distreal_dse.fronts import import_front, open_database, save_front

url, folder, worker = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
front = import_front(folder / "front.json")
(folder / f"ready{worker}").touch()
while not (folder / "go").exists():
    time.sleep(0.0005)
engine = open_database(url)
for i in range(5):
    print(save_front(engine, replace(front, settings={"worker": worker, "i": i})).version)
"""


def _save_from_processes(url: str, folder: Path) -> None:
    export_front(make_front(), folder / "front.json")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(folder), str(worker)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker in range(4)
    ]
    # All open the fresh database at the same moment, not as soon as each has started.
    deadline = time.monotonic() + 60
    while len(list(folder.glob("ready*"))) < len(workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    (folder / "go").touch()
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    assert sorted(int(line) for output in outputs for line in output.split()) == [*range(1, 21)]


def test_processes_that_open_and_save_at_once_all_get_a_version(url: str, tmp_path: Path) -> None:
    _save_from_processes(url, tmp_path)


def test_processes_on_postgres_that_open_and_save_at_once_all_get_a_version(
    fresh_postgres_url: str, tmp_path: Path
) -> None:
    _save_from_processes(fresh_postgres_url, tmp_path)


def test_verification_runs_are_kept_per_search_and_seed(database: Engine) -> None:
    assert load_verifications(database, "digits", 0) == {}
    big_seed = 2**63 - 1
    save_verification(database, "digits", 0, "16-8", 0, 0.1 + 0.2, 0.5)
    save_verification(database, "digits", 0, "16-8", 1, -0.25, 0.25)
    save_verification(database, "digits", big_seed, "16-8", 0, 1.0, 1.0)
    save_verification(database, "other", 0, "16-8", 0, 2.0, 1.0)
    assert load_verifications(database, "digits", 0) == {
        ("16-8", 0): (0.1 + 0.2, 0.5),
        ("16-8", 1): (-0.25, 0.25),
    }
    assert load_verifications(database, "digits", big_seed) == {("16-8", 0): (1.0, 1.0)}


def test_a_verification_run_again_replaces_the_first(database: Engine) -> None:
    save_verification(database, "digits", 0, "16-8", 0, 0.1, 0.5)
    save_verification(database, "digits", 0, "16-8", 0, 0.2, 0.6)
    assert load_verifications(database, "digits", 0) == {("16-8", 0): (0.2, 0.6)}


def test_a_diverged_verification_run_is_refused(database: Engine) -> None:
    with pytest.raises(FrontError, match="found loss gain nan"):
        save_verification(database, "digits", 0, "16-8", 0, float("nan"), 0.5)


def test_writing_to_a_read_only_database_is_a_storage_error(url: str, tmp_path: Path) -> None:
    open_database(url).dispose()
    engine = open_database(f"sqlite:///file:{tmp_path}/fronts.db?mode=ro&uri=true")
    assert list_fronts(engine) == []
    with pytest.raises(StorageError, match="expected a writable database"):
        save_front(engine, make_front())
    engine.dispose()


def test_memory_of_points_comes_back_and_is_unknown_where_it_was(database: Engine) -> None:
    front = make_front()
    points = (replace(front.points[0], memory=2**40), *front.points[1:])
    saved = save_front(database, replace(front, points=points))
    assert [point.memory for point in load_front(database, saved.label).points] == [
        2**40, None, None,
    ]  # fmt: skip

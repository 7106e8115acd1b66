"""Many processes, of one host or of many, work on one search."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Engine, text

from command_line import Ended, finish, run, start, wait_until
from distreal_dse.errors import InputError
from distreal_dse.fronts import (
    leases,
    list_fronts,
    open_database,
    save_verification,
)
from distreal_dse.fronts.leases import HeldError
from distreal_dse.search import SearchProgress, SearchSettings, close_trials, open_trials, search
from distreal_dse.search.ledger import Claim, Company, holding_search, joining
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.owners import Owner
from fl.world.fleet import make_fleet
from postgres import running_server
from tiny_study import write_study

KEY = "shared/0123456789ab"
TRIALS = 16
UNFINISHED = "SELECT name FROM search_claims WHERE replicate = -1 AND trial IS NULL"


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with running_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/search.db"
    url: str = request.getfixturevalue("server_url")
    return url


@pytest.fixture
def database(storage: str) -> Iterator[Engine]:
    engine = open_database(storage)
    yield engine
    with engine.begin() as connection:  # the server is that of all tests
        for table in ("search_claims", "search_drivers", "searches", "verifications", "fronts"):
            connection.execute(text(f"DELETE FROM {table}"))
    engine.dispose()


@pytest.fixture
def join(database: Engine) -> Iterator[Callable[[], Company]]:
    """Joins a search as one more driver, of those that agree."""
    with ExitStack() as stack:

        def joined() -> Company:
            company = stack.enter_context(joining(database, "shared", 100, pilot=True))
            company.agree(KEY, 1.0)
            return company

        yield joined


def lose(engine: Engine, company: Company) -> None:
    """Let a driver be one of a host that nothing was heard of for long."""
    _, key = company.place
    elsewhere = replace(Owner.here(), host="far away", boot="another", key=key)
    change(
        engine,
        "UPDATE search_drivers SET owner = :owner, heartbeat = heartbeat - :age WHERE key = :key",
        owner=str(elsewhere), age=leases.STALE, key=key,
    )  # fmt: skip


def change(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def test_a_trial_is_begun_by_one_driver(join: Callable[[], Company]) -> None:
    one, other = join(), join()
    assert one.claim("a", {"x": 0.5}, 0, -1, 3) is Claim.OURS
    assert other.claim("a", {"x": 0.5}, 0, -1, 3) is Claim.TAKEN
    assert other.claim("b", {"x": 0.7}, 0, -1, 3) is Claim.OURS
    assert dict(other.look().trials) == {"a": {"x": 0.5}}
    one.end("a", 0)
    assert other.claim("a", {"x": 0.5}, 0, -1, 3) is Claim.TAKEN  # though it has not heard of it
    assert other.look().trials == {}


def test_no_more_trials_are_begun_than_there_shall_be(join: Callable[[], Company]) -> None:
    one, other = join(), join()
    assert one.claim("a", {}, 1, 0, 3) is Claim.OURS
    assert other.claim("b", {}, 1, 0, 3) is Claim.OURS
    assert one.claim("c", {}, 1, 0, 3) is Claim.ENOUGH
    other.end("b", 1)
    assert one.claim("c", {}, 1, 0, 3) is Claim.ENOUGH  # the trial that it has not heard of counts
    assert one.claim("c", {}, 2, 1, 4) is Claim.OURS


def test_what_a_lost_host_had_begun_is_taken_over(
    join: Callable[[], Company], database: Engine
) -> None:
    lost, one, other = join(), join(), join()
    lost.claim("a", {"x": 0.5}, 0, -1, 9)
    assert lost.share([("v", 0)], 1).ours == (("v", 0),)
    assert one.share([("v", 0)], 1).ours == ()
    lose(database, lost)
    assert dict(one.look().lost) == {"a": {"x": 0.5}}
    assert one.claim("a", {}, 0, -1, 0) is Claim.OURS
    assert other.claim("a", {}, 0, -1, 9) is Claim.TAKEN
    assert other.share([("v", 0)], 1).ours == (("v", 0),)
    with pytest.raises(HeldError, match="goes on without this process: .* join them"):
        lost.check()
    one.check()


def test_short_runs_that_all_want_are_done_once(
    join: Callable[[], Company], database: Engine
) -> None:
    one, other = join(), join()
    wanted = [("v", 0), ("v", 1), ("w", 0)]
    assert one.share(wanted, 1).ours == (("v", 0),)
    assert other.share(wanted, 3).ours == (("v", 1), ("w", 0))
    save_verification(database, KEY, 0, "v", 0, 0.25, 0.5)
    other.fail("w", 0, "diverged")
    shared = one.share(wanted, 3)
    assert shared.ours == () and dict(shared.failed) == {("w", 0): "diverged"}
    assert [*shared.known] == [("v", 0)] and shared.known["v", 0].loss_gain == 0.25
    other.leave()
    assert one.share(wanted, 1).ours == (("v", 1),)  # it was not done


def test_drivers_that_disagree_are_refused(join: Callable[[], Company], database: Engine) -> None:
    join()
    with joining(database, "shared", 100, pilot=True) as other:
        with pytest.raises(InputError, match=r"'shared' is worked on with other settings.*--name"):
            other.agree("shared/another")
        with pytest.raises(InputError, match=r"snapshot of validation loss 1\.0000 \(here it is 2"):
            other.agree(KEY, 2.0)
        other.agree(KEY, 1.0)
    with (
        pytest.raises(InputError, match="with a pilot by .* leave --no-pilot out"),
        joining(database, "shared", 100, pilot=False),
    ):
        pass


def test_who_works_alone_and_who_joins_keep_out_of_each_others_way(database: Engine) -> None:
    with (
        joining(database, "shared", 100, pilot=True),
        pytest.raises(HeldError, match=r"with --join: .* add --join"),
        holding_search(database, "shared"),
    ):
        pass
    with (
        holding_search(database, "shared"),
        pytest.raises(HeldError, match="alone: expected one that was begun with --join"),
        joining(database, "shared", 100, pilot=True),
    ):
        pass
    with joining(database, "shared", 100, pilot=True):
        pass


def vectors(url: str) -> list[str]:
    """What each finished trial is told apart by."""
    storage = open_trials(url)
    try:
        trials = optuna.load_study(study_name="tiny", storage=storage).get_trials()
    finally:
        close_trials(storage)
    assert all(trial.state.is_finished() for trial in trials)
    return [json.dumps(one.user_attrs.get("kept channels", one.params)) for one in trials]


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        engine.dispose()


def fronts(url: str) -> list[str]:
    engine = open_database(url)
    try:
        return [front.label for front in list_fronts(engine)]
    finally:
        engine.dispose()


def check_finished(url: str, ended: list[Ended]) -> None:
    for one in ended:
        assert one.code == 0, one.stderr
        assert (one.json["name"], one.json["version"]) == ("tiny", 1)
    assert fronts(url) == ["tiny@1"]  # exactly one
    assert len(vectors(url)) == TRIALS
    assert set(Counter(vectors(url)).values()) == {1}  # none twice
    assert rows(url, "SELECT * FROM search_drivers") == []
    assert rows(url, UNFINISHED) == []


def joined(study: Path, url: str, *options: str, trials: int = TRIALS) -> subprocess.Popen[str]:
    return start(
        *("optimize", study, "--join", "--trials", str(trials), *options),
        *("--storage", url, "--json"),
    )


def under_way(url: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = run("status", "--storage", url, "--json").json
    return found


# Works on a search until the eighth short run, within which it waits for its end.
STOPS = """
import sys, time
from pathlib import Path
from distreal_dse.study.catalogue import StudySource
from distreal_dse.search import Evaluator, SearchSettings, search

runs, evaluate = 0, Evaluator.evaluate

def stop(self, task):
    global runs
    runs += 1
    if runs == 8:
        Path(sys.argv[3]).touch()
        time.sleep(600)
    return evaluate(self, task)

Evaluator.evaluate = stop
settings = SearchSettings(StudySource(sys.argv[1]), trials=int(sys.argv[4]), pilot=False, join=True)
search(settings, sys.argv[2])
"""


def test_one_of_two_is_killed_and_the_other_ends_the_search(
    source: StudySource, url: str, tmp_path: Path
) -> None:
    open_database(url).dispose()
    assert under_way(url) == []
    ready, taken_over = tmp_path / "ready", list[str]()
    killed = subprocess.Popen(
        [sys.executable, "-c", STOPS, source.spec, url, str(ready), str(TRIALS)]
    )

    def kill(progress: SearchProgress) -> None:
        if progress.stage != "search" or progress.done < 3 or killed.poll() is not None:
            return
        wait_until(ready.exists, seconds=600)
        shown = {one["process"]: one for one in under_way(url)}
        assert shown.keys() == {killed.pid, os.getpid()}
        assert shown[killed.pid]["name"] == "tiny" and shown[killed.pid]["alive"]
        alone = run("optimize", source.spec, "--fleet", "none", "--trials", "5", "--storage", url)
        assert "add --join to work on it together" in alone.error(1)
        wrong = run(
            "optimize",
            source.spec,
            "--fleet",
            "none",
            "--join",
            "--no-pilot",
            "--seed",
            "3",
            "--storage",
            url,
        )
        assert "is worked on with other settings" in wrong.error(2)
        taken_over.extend(str(name) for (name,) in rows(url, UNFINISHED))
        killed.kill()
        killed.wait()

    try:
        settings = SearchSettings(source, trials=TRIALS, pilot=False, join=True)
        assert search(settings, url, kill).label == "tiny@1"
    finally:
        killed.kill()
    assert killed.wait() == -signal.SIGKILL
    check_finished(url, [])
    assert len(taken_over) == 1 and trial_of(url, taken_over[0]) is not None


def trial_of(url: str, name: str) -> object:
    ((trial,),) = rows(
        url, f"SELECT trial FROM search_claims WHERE replicate = -1 AND name = '{name}'"
    )
    return trial


def test_two_hosts_share_a_search_on_a_server(source: StudySource, server_url: str) -> None:
    both = [joined(Path(source.spec), server_url, "--fleet", "none") for _ in range(2)]
    try:
        ended = [finish(one) for one in both]
    finally:
        for one in both:
            one.kill()
    check_finished(server_url, ended)
    again = search(SearchSettings(source, trials=TRIALS, join=True), server_url)
    assert again.label == "tiny@1"  # a finished one is as it was


FEW = """
study = replace(study, short_run=replace(study.short_run, table_mini_batches=4))
"""


def test_a_table_is_fitted_together(url: str, tmp_path: Path) -> None:
    study, fleet = write_study(tmp_path, change=FEW), "full=0.5@1,weak=0.5@0.4"
    budgets = make_fleet(fleet).budgets()
    settings = SearchSettings(
        StudySource(str(study)), trials=4, fleet=budgets, pilot=False, join=True
    )
    other = joined(study, url, "--fleet", fleet, "--no-pilot", trials=4)
    try:
        wait_until(lambda: rows(url, "SELECT key FROM search_drivers") != [], seconds=600)
        front = search(settings, url)
        ended = finish(other)
    finally:
        other.kill()
    assert ended.code == 0, ended.stderr
    assert ended.json["name"] == front.name and fronts(url) == [front.label] == ["tiny@1"]
    assert len(vectors(url)) == 4 and set(Counter(vectors(url)).values()) == {1}


ONE_GROUP = """
def narrow():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(6, 3))


study = replace(study, model=narrow)
"""


def test_a_fit_whose_curves_are_all_the_same_ends(url: str, tmp_path: Path) -> None:
    """A network of one group has one curve: each further trial repeats what is finished."""
    source = StudySource(str(write_study(tmp_path, change=FEW + ONE_GROUP)))
    fleet = make_fleet("full=0.5@1,weak=0.5@0.6").budgets()
    settings = SearchSettings(source, trials=3, fleet=fleet, pilot=False)
    assert search(replace(settings, join=True), url).label == "tiny@1"
    alone = search(replace(settings, name="alone", trials=2), url)
    assert alone.settings["trials"] == 2
    more = search(replace(settings, name="alone", trials=4, join=True), url)  # goes on, joined
    assert more.settings["trials"] == 4


def test_a_joined_search_keeps_to_its_memory(source: StudySource, url: str) -> None:
    free = search(SearchSettings(source, trials=9, pilot=False, name="free"), url)
    memories = sorted(point.memory or 0 for point in free.points)
    limit = memories[-1] - 1
    settings = SearchSettings(source, trials=9, pilot=False, memory=limit, join=True)
    verified = search(settings, url)
    assert max(point.memory or limit + 1 for point in verified.points) <= limit


def test_a_joined_search_goes_on_alone(source: StudySource, url: str) -> None:
    front = search(SearchSettings(source, trials=2, join=True), url)
    assert front.label == "tiny@1"
    assert search(SearchSettings(source, trials=3), url).settings["trials"] == 3


def test_seconds_are_not_measured_together(source: StudySource, url: str) -> None:
    with pytest.raises(InputError, match="expected macs with --join"):
        search(SearchSettings(source, cost="latency", join=True), url)

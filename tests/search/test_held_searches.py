"""One process carries out the search of a name at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import optuna
import pytest
from sqlalchemy import text

from distreal_dse.fronts import list_fronts, open_database
from distreal_dse.fronts.leases import HeldError
from distreal_dse.search import SearchProgress, SearchSettings, search
from distreal_dse.search.ledger import holding_search
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.owners import Owner


def stored_trials(url: str, name: str = "tiny") -> int:
    return len(optuna.load_study(study_name=name, storage=url).get_trials())


def owner_of(url: str, name: str = "tiny") -> str | None:
    engine = open_database(url)
    with engine.connect() as connection:
        query = text("SELECT owner FROM searches WHERE name = :name")
        found: str | None = connection.execute(query, {"name": name}).scalar_one()
    engine.dispose()
    return found


def test_a_second_search_of_the_same_name_is_refused_while_the_first_lasts(
    source: StudySource, url: str
) -> None:
    refused: list[str] = []
    settings = SearchSettings(source, trials=4)

    def again(progress: SearchProgress) -> None:
        if progress.stage == "search" and progress.done == 2:
            with pytest.raises(HeldError) as held:
                search(settings, url)
            refused.append(str(held.value))

    front = search(settings, url, again)
    (message,) = refused
    assert f"search 'tiny' is carried out by process {os.getpid()} on " in message
    assert message.endswith(
        "wait for it, or end it and begin both with --join, or search under another name with "
        "--name"
    )
    assert "\n" not in message
    assert stored_trials(url) == 4 and front.label == "tiny@1"
    assert owner_of(url) is None  # it was given back


def test_of_many_searches_of_one_name_at_once_one_is_carried_out(
    source: StudySource, url: str
) -> None:
    together, begun, found = threading.Barrier(3), threading.Barrier(3), []

    def hold() -> None:
        engine = open_database(url)
        together.wait()
        try:
            with holding_search(engine, "tiny"):
                found.append("held")
                begun.wait()
        except HeldError:
            found.append("refused")
            begun.wait()
        finally:
            engine.dispose()

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["held", "refused", "refused"]


def test_searches_of_other_names_go_on_side_by_side(source: StudySource, url: str) -> None:
    def beside(progress: SearchProgress) -> None:
        if progress.stage == "search" and progress.done == 2:
            search(SearchSettings(source, name="beside", trials=2), url)

    search(SearchSettings(source, trials=3), url, beside)
    assert (stored_trials(url), stored_trials(url, "beside")) == (3, 2)


def test_a_search_that_was_killed_goes_on_at_once(source: StudySource, url: str) -> None:
    code = """
import os, signal, sys
from distreal_dse.study.catalogue import StudySource
from distreal_dse.search import SearchSettings, search

def die(progress):
    if progress.stage == "search" and progress.done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

search(SearchSettings(StudySource(sys.argv[1]), trials=4), sys.argv[2], die)
"""
    process = subprocess.run([sys.executable, "-c", code, source.spec, url])
    assert process.returncode == -signal.SIGKILL
    assert Owner.read(owner_of(url) or "").alive is False
    search(SearchSettings(source, trials=4), url)
    assert stored_trials(url) == 4


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_search_that_stops_can_be_carried_on_by_another(
    source: StudySource, url: str, stop: type[BaseException]
) -> None:
    def listen(progress: SearchProgress) -> None:
        if progress.stage == "search" and progress.done == 1:
            raise stop

    with pytest.raises(stop):
        search(SearchSettings(source, trials=4), url, listen)
    assert owner_of(url) is None


@pytest.mark.parametrize("stage", ["search", "verification"])
def test_who_lost_a_search_stores_nothing_of_it_any_more(
    source: StudySource, url: str, stage: str
) -> None:
    other = replace(Owner.here(), host="far away", boot="another", pid=12)

    def lose(progress: SearchProgress) -> None:
        if progress.stage == stage and progress.done == 2:
            engine = open_database(url)
            with engine.begin() as connection:
                connection.execute(
                    text("UPDATE searches SET owner = :owner, owned_since = :now, heartbeat = :at"),
                    {"owner": str(other), "now": "2026-01-31T12:00:00", "at": time.time()},
                )
            engine.dispose()

    taken = "search 'tiny' was taken over by process 12 on far away at 2026-01-31T12:00:00"
    with pytest.raises(HeldError, match=taken):
        search(SearchSettings(source, trials=4), url, lose)
    assert stored_trials(url) == (2 if stage == "search" else 4)
    assert owner_of(url) == str(other)  # nor does it give it back
    engine = open_database(url)
    assert list_fronts(engine) == []
    engine.dispose()

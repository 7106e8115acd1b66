from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from command_line import (
    Ended,
    children_of,
    finish,
    finished_trials,
    is_running,
    run,
    start,
    wait_until,
)
from tiny_study import SLOW, write_study

Stored = dict[int, tuple[object, ...]]


def stored_trials(file: Path, name: str = "tiny") -> Stored:
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{file}")
    return {t.number: (t.state, t.values, t.params, t.user_attrs) for t in study.get_trials()}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies"), "slow", SLOW)


def test_a_killed_search_keeps_its_finished_trials_and_ends_with_all_of_them(
    study: Path, tmp_path: Path
) -> None:
    file, moments = tmp_path / "search.db", random.Random(0)
    command = ("optimize", study, "--trials", "40", "--storage", f"sqlite:///{file}", "--json")
    kept: Stored = {}
    for _ in range(3):
        process = start(*command)
        wanted = len(kept) + moments.randint(1, 5)
        wait_until(lambda wanted=wanted: finished_trials(file) >= wanted)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        assert finish(process).code == -signal.SIGKILL
        now = stored_trials(file)
        assert wanted <= len(now) < 40
        assert kept.items() <= now.items()
        assert {state for state, *_ in now.values()} == {TrialState.COMPLETE}
        kept = now
    ended = run(*command)
    assert ended.code == 0, ended.stderr
    final = stored_trials(file)
    assert sorted(final) == list(range(40))
    assert {state for state, *_ in final.values()} == {TrialState.COMPLETE}
    assert kept.items() <= final.items()
    assert ended.json["version"] == 1
    assert ended.json["settings"]["trials"] == 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_says_so_and_keeps_its_finished_trials(
    slow: Path, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "search.db"
    command = ("optimize", slow, "--trials", "5000", "--storage", f"sqlite:///{file}")
    process = start(*command, installed=number == signal.SIGINT)
    wait_until(lambda: finished_trials(file) >= 2)
    process.send_signal(number)
    ended = finish(process)
    assert ended.code == 130
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert "interrupted" in last and "kept" in last and "again" in last
    trials = stored_trials(file, "slow")
    assert len(trials) >= 2
    assert {state for state, *_ in trials.values()} == {TrialState.COMPLETE}


def test_ctrl_c_ends_the_workers_too_and_only_the_driver_speaks(slow: Path, tmp_path: Path) -> None:
    file = tmp_path / "search.db"
    url = f"sqlite:///{file}"
    process = start("optimize", slow, "--trials", "5000", "--workers", "2", "--storage", url)
    wait_until(lambda: finished_trials(file) >= 1)
    children = children_of(process.pid)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    ended = finish(process)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert "interrupted" in ended.stderr.splitlines()[-1]
    wait_until(lambda: not any(map(is_running, children)))
    assert {state for state, *_ in stored_trials(file, "slow").values()} == {TrialState.COMPLETE}


def test_workers_end_when_the_driver_is_killed(slow: Path, tmp_path: Path) -> None:
    file = tmp_path / "search.db"
    url = f"sqlite:///{file}"
    process = start("optimize", slow, "--trials", "5000", "--workers", "2", "--storage", url)
    wait_until(lambda: finished_trials(file) >= 1)
    children = children_of(process.pid)
    assert len(children) >= 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, children)))
    before = finished_trials(file)
    time.sleep(0.3)
    assert finished_trials(file) == before
    finish(process)


ENDLESS_DATA = """
def endless():
    import time
    from pathlib import Path

    Path(__file__).with_suffix(".reached").touch()
    time.sleep(60)


study = replace(study, data=endless)
"""


@pytest.mark.parametrize("command", ["optimize", "fl run"])
def test_an_interrupt_while_the_data_is_loaded_is_one_line_too(
    command: str, storage: str, tmp_path: Path
) -> None:
    endless = write_study(tmp_path, "endless", ENDLESS_DATA)
    front = ["--front", "tiny"] if command == "fl run" else []
    process = start(*command.split(), endless, *front, "--storage", storage)
    wait_until(endless.with_suffix(".reached").exists)
    process.send_signal(signal.SIGINT)
    ended: Ended = finish(process)
    assert ended.code == 130
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert "interrupted" in ended.stderr.strip()
    assert len(ended.stderr.strip().splitlines()) == 1

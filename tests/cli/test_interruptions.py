from __future__ import annotations

import os
import random
import signal
import sqlite3
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
from terminal import Terminal
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
    command = (
        "optimize",
        study,
        "--fleet",
        "none",
        "--trials",
        "40",
        "--storage",
        f"sqlite:///{file}",
        "--json",
    )
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_search_says_so_and_keeps_its_finished_trials(
    slow: Path, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "search.db"
    command = (
        "optimize",
        slow,
        "--fleet",
        "none",
        "--trials",
        "5000",
        "--storage",
        f"sqlite:///{file}",
    )
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
    process = start(  # its workers are started as those of people are
        "optimize", slow, "--fleet", "none", "--trials", "5000", "--workers", "2", "--storage", url,
        installed=True,
    )  # fmt: skip
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
    process = start(
        "optimize", slow, "--fleet", "none", "--trials", "5000", "--workers", "2", "--storage", url
    )
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


def stored(file: Path, query: str) -> int | None:
    """A number in a database, read beside whoever writes it; None where it is not made yet."""
    if not file.exists():
        return None
    connection = sqlite3.connect(file, timeout=30)
    try:
        (found,) = connection.execute(query).fetchone()
        return None if found is None else int(found)
    except sqlite3.OperationalError:
        return None
    finally:
        connection.close()


LAST_ROUND = "SELECT max(round) FROM run_rounds"
LAST_CHECKPOINT = "SELECT max(round) FROM run_checkpoints"


def fl_run(study: Path, file: Path, *more: str) -> tuple[str | Path, ...]:
    few = ("--strategy", "small", "--rounds", "5000", "--checkpoint-every", "5000")
    small = ("--devices", "4", "--cohort", "2")
    return ("fl", "run", study, *few, *small, "--storage", f"sqlite:///{file}", *more)


def kept_and_said(file: Path, ended: Ended) -> None:
    """A run was interrupted, says so in one line, and goes on with the round after."""
    assert ended.code == 130, ended.stderr
    (line,) = (one for one in ended.stderr.splitlines() if one and not one.startswith("rounds "))
    assert line.startswith("error: interrupted: the figures of rounds 0 to ")
    last = stored(file, LAST_ROUND)
    assert last and stored(file, LAST_CHECKPOINT) == last


def test_those_who_ask_again_and_again_interrupt_nothing_that_is_stored(
    slow: Path, tmp_path: Path
) -> None:
    file = tmp_path / "runs.db"
    process = start(*fl_run(slow, file))
    wait_until(lambda: (stored(file, LAST_ROUND) or 0) >= 2)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    kept_and_said(file, finish(process))


def test_who_does_not_want_to_wait_gets_no_traceback(slow: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    process = start(*fl_run(slow, file))
    wait_until(lambda: (stored(file, LAST_ROUND) or 0) >= 2)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    ended = finish(process)
    assert ended.code == 130 and "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_what_is_sent_to_the_workers_too_leaves_a_checkpoint(
    slow: Path, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "runs.db"
    process = start(*fl_run(slow, file, "--workers", "2"))
    wait_until(lambda: (stored(file, LAST_ROUND) or 0) >= 2)
    children = children_of(process.pid)
    os.killpg(process.pid, number)
    kept_and_said(file, finish(process))
    wait_until(lambda: not any(map(is_running, children)), seconds=5)


def test_a_run_whose_terminal_is_closed_leaves_a_checkpoint(slow: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    terminal = Terminal(*fl_run(slow, file))
    terminal.read_until(lambda _: (stored(file, LAST_ROUND) or 0) >= 2)
    assert terminal.close() == 130
    last = stored(file, LAST_ROUND)
    assert last and stored(file, LAST_CHECKPOINT) == last


def test_what_a_killed_group_leaves_behind_is_removed_by_the_next_run(
    slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, temporary = tmp_path / "runs.db", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = start(*fl_run(slow, file, "--workers", "2"))
    wait_until(lambda: (stored(file, LAST_ROUND) or 0) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    (left,) = without_pytorchs_own(temporary)  # one of ours, and none of Python's own
    assert left.name.startswith("distreal-dse-held-")
    (temporary / "pymp-another").mkdir()
    command = ("--strategy", "small", "--rounds", "1", "--devices", "2", "--cohort", "1")
    ended = run("fl", "run", slow, *command, "--storage", f"sqlite:///{file}")
    assert ended.code == 0
    assert [one.name for one in without_pytorchs_own(temporary)] == ["pymp-another"]


def without_pytorchs_own(folder: Path) -> list[Path]:
    """What lies in a folder beside the cache that PyTorch makes when it is imported first."""
    return [one for one in folder.iterdir() if not one.name.startswith("torchinductor_")]


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

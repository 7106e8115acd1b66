"""``distreal-dse fl compare``, ``fl resume``, ``fl strategies``: what people and programs see."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sqlite3
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from command_line import finish, run, start, wait_until
from distreal_dse.cli._comparison_tables import comparison_tables
from distreal_dse.cli._tuning_tables import learning_rate_table
from fl.compare.candidates import Candidate, Tuned
from fl.compare.summaries import summarise
from fl.results import RoundResult
from fl.store.runs import Run
from tiny_study import NO_SUB_NETWORKS, SLOW, write_study

SMALL = ("--rounds", "3", "--devices", "6", "--cohort", "3")


def rounds_in(file: Path) -> int:
    with sqlite3.connect(file, timeout=30) as connection:
        try:
            (count,) = connection.execute("SELECT count(*) FROM run_rounds").fetchone()
        except sqlite3.OperationalError:  # not there yet
            return 0
    return int(count)


def test_a_comparison_is_shown_to_people_and_to_programs(
    study: Path, storage: str, tmp_path: Path
) -> None:
    command = (
        "fl", "compare", study, "--front", "tiny", *SMALL, "--seeds", "2", "--storage", storage,
        "--split", "by-class", "--strategies", "small,heterofl,distreal", "--workers", "2",
    )  # fmt: skip
    shown = run(*command)
    assert shown.code == 0, shown.stderr
    for name in ("small", "heterofl", "distreal", "strong", "weak", "± half of the 95 %"):
        assert name in " ".join(shown.stderr.split())  # titles may take two lines
    found = run(*command, "--json", "--target", "0.3", installed=True).json  # nothing is left
    assert [one["strategy"] for one in found["strategies"]] == ["small", "heterofl", "distreal"]
    assert found["target"] == 0.3 and len(found["runs"]) == 6
    for one in found["strategies"]:
        assert one["seeds"] == [0, 1]
        assert 0 <= one["final_accuracy"]["mean"] <= 1
        assert 0 <= one["settled_accuracy"]["mean"] <= 1
        assert set(one["accuracy_by_class"]) == {"strong", "medium", "weak"}
    # The comparison has the name of the front, and a report of that name shows both; asked for
    # again by their numbers, runs are not shown twice.
    shared = ("report", "--out", tmp_path / "report.html", "--json", "-", "--storage", storage)
    for subjects in (("tiny",), ("tiny", *map(str, found["runs"]))):
        numbers = run(*shared, *subjects).json
        assert [front["label"] for front in numbers["fronts"]] == ["tiny@1"]
        (compared,) = numbers["comparisons"]
        assert len(compared["runs"]) == 6


def test_each_strategy_is_compared_at_its_best_learning_rate(study: Path, tmp_path: Path) -> None:
    command = (
        "fl", "compare", study, *SMALL, "--storage", f"sqlite:///{tmp_path}/c.db", "--seeds", "1",
        "--strategies", "nested:levels=2,averaging=pooled,small", "--learning-rates", "0.01,0.1",
    )  # fmt: skip
    shown = run(*command)
    assert shown.code == 0, shown.stderr
    found = run(*command, "--json").json  # nothing is left to train
    chosen = found["learning_rates"]
    assert list(chosen) == ["nested:levels=2,averaging=pooled", "small"]
    compared = {one["strategy"] for one in found["strategies"]}
    rates = {repr([one["rate"] for one in tuned["tried"]]) for tuned in chosen.values()}
    assert len(rates) == 1  # the same for all
    for strategy, tuned in chosen.items():
        tried = {one["rate"]: one["accuracy"] for one in tuned["tried"]}
        assert {0.01, 0.1} <= set(tried) and len(tried) <= 8
        taken = tuned["taken"]["rate"]
        assert tried[taken] == max(tried.values())
        assert all(len(one["by_seed"]) == 2 for one in tuned["tried"])
        assert (tuned["not_tried"] == "lower") == (taken == min(tried))
        assert tuned["training_macs"] > 0
        assert f"{strategy}{',' if ':' in strategy else ':'}lr={taken}" in compared
    text = " ".join(shown.stderr.split())
    assert "by learning rate, mean of 2 seeds that are not compared" in text
    page = tmp_path / "report.html"
    shared = ("report", "tiny learning rates", "--out", page, "--storage")
    assert run(*shared, f"sqlite:///{tmp_path}/c.db").code == 0
    assert "validation accuracy" in page.read_text() and "test accuracy" not in page.read_text()


def test_schedules_are_chosen_with_learning_rates_without_any_numbers(
    study: Path, tmp_path: Path
) -> None:
    command = (
        "fl", "compare", study, *SMALL, "--storage", f"sqlite:///{tmp_path}/c.db", "--seeds", "1",
        "--strategies", "small,small:lr=0.1", "--learning-rates", "auto",
        "--schedules", "constant,cosine:end=0.1,warmup=1",
    )  # fmt: skip
    shown = run(*command)
    assert shown.code == 0, shown.stderr
    found = run(*command, "--json").json
    small, own = found["learning_rates"].values()
    schedules = ["constant", "cosine:end=0.1:warmup=1"]
    pairs = {(one["rate"], one["schedule"]) for one in small["tried"]}
    assert {(rate, one) for rate in (0.0167, 0.05, 0.15) for one in schedules} <= pairs
    assert [(one["rate"], one["schedule"]) for one in own["tried"]] == [
        (None, one) for one in schedules
    ]
    compared = [one["strategy"] for one in found["strategies"]]
    assert compared == [
        f"small:lr={small['taken']['rate']},schedule={small['taken']['schedule']}",
        f"small:lr=0.1,schedule={own['taken']['schedule']}",
    ]
    (table,) = shown.stderr.split("Comparison tiny: accuracy on validation")[1:]
    cells = [[cell.strip() for cell in line.split("│")] for line in table.splitlines()]
    heads = [cell.strip() for cell in table.split("┃")]
    assert {"schedule", "0.05", "its own", "tried", "TMACs", "taken"} <= set(heads)
    rows = [row[-4] for row in cells if len(row) > 5 and row[1].startswith("small")]
    assert rows[:2] == [str(len(pairs)), "2"]


def table_rows(table: Table) -> list[list[str]]:
    screen = Console(file=io.StringIO(), width=200)
    screen.print(table)
    lines = screen.file.getvalue().splitlines()
    return [[cell.strip() for cell in one[1:-1].split("│")] for one in lines if one[:1] == "│"]


def test_a_choice_that_ends_at_its_bound_is_told() -> None:
    rates = tuple(map(Candidate, (0.1, 0.2, 0.4)))
    tried = {rates[0]: (0.5, 0.6), rates[1]: (0.6, 0.7), rates[2]: (0.7, 0.8)}
    inside = {**tried, rates[1]: (0.9, 0.9)}
    tuned = [
        Tuned("small", rates, tried, 2e12),
        Tuned("nested", rates, inside),
        Tuned("fjord", rates, {}),
        Tuned("fedavg:lr=1", (), {}),
    ]
    assert table_rows(learning_rate_table("c", tuned)) == [
        ["small", "55.0%", "65.0%", "75.0%", "3", "2", "0.4; higher ones were not tried"],
        ["nested", "55.0%", "90.0%", "75.0%", "3", "0", "0.2"],
        ["fjord", "", "", "", "3", "0", "the study's: all failed"],
        ["fedavg:lr=1", "", "", "", "0", "0", "its own"],
    ]


def test_each_schedule_that_was_tried_has_a_row_of_its_own() -> None:
    pairs = [Candidate(rate, one) for one in ("constant", "cosine") for rate in (0.1, 0.2, 0.4)]
    tried = {pair: (0.1 * number,) * 2 for number, pair in enumerate(pairs[:5], start=1)}
    own = {Candidate(None, "constant"): (0.9, 0.9)}
    tuned = [Tuned("small", tuple(pairs), tried), Tuned("fjord:lr=1", tuple(own), own)]
    assert table_rows(learning_rate_table("c", tuned)) == [
        ["small", "constant", "10.0%", "20.0%", "30.0%", "", "6", "0", "0.2 cosine"],
        ["", "cosine", "40.0%", "50.0%", "", "", "", "", ""],
        ["fjord:lr=1", "constant", "", "", "", "90.0%", "1", "0", "constant"],
    ]


def test_a_single_seed_has_no_confidence_interval(study: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    command = ("fl", "compare", study, *SMALL, "--seeds", "1", "--strategies", "small")
    found = run(*command, "--storage", url, "--json").json
    assert found["strategies"][0]["final_accuracy"]["low"] is None


def test_the_seeds_of_each_strategy_are_told_where_they_differ() -> None:
    def shown(*runs: tuple[str, int]) -> str:
        curve = (RoundResult(0, 0.0, 0.1, 2.0), RoundResult(1, 1.0, 0.5, 1.0))
        stored = [
            Run(7, "tiny", strategy, None, None, "abc", seed, {}, "", True, "c", curve)
            for strategy, seed in runs
        ]
        found, target = summarise(stored)
        screen = Console(file=io.StringIO(), width=200)
        for table in comparison_tables("c", found, target):
            screen.print(table)
        return screen.file.getvalue()

    equal = shown(("small", 0), ("small", 1), ("fjord", 0), ("fjord", 1))
    assert "mean of 2 seeds ±" in equal and " seeds " not in equal.replace("2 seeds", "")
    text = shown(("small", 0), ("small", 1), ("small", 2), ("fjord", 0))
    assert "mean of 1 to 3 seeds ±" in text
    cells = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()]
    assert [row[2] for row in cells if len(row) > 2 and row[1] == "small"] == ["3", "3"]
    assert [row[2] for row in cells if len(row) > 2 and row[1] == "fjord"] == ["1", "1"]


def test_an_interrupted_comparison_says_how_to_go_on(tmp_path: Path) -> None:
    slow = write_study(tmp_path, "slow", SLOW)
    file = tmp_path / "c.db"
    command = (
        "fl", "compare", slow, *SMALL, "--seeds", "2", "--strategies", "small,heterofl",
        "--storage", f"sqlite:///{file}", "--workers", "2",
    )  # fmt: skip
    process = start(*command)
    wait_until(lambda: file.exists() and rounds_in(file) >= 3)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 130 and "Traceback" not in ended.stderr
    assert "the same command goes on" in ended.stderr
    again = run(*command, "--json")
    assert again.code == 0, again.stderr
    assert rounds_in(file) == 16


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(file, timeout=30) as connection:
        return connection.execute(query).fetchall()


LAST = "SELECT runs.id, max(round) FROM runs JOIN run_rounds ON run_id = runs.id GROUP BY runs.id"


def test_advice_is_given_to_people_and_to_programs(study: Path, storage: str) -> None:
    command = (
        "fl", "advise", study, *SMALL, "--seeds", "2", "--storage", storage, "--rounds", "1",
        "--strategies", "small,nested", "--learning-rates", "0.05,0.5,5",
    )  # fmt: skip
    shown = run(*command)
    assert shown.code == 0, shown.stderr
    words = " ".join(shown.stderr.split())
    assert "Comparison tiny advice: accuracy on validation data by learning rate" in words
    found = run(*command, "--json").json
    assert found["sentences"] in words and found["sentences"].startswith(f"Take {found['advice']}.")
    assert found["certain"] == (found["rivals"] == [])
    assert {one["strategy"] for one in found["differences"]} | {found["advice"]} == {
        one["strategy"] for one in found["strategies"]
    }
    refused = run(*command[:2], study, "--seeds", "1", "--storage", storage)
    assert refused.code == 2 and "--seeds: expected at least 2" in refused.stderr


def test_ctrl_c_keeps_all_finished_rounds_of_runs_in_processes(tmp_path: Path) -> None:
    slow = write_study(tmp_path, "slow", SLOW)
    file = tmp_path / "c.db"
    command = (
        "fl", "compare", slow, "--rounds", "25", "--devices", "6", "--cohort", "3", "--seeds", "1",
        "--strategies", "small,heterofl", "--storage", f"sqlite:///{file}", "--workers", "2",
    )  # fmt: skip
    process = start(*command)
    wait_until(
        lambda: rounds_in(file) and all(last for _, last in rows(file, LAST)[1:] or [(0, 0)])
    )
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    ended = finish(process)
    assert ended.code == 130 and "Traceback" not in ended.stderr
    begun = rows(file, LAST.replace("GROUP", "WHERE NOT finished AND round > 0 GROUP"))
    assert begun
    # Not the only ones, where ten rounds were done before the signal came.
    newest = "SELECT run_id, MAX(round) FROM run_checkpoints GROUP BY run_id ORDER BY run_id"
    assert rows(file, newest) == begun
    assert all(owner is None for (owner,) in rows(file, "SELECT owner FROM runs"))
    first = rows(file, "SELECT run_id, round, rowid FROM run_rounds")
    again = run(*command, "--json")
    assert again.code == 0, again.stderr
    assert rounds_in(file) == 52
    assert set(first) <= set(rows(file, "SELECT run_id, round, rowid FROM run_rounds"))  # as it was


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_comparison_that_is_started_twice_at_once_trains_each_run_once(
    tmp_path: Path, workers: str
) -> None:
    slow = write_study(tmp_path, "slow", SLOW)
    file = tmp_path / "c.db"
    command = (
        "fl", "compare", slow, "--rounds", "4", "--devices", "6", "--cohort", "3", "--seeds", "2",
        "--strategies", "small,heterofl", "--storage", f"sqlite:///{file}", "--workers", workers,
        "--json",
    )  # fmt: skip
    both = [finish(process) for process in [start(*command), start(*command)]]
    assert [one.code for one in both] == [0, 0], [one.stderr for one in both]
    assert both[0].json == both[1].json
    assert sorted(both[0].json["runs"]) == [1, 2, 3, 4]
    kinds = rows(file, "SELECT strategy, seed, finished FROM runs ORDER BY strategy, seed")
    assert kinds == [(name, seed, 1) for name in ("heterofl", "small") for seed in (0, 1)]
    assert rounds_in(file) == 20


def test_a_run_under_way_is_not_resumed_by_another_process(tmp_path: Path) -> None:
    slow = write_study(tmp_path, "slow", SLOW)
    file = tmp_path / "c.db"
    url = f"sqlite:///{file}"
    process = start(
        "fl", "run", slow, "--strategy", "small", "--rounds", "999", "--devices", "6", "--cohort",
        "3", "--storage", url,
    )  # fmt: skip
    wait_until(lambda: file.exists() and rounds_in(file) >= 2)
    line = run("fl", "resume", "1", "--storage", url).error(1)
    assert f"run 1 is carried out by process {process.pid} on {socket.gethostname()} since" in line
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    assert rows(file, "SELECT max(round) - count(*), min(round) FROM run_rounds") == [(-1, 0)]


def test_a_driver_that_is_killed_leaves_no_states_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, file, temporary = write_study(tmp_path, "slow", SLOW), tmp_path / "c.db", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = start(
        "fl", "run", slow, "--strategy", "small", *SMALL, "--rounds", "50", "--workers", "2",
        "--storage", f"sqlite:///{file}",
    )  # fmt: skip
    wait_until(lambda: rounds_in(file) >= 2)
    assert list(temporary.glob("distreal-dse-*"))
    process.kill()
    finish(process)
    wait_until(lambda: not list(temporary.glob("distreal-dse-*")))


def test_runs_that_fail_are_told_at_the_end_in_a_line_each(tmp_path: Path) -> None:
    picky = write_study(tmp_path, "picky", NO_SUB_NETWORKS)
    command = (
        "fl", "compare", picky, *SMALL, "--seeds", "2", "--strategies", "heterofl,fedavg",
        "--storage", f"sqlite:///{tmp_path}/c.db",
    )  # fmt: skip
    ended = run(*command)
    assert ended.code == 1 and "Traceback" not in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: run of heterofl, seed {seed}: ValueError: not so narrow" for seed in (0, 1)
    ]
    assert "Comparison picky: accuracy, mean of 2 seeds" in ended.stderr
    found = run(*command, "--json")
    assert found.code == 1 and [one["strategy"] for one in found.json["strategies"]] == ["fedavg"]


def test_a_killed_run_is_resumed_by_somebody_else_who_names_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = write_study(tmp_path, "slow", SLOW)
    file = tmp_path / "c.db"
    url = f"sqlite:///{file}"
    arguments = (
        "fl", "run", slow, "--strategy", "fedrolex", "--rounds", "6", "--devices", "6", "--cohort",
        "3", "--checkpoint-every", "2", "--availability", "constant:share=0.5",
    )  # fmt: skip
    expected = run(*arguments, "--storage", f"sqlite:///{tmp_path}/other.db", "--json").json
    process = start(*arguments, "--storage", url)
    wait_until(lambda: file.exists() and rounds_in(file) >= 4)
    process.kill()
    finish(process)
    assert rounds_in(file) < 7
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody else"))
    resume = ("fl", "resume", "1", "--storage", url, "--json")
    assert f"run 1 names the study file {str(slow)!r}" in run(*resume).error(2)
    resumed = run(*resume, "--study", slow, installed=True)
    assert resumed.code == 0, resumed.stderr
    assert resumed.json["rounds"] == expected["rounds"] and resumed.json["finished"]


def test_strategies_are_listed(study: Path) -> None:
    found = run("fl", "strategies", "--json").json
    assert {"fedavg", "small", "heterofl", "fjord", "fedrolex", "distreal"} <= set(found)
    assert all(len(text) > 10 for text in found.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strategies", "distreal:form=random"), "strategy 'distreal': expected a front"),
        (
            ("--strategies", "distreal:form=fixed"),
            "form of strategy 'distreal': expected random or",
        ),
        (("--strategies", "small", "--classes", "weak=1"), "--classes: expected NAME=SHARE@SPEED"),
        (("--strategies", "small", "--seeds", "0"), "--seeds: expected at least 1"),
        (("--strategies", "small", "--target", "90"), "--target: expected an accuracy"),
        (("--strategies", "small", "--pace", "0"), "pace of the federated run"),
        (("--strategies", "small,fjord-kd:alpha=2"), "alpha of strategy fjord-kd: expected 0 to 1"),
        (("--strategies", "small", "--learning-rates", "0.1;0.2"), "expected auto, or numbers"),
        (("--strategies", "small", "--learning-rates", "0.1"), "or two or more to choose from"),
        (("--strategies", "small", "--schedules", "constant,cosine"), "give --learning-rates auto"),
        (
            ("--learning-rates", "auto", "--schedules", "constant,cosine", "--schedule", "cosine"),
            "--schedule beside --schedules: expected one of them",
        ),
        (
            ("--strategies", "small", "--learning-rates", "auto", "--schedules", "constant"),
            "expected two or more to choose from, such as constant,cosine, found constant",
        ),
        (("--strategies", "small:lr=0"), "lr of a strategy: expected finite numbers above 0"),
        (("--strategies", "small", "--evaluate-on", "train"), "expected on test or validation"),
        (("--strategies", "small", "--statistics", "some"), "one of all, cohort, averaged"),
    ],
)
def test_what_can_not_be_compared_is_refused(
    study: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    line = run("fl", "compare", study, *SMALL, *arguments, "--storage", url).error(2)
    assert message in line


def test_an_unknown_run_is_not_resumed(tmp_path: Path) -> None:
    line = run("fl", "resume", "7", "--storage", f"sqlite:///{tmp_path}/c.db").error(2)
    assert "run 7: expected a stored run, found none at all" in line


def test_a_run_of_an_older_version_is_not_resumed(study: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    url = f"sqlite:///{file}"
    run("fl", "run", study, "--strategy", "small", *SMALL, "--storage", url)
    with sqlite3.connect(file) as connection:
        settings = json.dumps({"rounds": 30, "masks": "random"})
        connection.execute("UPDATE runs SET settings = ?, finished = 0", (settings,))
    line = run("fl", "resume", "1", "--storage", url).error(2)
    assert "stored by another version" in line

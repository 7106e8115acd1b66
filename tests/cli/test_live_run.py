"""The live view of a federated run: what it shows, and that it leaves a terminal as it was."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from command_line import run
from distreal_dse.cli._live_run import REFRESHES, RunView, Sparkline
from fl.results import DeviceRound, Outcome, RoundResult, round_result
from terminal import CTRL_C, Terminal, screen
from tiny_study import SLOW, write_study


def shown(renderable: object, width: int = 80, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, record=True, force_terminal=True)
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().splitlines()]


def one(
    name: str, outcome: Outcome, mini_batches: int = 10, share: float = 0.5, over: int = 0
) -> DeviceRound:
    return DeviceRound(0, name, outcome, 1.0, 1e6, mini_batches, share, over, 0, 0)


def result(
    number: int, *devices: DeviceRound, accuracy: float | None = None, seconds: float = 0.0
) -> RoundResult:
    return replace(round_result(number, seconds, devices), accuracy=accuracy)


def table(lines: list[str], title: str) -> dict[str, list[str]]:
    """Cells of the rows under a heading by the first of them."""
    start = next(i for i, line in enumerate(lines) if line.startswith(title)) + 2
    rows = [re.split(r" +", line) for line in lines[start:]]
    end = next((i for i, row in enumerate(rows) if row == [""]), len(rows))
    return {row[0]: row[1:] for row in rows[:end]}


def row(lines: list[str], label: str) -> str:
    (found,) = (line for line in lines if line.startswith(label + " "))
    return found.removeprefix(label).strip()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_last_cohort_is_counted_by_class_and_outcome() -> None:
    view = RunView("Run 1", 5, classes=["strong", "weak", "absent"])
    view.add(result(0, accuracy=0.1))
    view.add(result(1, one("strong", "rejected"), one("weak", "rejected")))
    last = [
        one("strong", "accepted"), one("strong", "late"), one("weak", "accepted"),
        one("weak", "partial"), one("weak", "missed", 3), one("weak", "missed", 2),
    ]  # fmt: skip
    view.add(replace(result(2, *last), cohort=tuple(range(6))))
    lines = shown(view)
    assert "last cohort: 6 devices" in "\n".join(lines)
    counts = {name: cells[:4] for name, cells in table(lines, "last cohort").items()}
    assert counts == {  # merged, partial, missed, rejected
        "strong": ["2", "0", "0", "0"],
        "weak": ["1", "1", "2", "0"],
        "absent": ["0", "0", "0", "0"],
    }
    assert "surplus" not in "\n".join(lines)
    view.add(result(3, one("weak", "surplus")))
    lines = shown(view)
    assert table(lines, "last cohort")["weak"][:5] == ["0", "0", "0", "1", "0"]


def test_the_use_of_budgets_is_weighted_by_mini_batches_of_all_rounds() -> None:
    view = RunView("Run 1", 5, classes=["strong", "weak"])
    view.add(result(1, one("weak", "accepted", 10, 0.2, 1)))
    view.add(result(2, one("weak", "missed", 30, 0.6, 5)))
    lines = shown(view, 40)
    # (10 · 0.2 + 30 · 0.6) / 40, and 6 of 40
    assert table(lines, "all mini-batches") == {"strong": [], "weak": ["50%", "15.0%"]}
    assert table(shown(view, 80), "last cohort")["weak"][-2:] == ["50%", "15.0%"]
    assert row(lines, "wasted") == "50.0% of 2e+06 MACs"


def test_progress_and_accuracy_are_told() -> None:
    clock = Clock()
    view = RunView("Run 1", 20, until=100.0, clock=clock)
    view.add(result(0, accuracy=0.1))
    for number, accuracy in ((1, 0.8), (2, None), (3, 0.7), (4, None)):
        clock.now += 10
        view.add(result(number, one("weak", "accepted"), accuracy=accuracy, seconds=5.0 * number))
    clock.now += 4
    lines = shown(view)
    assert row(lines, "accuracy") == "70.0%, best 80.0% in round 1"
    assert lines[lines.index(f"accuracy   {row(lines, 'accuracy')}") + 1].strip() == "▁█▇"
    assert row(lines, "virtual s") == "20 of 100"
    assert row(lines, "round").startswith("4 of 20 ")
    # 16 rounds of 10 s are left, of which 4 s have gone by.
    assert row(lines, "time") == "0:00:44, about 0:02:36 left"
    clock.now += 10
    view.add(result(5, seconds=90.0))
    # The virtual time ends first: 18 s a round, so 10 / 18 of a round of 10.8 s.
    assert row(shown(view), "time") == "0:00:54, about 0:00:06 left"
    clock.now += 100
    assert row(shown(view), "time").endswith("about 0:00:00 left")
    view.add(result(20, seconds=99.0))
    assert row(shown(view), "time") == "0:02:34"


def test_a_run_that_goes_on_counts_stored_rounds_but_those_trained_again() -> None:
    before = [result(0, accuracy=0.1)] + [
        result(number, one("weak", "accepted", 10, 0.2), accuracy=0.2 * number)
        for number in (1, 2, 3)
    ]
    view = RunView("Run 1", 6, before=before)
    assert shown(view) == ["Run 1"]
    view.add(result(2, one("weak", "missed", 10, 0.6), accuracy=0.3))
    lines = shown(view)
    assert row(lines, "accuracy") == "30.0%, best 30.0% in round 2"
    assert row(lines, "wasted") == "50.0% of 2e+06 MACs"
    assert table(lines, "last cohort")["weak"][-2:] == ["40%", "0.0%"]
    assert "left" not in row(lines, "time")  # no round was timed yet


@pytest.mark.parametrize("width", [40, 80])
def test_names_are_text_and_not_markup(width: int) -> None:
    view = RunView("Run 1: [bold]study", 5, classes=["[red]x", "\x1b[31my\n"])
    view.add(result(1, one("[red]x", "accepted"), one("[/]", "missed")))
    lines = shown(view, width)
    assert lines[0] == "Run 1: [bold]study"
    assert list(table(lines, "last cohort")) == ["[red]x", "�[31my�", "[/]"]


@pytest.mark.parametrize(("width", "others"), [(80, 5), (40, 12)])
def test_it_fits_in_a_terminal(width: int, others: int) -> None:
    names = ["a class with a name that is long", "テレフォン" * 4, *"abcdefghijklmn"]
    view = RunView("Run 1: a study with a name that is long as well", 1000, 1e5, names)
    outcomes: tuple[Outcome, ...] = ("accepted", "surplus", "missed")
    for number in range(200):
        devices = [one(name, outcome, 100, 1.0, 100) for name in names for outcome in outcomes]
        view.add(result(number, *devices, accuracy=number / 200, seconds=number * 123.4))
    lines = shown(view, width)
    assert len(lines) <= 24
    for heading in ("class", "merged", "missed", "mean cost", "over budget"):
        assert re.search(rf"\b{heading}( |$)", "\n".join(lines), re.M)
    assert re.search(
        rf"^{others} others +{others} +0 +{others} +{others} +0", "\n".join(lines), re.M
    )
    rendered = Console(file=io.StringIO(), width=width).render_lines(view, pad=False)
    assert max(sum(part.cell_length for part in line) for line in rendered) <= width


def test_any_width_and_any_encoding_is_good_for_something() -> None:
    view = RunView("Run 1", None, classes=["weak"])
    view.add(result(1, one("weak", "accepted"), accuracy=0.5))
    for width in range(1, 40):
        shown(view, width)
    assert all(line.isascii() for line in shown(view, encoding="ascii"))


def test_a_sparkline_shows_means_from_the_lowest_to_the_highest() -> None:
    assert shown(Sparkline([0.5])) == shown(Sparkline([0.0])) == ["▁"]
    assert shown(Sparkline([0.0, 1.0, 0.5, 0.25])) == ["▁█▅▃"]
    assert shown(Sparkline([1.0, 3.0, 7.0, 9.0, 0.0, 0.0]), width=3) == ["▃█▁"]
    (line,) = shown(Sparkline([i / 1000 for i in range(1000)]), width=16)
    assert line == "▁▁▂▂▃▃▄▄▅▅▆▆▇▇██"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies"), "slow", SLOW)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """Terminals whose commands are ended with the test."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.process.kill()
        terminal.process.wait()


def fl_run(study: Path, folder: Path, rounds: int) -> tuple[str | Path, ...]:
    return (
        "fl", "run", study, "--strategy", "small", "--rounds", str(rounds), "--devices", "6",
        "--cohort", "3", "--classes", "[red]x=0.5@1,weak=0.5@0.25",
        "--storage", f"sqlite:///{folder}/run.db",
    )  # fmt: skip


def test_a_run_in_a_terminal_has_a_live_view_and_leaves_it_clean(
    slow: Path, tmp_path: Path, terminals: list[Terminal]
) -> None:
    terminals.append(terminal := Terminal(*fl_run(slow, tmp_path, 400)))
    terminal.read_until(lambda text: text.count("wasted") >= 3)
    terminal.type(CTRL_C)
    assert terminal.finish() == 130
    lines, cursor = screen(terminal.text)
    assert cursor and lines.pop() == ""
    assert lines[0] == "Run 1: slow, small"
    error = next(i for i, line in enumerate(lines) if line.startswith("error: "))
    assert list(table(lines[:error], "last cohort")) == ["[red]x", "weak"]
    rounds = int(row(lines, "round").split()[0])
    assert 0 < rounds < 400
    # Nothing is left of earlier views, and one message ends it.
    sparkline = lines[4].strip()
    assert [line.split()[0] for line in lines[:error] if line] == [
        "Run", "round", "time", "accuracy", sparkline, "virtual", "wasted",
        "last", "class", "[red]x", "weak",
    ]  # fmt: skip
    message = "".join(lines[error:])
    assert message.startswith("error: interrupted: the figures of rounds 0 to ")
    assert message.endswith("`distreal-dse fl resume 1` goes on")


def test_a_resumed_run_has_it_too_and_ends_with_its_curve(
    slow: Path, tmp_path: Path, terminals: list[Terminal]
) -> None:
    command = fl_run(slow, tmp_path, 60)
    terminals.append(terminal := Terminal(*command, columns=40))
    terminal.read_until(lambda text: "wasted" in text)
    terminal.type(CTRL_C)
    assert terminal.finish() == 130
    storage = command[-2:]
    terminals.append(resumed := Terminal("fl", "resume", "1", *storage, columns=100))
    began = time.monotonic()
    assert resumed.finish() == 0
    lines, cursor = screen(resumed.text)
    assert cursor
    assert row(lines, "round").startswith("60 of 60 ")
    assert re.search("Run 1: small, 60 rounds, final accuracy", "\n".join(lines))
    views = resumed.text.count("last cohort")
    assert 1 <= views <= REFRESHES * (time.monotonic() - began) + 1  # the last when it stops


def test_programs_get_no_live_view(study: Path, tmp_path: Path, terminals: list[Terminal]) -> None:
    command = fl_run(study, tmp_path, 3)
    output = tmp_path / "out.json"
    terminals.append(terminal := Terminal(*command, "--json", stdout=output))
    assert terminal.finish() == 0
    assert "wasted" not in terminal.text and "rounds" in terminal.text  # the line of progress
    assert len(json.loads(output.read_text())["rounds"]) == 4
    piped = run(*command)
    assert "wasted" not in piped.stderr and "3/3" in piped.stderr and "\x1b" not in piped.stderr

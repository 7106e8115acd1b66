"""How far a command is, where no terminal is."""

from __future__ import annotations

import io
import re
import signal
from pathlib import Path

from rich.console import Console

from command_line import finish, start
from distreal_dse.api import stage_listener
from distreal_dse.search import SearchProgress
from distreal_dse.support.progress import EVERY, SHARE, Lines, progress_bar
from tiny_study import SLOW, write_study


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Log:
    """Lines that were written by a progress whose clock is set by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.file = io.StringIO()
        self.progress = Lines(Console(file=self.file, width=40), self.clock)

    def show(self, after: float, done: int, total: int | None = 100, note: str = "") -> list[str]:
        """The lines of a step that is done some seconds after the one before."""
        self.clock.now += after
        start = len(self.file.getvalue())
        self.progress.show("search", done, total, note)
        return self.file.getvalue()[start:].splitlines()


def test_a_stage_has_a_line_at_its_beginning_and_end_and_now_and_then_between() -> None:
    log = Log()
    assert log.show(0, 0, note="[red]x") == ["search       0/100  0:00:00  [red]x"]
    assert log.show(EVERY / 2, 10) == []
    assert log.show(EVERY / 2, 25) == ["search       25/100  0:00:10, about 0:00:30 left"]
    assert log.show(EVERY * 0.9, 26) == []
    assert log.show(EVERY * 0.9, 50) == ["search       50/100  0:00:28, about 0:00:28 left"]
    assert log.show(0, 100) == ["search       100/100  0:00:28"]
    assert log.show(0, 100) == []


def test_what_was_done_before_says_nothing_of_the_time_left() -> None:
    log = Log()
    assert log.show(0, 60) == ["search       60/100  0:00:00"]
    assert log.show(20, 70) == ["search       70/100  0:00:20, about 0:01:00 left"]


def test_an_unknown_end_is_no_obstacle() -> None:
    log = Log()
    log.show(0, 0, None)
    assert log.show(EVERY, 7, None) == ["search       7/?  0:00:10"]


def test_a_stage_that_ends_early_says_how_far_it_came() -> None:
    log = Log()
    log.show(0, 0)
    assert log.show(1, 3) == []
    log.progress.show("verification", 0, 4)
    log.progress.show("verification", 1, 4)
    log.progress.close()
    assert [line.split()[:2] for line in log.file.getvalue().splitlines()] == [
        ["search", "0/100"], ["search", "3/100"], ["verification", "0/4"], ["verification", "1/4"],
    ]  # fmt: skip


def test_hours_take_hundreds_of_lines_and_not_thousands() -> None:
    log = Log()
    hours = 10
    lines = sum(len(log.show(1, second, hours * 3600)) for second in range(hours * 3600))
    # One each EVERY until the share counts, then one each time that the stage has become longer by
    # the share: 500 / 10 + ln(36000 / 500) / -ln(1 - 0.02).
    assert EVERY / SHARE == 500 and 250 < lines < 270


def test_a_search_announces_its_verification() -> None:
    file = io.StringIO()
    with progress_bar(Console(file=file, width=120)) as shown:
        listen = stage_listener(shown)
        listen(SearchProgress("search", 0, 9))
        listen(SearchProgress("search", 9, 9, 1, 4))
        listen(SearchProgress("verification", 0, 8, 0, 4))
    lines = file.getvalue().splitlines()
    assert lines[1] == "search       9/9  0:00:00  4 non-dominated, 1 failed"
    assert lines[2] == "verification 0/8  0:00:00  the best again, with fresh short runs"


def test_a_run_writes_to_a_pipe_while_it_goes_on(tmp_path: Path) -> None:
    slow = write_study(tmp_path, "slow", SLOW)
    process = start(
        "fl", "run", slow, "--strategy", "small", "--rounds", "2000", "--devices", "6",
        "--cohort", "3", "--storage", f"sqlite:///{tmp_path}/run.db",
    )  # fmt: skip
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert re.match(r"rounds +0/2000  0:00:00  accuracy ", first)
    assert ended.code == 130 and "error: interrupted: the figures of rounds 0 to" in ended.stderr

"""How far a command is: bars in a terminal, now and then a plain line in a file or a pipe."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

# Of tables and lines in a file or a pipe, which have no width of their own.
LOG_WIDTH = 120
# Seconds from one line of a stage to the next, and their share of the stage's time so far: hours
# take a few hundred lines.
EVERY, SHARE = 10.0, 0.02


def console() -> Console:
    """The console for people: standard error, and in a notebook what its cell shows.

    A notebook shows standard error as if something had gone wrong.
    """
    from rich.console import Console

    if Console().is_jupyter:
        return Console(file=sys.stdout, force_jupyter=False, highlight=False, width=LOG_WIDTH)
    screen = Console(stderr=True, highlight=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = LOG_WIDTH
    return screen


@contextmanager
def progress_bar(target: Console) -> Iterator[Progress]:
    """Show how far work is, as bars or, where no terminal is, as lines."""
    progress = Bars(target) if is_live(target) else Lines(target)
    try:
        yield progress
    finally:
        progress.close()


def is_live(target: Console) -> bool:
    """Whether it is a terminal in which lines can be written over."""
    # FORCE_COLOR, say, makes rich take a file for a terminal.
    return target.is_interactive and target.file.isatty()


class Progress(ABC):
    """Shows stages of work, one after the other."""

    @abstractmethod
    def show(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show that ``done`` of ``total`` (None where that is not known) of a stage are done."""

    @abstractmethod
    def close(self) -> None:
        """Leave what was shown last."""


class Bars(Progress):
    """A bar for each stage, with time left."""

    def __init__(self, target: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._tasks: dict[str, TaskID] = {}
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=target,
        )

    def show(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Move the bar of the stage; the first one starts the display."""
        if stage not in self._tasks:
            self._bars.start()
            for task in self._tasks.values():
                self._bars.stop_task(task)
            # With what was done before this process, of which the time left knows nothing.
            self._tasks[stage] = self._bars.add_task(
                f"{stage:12}", total=total, completed=done, note=note
            )
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)

    def close(self) -> None:
        """Stop the display."""
        if self._bars.live.is_started:  # stopping prints a line in any case
            self._bars.stop()


@dataclass(frozen=True)
class _Shown:
    stage: str
    done: int
    total: int | None
    note: str
    at: float  # seconds of the clock


class Lines(Progress):
    """A line when a stage begins and ends, and now and then in between.

    Parameters
    ----------
    target
        Where lines are written.
    clock
        Gives seconds.
    """

    def __init__(self, target: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._target, self._clock = target, clock
        self._first: _Shown | None = None
        self._printed: _Shown | None = None
        self._last: _Shown | None = None

    def show(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Write a line if it is time for one."""
        now = _Shown(stage, done, total, note, self._clock())
        if self._first is None or self._printed is None or self._first.stage != stage:
            self.close()
            self._first = now
            self._print(now)
            return
        self._last = now
        pause = max(EVERY, SHARE * (now.at - self._first.at))
        if (done == total and self._printed.done != total) or now.at - self._printed.at >= pause:
            self._print(now)

    def close(self) -> None:
        """Write how far the stage came, where no line has said it."""
        if self._last is not None and self._printed is not None:
            if self._last.done != self._printed.done:
                self._print(self._last)
            self._last = None

    def _print(self, shown: _Shown) -> None:
        assert self._first is not None
        self._printed = shown
        elapsed = shown.at - self._first.at
        done, total = shown.done - self._first.done, shown.total
        text = f"{shown.stage:12} {shown.done}/{'?' if total is None else total}"
        text += f"  {_duration(elapsed)}"
        if done > 0 and total is not None and shown.done < total:
            text += f", about {_duration(elapsed * (total - shown.done) / done)} left"
        note = f"  {shown.note}" if shown.note else ""
        self._target.print(text + note, markup=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))

"""A federated run that is under way, as people see it in a terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fl.results import Outcome, RoundResult
    from fl.store.runs import Run

REFRESHES = 2  # a second; each takes about 5 ms
WIDE = 76  # columns in which the tables fit beside each other
CLASS_ROWS, NARROW_CLASS_ROWS = 12, 5  # so that all fits on 24 lines
GAP = 3  # columns between them
SHORTEST_NAME = 4
BUDGET = ("mean cost", "over budget")
LEVELS, ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
# Heading, heading in a narrow terminal, and the outcomes that it counts.
OUTCOMES: tuple[tuple[str, str, tuple[Outcome, ...]], ...] = (
    ("merged", "merged", ("accepted", "late")),
    ("partial", "part.", ("partial",)),
    ("missed", "missed", ("missed",)),
    ("surplus", "surp.", ("surplus",)),
    ("rejected", "rej.", ("rejected",)),
)

_Row: TypeAlias = tuple[Text, Sequence[str]]  # its label, and the classes that it sums


@contextmanager
def live_view(target: Console, run: Run) -> Iterator[Callable[[RoundResult], None]]:
    """Show a run from the first round on that the listener is given; give the listener."""
    settings = run.settings
    front = f" with front {run.front_label}" if run.front_label else ""
    view = RunView(
        f"Run {run.id}: {run.study}, {run.strategy}{front}",
        settings.get("rounds"),
        settings.get("until"),
        [one["name"] for one in settings.get("classes", ())],
        run.rounds,
    )
    live = Live(
        view,
        console=target,
        refresh_per_second=REFRESHES,
        redirect_stdout=sys.stdout.isatty(),  # what a study prints to a file stays there
    )

    def listen(result: RoundResult) -> None:
        view.add(result)
        live.start(refresh=True)

    try:
        yield listen
    finally:
        try:
            live.stop()
        finally:  # an interrupt may come while it starts or stops
            target.show_cursor(True)


@dataclass
class _Spent:
    """What the devices of a class spent since the run began."""

    mini_batches: int = 0
    cost: float = 0.0  # in mini-batches of the full network
    over_budget: int = 0

    def add(self, mini_batches: int, cost: float, over_budget: int) -> None:
        self.mini_batches += mini_batches
        self.cost += cost
        self.over_budget += over_budget

    def cells(self) -> tuple[str, str]:
        if not self.mini_batches:
            return "", ""
        return f"{self.cost / self.mini_batches:.0%}", f"{self.over_budget / self.mini_batches:.1%}"


class RunView:
    """The figures of a run so far; a renderable of rich for any width.

    One thread may add rounds while another renders. The work of both is the same however many
    rounds there were, but for the history of the accuracy.

    Parameters
    ----------
    title
        Names the run.
    rounds
        After which the run ends; None where that is not known.
    until
        Virtual seconds after which it ends before; None for no such limit.
    classes
        Names of the classes of devices, in the order shown.
    before
        Rounds that were stored before this process went on with the run. Of these, the ones that
        are trained again don't count.
    clock
        Gives seconds.
    """

    def __init__(
        self,
        title: str,
        rounds: int | None,
        until: float | None = None,
        classes: Sequence[str] = (),
        before: Sequence[RoundResult] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._rounds, self._until, self._clock = title, rounds, until, clock
        self._before = tuple(before)
        self._began = clock()
        self._lock = Lock()
        self._first: tuple[RoundResult, float] | None = None
        self._last: tuple[RoundResult, float] | None = None
        self._scores: list[tuple[float, int]] = []  # accuracy, round
        self._macs = self._wasted = 0.0
        self._surplus = False
        self._spent: dict[str, _Spent] = {name: _Spent() for name in classes}

    def add(self, result: RoundResult) -> None:
        """Add the round that was finished last."""
        with self._lock:
            if self._first is None:
                for earlier in self._before:
                    if earlier.round < result.round:
                        self._count(earlier)
                self._first = result, self._clock()
            self._count(result)
            self._last = result, self._clock()

    def _count(self, result: RoundResult) -> None:
        if result.accuracy is not None:
            self._scores.append((result.accuracy, result.round))
        self._macs += result.training_macs
        self._wasted += result.wasted_macs
        for one in result.devices:
            cost = (one.mean_cost_share or 0.0) * one.mini_batches
            spent = self._spent.setdefault(one.device_class, _Spent())
            spent.add(one.mini_batches, cost, one.over_budget)
            self._surplus |= one.outcome == "surplus"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render what is known now."""
        with self._lock:
            parts = list(self._parts(options.max_width))
        yield from parts

    def _parts(self, width: int) -> Iterator[RenderableType]:
        yield Text(_plain(self._title), style="bold", no_wrap=True, overflow="ellipsis")
        if self._last is None:
            return
        result = self._last[0]
        yield self._figures(result)
        if result.round == 0:
            return
        wide = width >= WIDE
        headings = [
            (heading if wide else short, outcomes)
            for heading, short, outcomes in OUTCOMES
            if heading != "surplus" or self._surplus
        ]
        taken = sum(len(heading) + 1 for heading, _ in headings)
        taken += GAP + len(" ".join(BUDGET)) if wide else 0
        most = CLASS_ROWS if wide else NARROW_CLASS_ROWS
        rows = self._rows(most, max(SHORTEST_NAME, width - taken))
        cohort, budget = self._cohort(result, rows, headings), self._budget(rows, not wide)
        if not wide:
            yield from ("", cohort, "", budget)
            return
        both = Table.grid(padding=(0, GAP))
        both.add_row(cohort, budget)
        yield from ("", both)

    def _figures(self, result: RoundResult) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(style="dim")
        table.add_column(ratio=1)
        progress = Table.grid(padding=(0, 2), expand=True)
        progress.add_column(no_wrap=True)
        progress.add_column(ratio=1)
        of = "" if self._rounds is None else f" of {self._rounds}"
        progress.add_row(f"{result.round}{of}", self._bar(result))
        table.add_row("round", progress)
        elapsed, left = self._clock() - self._began, self._seconds_left()
        remaining = "" if left is None else f", about {_duration(left)} left"
        table.add_row("time", f"{_duration(elapsed)}{remaining}")
        if self._scores:
            (last, _), (best, number) = self._scores[-1], max(self._scores, key=lambda one: one[0])
            table.add_row("accuracy", f"{last:.1%}, best {best:.1%} in round {number}")
            table.add_row("", Sparkline([accuracy for accuracy, _ in self._scores]))
        until = "" if self._until is None else f" of {self._until:.4g}"
        table.add_row("virtual s", f"{result.virtual_seconds:.4g}{until}")
        if self._macs:
            table.add_row("wasted", f"{self._wasted / self._macs:.1%} of {self._macs:.3g} MACs")
        return table

    def _bar(self, result: RoundResult) -> RenderableType:
        shares = [result.round / self._rounds] if self._rounds else []
        if self._until is not None:
            shares.append(result.virtual_seconds / self._until)
        return ProgressBar(total=1.0, completed=min(1.0, max(shares))) if shares else ""

    def _seconds_left(self) -> float | None:
        """How long the rounds that are left take, if they take as long as those since the first."""
        if self._first is None or self._last is None or self._rounds is None:
            return None
        (first, began), (last, ended) = self._first, self._last
        done, left = last.round - first.round, float(self._rounds - last.round)
        if not done:
            return None
        virtual = (last.virtual_seconds - first.virtual_seconds) / done
        if self._until is not None and virtual > 0:
            left = min(left, (self._until - last.virtual_seconds) / virtual)
        if left <= 0:
            return None
        return max(0.0, left * (ended - began) / done - (self._clock() - ended))

    def _rows(self, most: int, width: int) -> list[_Row]:
        """Rows and their classes: one for each, and one for all that find no room."""
        names = list(self._spent)
        own = names if len(names) <= most else names[: most - 1]
        rows: list[tuple[str, Sequence[str]]] = [(_plain(name), [name]) for name in own]
        if rest := names[len(own) :]:
            rows.append((f"{len(rest)} others", rest))
        labels = [Text(label) for label, _ in rows]
        for label in labels:
            label.truncate(width, overflow="ellipsis")
        return [(label, one) for label, (_, one) in zip(labels, rows, strict=True)]

    def _cohort(
        self,
        result: RoundResult,
        rows: Sequence[_Row],
        headings: Sequence[tuple[str, Sequence[Outcome]]],
    ) -> Table:
        """What became of the cohort of a round."""
        counts = Counter((one.device_class, one.outcome) for one in result.devices)
        count = len(result.cohort)
        devices = f"{count} device{'' if count == 1 else 's'}"
        table = _table(
            f"last cohort: {devices}" if count else "last cohort: nobody was available",
            ["class", *(heading for heading, _ in headings)],
        )
        for label, names in rows:
            sums = (
                sum(counts[name, outcome] for name in names for outcome in outcomes)
                for _, outcomes in headings
            )
            table.add_row(label, *map(str, sums))
        return table

    def _budget(self, rows: Sequence[_Row], named: bool) -> Table:
        """What mini-batches cost, and how many of them more than the budget of their device."""
        table = _table("all mini-batches", ["class", *BUDGET] if named else BUDGET)
        for label, names in rows:
            spent = _Spent()
            for name in names:
                one = self._spent[name]
                spent.add(one.mini_batches, one.cost, one.over_budget)
            table.add_row(*([label] if named else []), *spent.cells())
        return table


@dataclass(frozen=True)
class Sparkline:
    """Values as a line of bars, from the lowest to the highest.

    Where there are more than columns, each bar is the mean of as many values, but for one.
    """

    values: Sequence[float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it in a line."""
        count = len(self.values)
        bars = min(count, options.max_width)
        edges = [count * i // bars for i in range(bars + 1)]
        means = [
            sum(self.values[i] for i in range(start, end)) / (end - start)
            for start, end in zip(edges, edges[1:], strict=False)
        ]
        low, high = min(means), max(means)
        levels = ASCII_LEVELS if options.ascii_only else LEVELS
        scale = (len(levels) - 1) / (high - low) if high > low else 0.0
        yield Text("".join(levels[round((mean - low) * scale)] for mean in means))


def _table(title: str, headings: Sequence[str]) -> Table:
    """A table without lines; all of it but a column "class" is numbers."""
    table = Table(
        title=Text(title, style="dim"),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="dim",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "class" else "right", no_wrap=True)
    return table


def _plain(name: str) -> str:
    """A name of the user's, without what would move the cursor."""
    return "".join(letter if letter.isprintable() else "�" for letter in name)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))

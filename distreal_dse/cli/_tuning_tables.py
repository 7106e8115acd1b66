"""What people and programs see of the choice of learning rates and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from fl.compare.candidates import Tuned


def learning_rate_table(name: str, tuned: Sequence[Tuned]) -> Table:
    """What strategies came to at each learning rate, a row for each schedule, and what they got."""
    from rich.table import Table
    from rich.text import Text

    pairs = [pair for one in tuned for pair in one.candidates]
    # None is the rate of strategies that have one of their own; it comes last.
    rates = sorted({pair.rate for pair in pairs}, key=lambda rate: (rate is None, rate))
    scheduled = any(pair.schedule for pair in pairs)
    seeds = max((len(found) for one in tuned for found in one.tried.values()), default=0)
    title = f"Comparison {name}: accuracy on validation data by learning rate"
    if seeds:
        title += f", mean of {seeds} seeds that are not compared"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("strategy", overflow="fold")
    if scheduled:
        table.add_column("schedule", overflow="fold")
    for rate in rates:
        heading = "its own" if rate is None else f"{rate:g}"
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("tried", justify="right", no_wrap=True)
    table.add_column("TMACs", justify="right", no_wrap=True)
    table.add_column("taken")
    for one in tuned:
        schedules = list(dict.fromkeys(pair.schedule for pair in one.candidates)) or [None]
        for schedule in schedules:
            shown = {
                pair.rate: f"{fmean(found):.1%}"
                for pair, found in one.tried.items()
                if pair.schedule == schedule
            }
            cells = [schedule or ""] if scheduled else []
            cells += [shown.get(rate, "") for rate in rates]
            if schedule is schedules[0]:
                spent = f"{one.training_macs / 1e12:.3g}"
                cells += [str(len(one.candidates)), spent, _taken(one)]
            table.add_row(Text(one.strategy if schedule is schedules[0] else ""), *map(Text, cells))
    return table


def tuned_json(one: Tuned) -> dict[str, Any]:
    """The same of a strategy for programs; an accuracy is null where a run failed."""
    return {
        "tried": [
            asdict(pair)
            | {
                "accuracy": fmean(one.tried[pair]) if pair in one.tried else None,
                "by_seed": list(one.tried.get(pair, ())),
            }
            for pair in one.candidates
        ],
        "taken": None if one.best is None else asdict(one.best),
        "not_tried": one.further,
        "training_macs": one.training_macs,
    }


def _taken(one: Tuned) -> str:
    if one.best is None:
        return "the study's: all failed" if one.candidates else "its own"
    return str(one.best) + (f"; {one.further} ones were not tried" if one.further else "")

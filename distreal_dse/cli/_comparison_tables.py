"""What people and programs see of a comparison."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from distreal_dse.cli._tuning_tables import learning_rate_table, tuned_json
from distreal_dse.support.progress import console

if TYPE_CHECKING:
    from rich.table import Table

    from fl.compare.candidates import Tuned
    from fl.compare.comparison import Failure
    from fl.compare.paired import Difference
    from fl.compare.summaries import Estimate, Summary
    from fl.store.runs import Run


def comparison_tables(name: str, summaries: Sequence[Summary], target: float) -> list[Table]:
    """The strategies of a comparison, the most accurate first: what they reach, what they cost."""
    seeds = sorted({len(one.seeds) for one in summaries})
    spread = ""
    if seeds[-1] > 1:
        number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        spread = f", mean of {number} seeds ± half of the 95 % confidence interval"
    ordered = sorted(summaries, key=lambda one: -one.settled_accuracy.mean)
    classes = list(dict.fromkeys(key for one in summaries for key in one.accuracy_by_class))
    own = ("seeds",) if len(seeds) > 1 else ()
    names = [(one.strategy, *(str(len(one.seeds)) for _ in own)) for one in ordered]
    reached = [
        (
            _percent(one.settled_accuracy),
            f"{one.final_accuracy.mean:.1%}",
            f"{one.accuracy_in_time.mean:.1%}",
            _seconds(one),
        )
        for one in ordered
    ]
    by_class = [
        [
            f"{one.accuracy_by_class[key].mean:.1%}" if key in one.accuracy_by_class else ""
            for key in classes
        ]
        for one in ordered
    ]
    costs = [
        (
            f"{one.training_macs.mean / 1e12:.3g}",
            f"{one.wasted_share.mean:.0%}",
            f"{one.transferred_bytes.mean / 1e9:.3g}",
            f"{one.missed_share.mean:.0%}",
            f"{one.virtual_seconds.mean:.3g}",
        )
        for one in ordered
    ]
    # Not one table, which would be wider than many terminals.
    return [
        _table(f"Comparison {name}: {what}", (*own, *headings), names, cells)
        for what, headings, cells in (
            (f"accuracy{spread}", ("settled", "final", "in time", f"s to {target:.0%}"), reached),
            ("settled accuracy by class of device", classes, by_class),
            ("work, by strategy", ("TMACs", "wasted", "GB sent", "missed", "virtual s"), costs),
        )
        if headings
    ]


def _table(
    title: str,
    headings: Sequence[str],
    names: Sequence[Sequence[str]],
    cells: Sequence[Sequence[str]],
) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    table.add_column("strategy", overflow="fold")  # numbers are never cut for want of room
    for heading in headings:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for first, rest in zip(names, cells, strict=True):
        table.add_row(*map(Text, (*first, *rest)))
    return table


def difference_table(name: str, differences: Sequence[Difference]) -> Table:
    """How far strategies are from one of them, in points of settled accuracy."""
    ordered = sorted(differences, key=lambda one: -one.settled_accuracy.mean)
    rows = []
    for one in ordered:
        found = one.settled_accuracy
        interval = "one seed"
        if not math.isnan(found.low):
            interval = f"{100 * found.low:+.1f} … {100 * found.high:+.1f}"
        rows.append((f"{100 * found.mean:+.1f}", interval, str(len(one.seeds)), one.verdict))
    title = (
        f"Comparison {name}: points of settled accuracy over {differences[0].against}, paired by "
        "seed, 95% confidence for all of them"
    )
    return _table(
        title,
        ("difference", "interval", "seeds", ""),
        [(one.strategy,) for one in ordered],
        rows,
    )


def show_comparison(
    name: str,
    summaries: Sequence[Summary],
    target: float,
    tuned: Sequence[Tuned],
    differences: Sequence[Difference],
) -> None:
    """Print all tables of a comparison for people."""
    screen = console()
    if tuned:
        screen.print(learning_rate_table(name, tuned))
    for table in comparison_tables(name, summaries, target):
        screen.print(table)
    if differences:
        screen.print(difference_table(name, differences))


@contextmanager
def told_at_the_end() -> Iterator[None]:
    """Keep quiet of runs that fail while others go on: `tell_failures` comes behind.

    Where all of them fail, nothing comes behind: then they are told, and the command ends.
    """
    from fl import RunFailedWarning
    from fl.compare.comparison import RunsFailedError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunFailedWarning)
        try:
            yield
        except RunsFailedError as error:
            tell_failures(error.failures)


def tell_failures(failures: Sequence[Failure]) -> None:
    """Print why runs failed, a line each, and end the command with code 1 if any did."""
    for failure in failures:
        typer.echo(f"error: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


def summaries_json(
    name: str,
    summaries: Sequence[Summary],
    target: float,
    runs: Sequence[Run],
    tuned: Sequence[Tuned] = (),
    differences: Sequence[Difference] = (),
) -> dict[str, Any]:
    """The same for programs; bounds that are not known are null."""
    return {
        "learning_rates": {one.strategy: tuned_json(one) for one in tuned},
        "comparison": name,
        "target": target,
        "strategies": [_known(asdict(one)) for one in summaries],
        "differences": [{**_known(asdict(one)), "verdict": one.verdict} for one in differences],
        "runs": [run.id for run in runs],
    }


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(found: Estimate) -> str:
    half = (found.high - found.low) / 2
    return f"{found.mean:.1%}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def _seconds(one: Summary) -> str:
    if one.seconds_to_target is None:
        return f"{one.target_reached} of {len(one.seeds)}" if one.target_reached else "never"
    return f"{one.seconds_to_target.mean:.3g}"

"""What people and programs see of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from fl.runs import Run
    from fl.summaries import Estimate, Summary
    from fl.tuning import Tuned


def comparison_tables(name: str, summaries: Sequence[Summary], target: float) -> list[Table]:
    """The strategies of a comparison, the most accurate first: what they reach, what they cost."""
    from rich.table import Table
    from rich.text import Text

    seeds = sorted({len(one.seeds) for one in summaries})
    spread = ""
    if seeds[-1] > 1:
        number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        spread = f", mean of {number} seeds ± half of the 95 % confidence interval"
    ordered = sorted(summaries, key=lambda one: -one.settled_accuracy.mean)
    classes = list(dict.fromkeys(key for one in summaries for key in one.accuracy_by_class))
    reached = Table(title=Text(f"Comparison {name}: accuracy{spread}"), title_justify="left")
    costs = Table(title=Text(f"Comparison {name}: work, by strategy"), title_justify="left")
    for table in (reached, costs):
        table.add_column("strategy", no_wrap=True)
        if len(seeds) > 1:
            table.add_column("seeds", justify="right")
    for heading in ("settled", "final", "in equal time", f"s to {target:.0%}", *classes):
        reached.add_column(Text(heading), justify="right")
    for heading in ("TMACs", "wasted", "GB sent", "missed", "virtual s"):
        costs.add_column(Text(heading), justify="right")
    for one in ordered:
        own = (str(len(one.seeds)),) if len(seeds) > 1 else ()
        by_class = (one.accuracy_by_class.get(key) for key in classes)
        reached.add_row(
            Text(one.strategy),
            *own,
            _percent(one.settled_accuracy),
            _percent(one.final_accuracy),
            _percent(one.accuracy_in_time),
            _seconds(one),
            *("" if found is None else f"{found.mean:.1%}" for found in by_class),
        )
        costs.add_row(
            Text(one.strategy),
            *own,
            f"{one.training_macs.mean / 1e12:.3g}",
            f"{one.wasted_share.mean:.0%}",
            f"{one.transferred_bytes.mean / 1e9:.3g}",
            f"{one.missed_share.mean:.0%}",
            f"{one.virtual_seconds.mean:.3g}",
        )
    return [reached, costs]


def learning_rate_table(name: str, tuned: Sequence[Tuned]) -> Table:
    """What strategies came to at several learning rates, and which of these they were given."""
    from rich.table import Table
    from rich.text import Text

    title = f"Comparison {name}: accuracy on validation data by learning rate, one seed"
    table = Table(title=Text(title), title_justify="left")
    rates = sorted({rate for one in tuned for rate in one.tried})
    table.add_column("strategy", no_wrap=True)
    for rate in rates:
        table.add_column(f"{rate:g}", justify="right")
    table.add_column("taken")
    for one in tuned:
        table.add_row(
            Text(one.strategy),
            *(f"{one.tried[rate]:.1%}" if rate in one.tried else "" for rate in rates),
            _taken(one),
        )
    return table


def _taken(one: Tuned) -> str:
    if one.best is None:
        return "the study's: all failed" if one.rates else "its own"
    return f"{one.best:g}" + (f"; try {one.further} ones" if one.further else "")


def summaries_json(
    name: str,
    summaries: Sequence[Summary],
    target: float,
    runs: Sequence[Run],
    tuned: Sequence[Tuned] = (),
) -> dict[str, Any]:
    """The same for programs; bounds that are not known are null."""
    return {
        "learning_rates": {
            one.strategy: {"tried": {repr(k): v for k, v in one.tried.items()}, "taken": one.best}
            for one in tuned
        },
        "comparison": name,
        "target": target,
        "strategies": [_known(asdict(one)) for one in summaries],
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
    half = (one.seconds_to_target.high - one.seconds_to_target.low) / 2
    return f"{one.seconds_to_target.mean:.3g}" + ("" if math.isnan(half) else f" ± {half:.2g}")

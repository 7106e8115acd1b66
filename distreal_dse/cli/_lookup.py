"""``distreal-dse lookup``."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distreal_dse.cli._arguments import FrontArgument, JsonOption, StorageOption
from distreal_dse.cli._console import cost_text, gain_text, print_json
from distreal_dse.support.progress import console
from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from rich.table import Table

    from distreal_dse.fronts import Front, FrontPoint, TableVector

_PART_OF_A_TABLE = "it is used as a part of the table, which was judged as a whole"


def lookup(
    front: FrontArgument,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="X",
            help="Share of the full network's cost (40%), or MACs (1.2M), or seconds (12ms).",
        ),
    ],
    storage: StorageOption = None,
    as_json: JsonOption = False,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="BYTES",
            help="What a training step may take, as in 64MB: no vector that needs more.",
        ),
    ] = None,
) -> None:
    """Show which vector a device would pick for a mini-batch."""
    from distreal_dse.fronts import find_front, memory_text

    found = find_front(storage_url(storage), front)
    vector = found.lookup(budget, memory)
    if as_json:
        print_json(_json(found, vector))
        return
    screen = console()
    screen.print(_table(found, vector))
    cost = cost_text(found, vector.cost)
    share = f"{vector.cost / found.reference_cost:.1%} of the full network"
    costs = f"costs {cost} {found.cost_unit} ({share})"
    if vector.memory is not None:
        costs += f", takes {memory_text(vector.memory)} of memory for a step"
    point = _point(found, vector)
    if point is None:
        lines = [f"{costs}; {_measured_alone(found, vector) or _neighbours(found, vector)}"]
    else:
        lines = [f"{costs}, gains {gain_text(point)}", *([_harm(found)] if point.harms else ())]
    screen.print("\n".join(lines), markup=False, soft_wrap=True)


def _point(front: Front, vector: TableVector) -> FrontPoint | None:
    """The point that the vector is, if it was measured."""
    return next((one for one in front.points if one.kept_counts == vector.kept_counts), None)


def _gain(front: Front, vector: TableVector) -> float | None:
    """What verification found of the vector, whether it is on the front or not."""
    from distreal_dse.fronts import measured_vectors

    runs = (one for one in measured_vectors(front) if one.kept_counts == vector.kept_counts)
    return next((one.gain for one in runs), None)


def _measured_alone(front: Front, vector: TableVector) -> str:
    """What a vector gained that is no point of the front; nothing where it was not measured."""
    gain = _gain(front, vector)
    if gain is None:
        return ""
    if gain >= 0:
        return f"measured by itself it gained {gain:.3f}, and is dominated by a point of the front"
    return (
        f"measured by itself it harms (gain {gain:.3f}), so it is no point of the front; "
        f"{_PART_OF_A_TABLE}"
    )


def _neighbours(front: Front, vector: TableVector) -> str:
    """Between which points a vector lies that was not measured."""
    shares = [
        next((f"{point.cost / front.reference_cost:.1%}" for point in points), "")
        for points in (
            [point for point in reversed(front.points) if point.cost < vector.cost],
            [point for point in front.points if point.cost > vector.cost],
        )
    ]
    if all(shares):
        return f"not measured by itself: it lies between the points of {' and '.join(shares)}"
    return f"not measured by itself: the nearest point is that of {''.join(shares)}"


def _table(front: Front, vector: TableVector) -> Table:
    """The channels that each group keeps, and the units where these are something else."""
    from rich.table import Table

    from distreal_dse.fronts import channel_counts

    channels = channel_counts(front)
    in_units = channels.per_unit is not None and max(channels.per_unit) > 1
    table = Table("channel group", f"kept {channels.noun}", "of")
    for heading in ("in units", "of", "rate") if in_units else ("rate",):
        table.add_column(heading)
    widths = [group.channels for group in front.groups]
    for group, kept, width, units, rate in zip(
        front.groups,
        channels.of(vector.kept_counts),
        channels.of(widths),
        vector.kept_counts,
        _rates(front, vector),
        strict=True,
    ):
        of_units = (str(units), str(group.channels)) if in_units else ()
        table.add_row(group.name, str(kept), str(width), *of_units, f"{rate:.3f}")
    return table


def _harm(front: Front) -> str:
    """What to do where the vector that fits a budget harms: all cheaper ones do, too."""
    from distreal_dse.fronts import table_fit

    useful = front.cheapest_useful
    if useful is None and table_fit(front) is not None:
        return f"Measured by itself this vector harms; {_PART_OF_A_TABLE}."
    if useful is None:
        rest = "no vector of this front is safe: search again"
    else:
        rest = (
            f"the cheapest one that is safe costs {cost_text(front, useful.cost)} "
            f"{front.cost_unit} ({useful.cost / front.reference_cost:.1%}) and gains "
            f"{gain_text(useful)}: raise the budget or skip the mini-batch"
        )
    return (
        "This vector harms: short runs with it raised the validation loss. No cheaper one is "
        f"safe; {rest}."
    )


def _rates(front: Front, vector: TableVector) -> tuple[float, ...]:
    """Dropout rate of each channel group."""
    point = _point(front, vector)
    if point is not None:
        return point.rates
    pairs = zip(vector.kept_counts, front.groups, strict=True)
    return tuple(1 - kept / group.channels for kept, group in pairs)


def _json(front: Front, vector: TableVector) -> dict[str, Any]:
    """The point as it is stored, its groups by name, and what is safe where it harms.

    Of a vector that is no point, all that a point has is null but for what verification found.
    """
    from distreal_dse.fronts import FrontPoint, channel_counts

    point, rates = _point(front, vector), _rates(front, vector)
    gain = point.convergence if point else _gain(front, vector)

    channels, useful = channel_counts(front), front.cheapest_useful
    sizes = channels.per_unit or (None,) * len(front.groups)
    return {
        **(asdict(point) if point else dict.fromkeys(field.name for field in fields(FrontPoint))),
        "kept_counts": vector.kept_counts,
        "cost": vector.cost,
        "memory": vector.memory,
        "rates": rates,
        "convergence": gain,
        "measured": gain is not None,
        "front": front.label,
        "groups": [
            {
                "name": group.name,
                "rate": rate,
                "kept_units": units,
                "units": group.channels,
                "kept_channels": None if size is None else units * size,
                "channels": None if size is None else group.channels * size,
            }
            for group, rate, units, size in zip(
                front.groups, rates, vector.kept_counts, sizes, strict=True
            )
        ],
        "harms": None if gain is None else gain < 0,
        "cheapest_safe": asdict(useful) if useful else None,
    }

"""What people see: tables and progress on standard error; standard output is for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import typer

from distreal_dse.cli._kept_counts import KeptCounts
from distreal_dse.errors import DistrealError, DistrealWarning
from distreal_dse.support.interrupts import no_interrupt_lost
from distreal_dse.support.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from distreal_dse.fronts import Front, FrontPoint, TableFit


class Interrupted(DistrealError):
    """The user ended a command early; says what is kept."""

    exit_code = 130


class _Output:
    """Where programs read, once it was set apart from what else is printed."""

    for_programs: TextIO | None = None


def only_json(wanted: bool) -> bool:
    """Let nothing but `print_json` write to standard output from here on, if it is wanted.

    What a study prints, from C and in worker processes as well, goes to standard error. Where the
    host has put something else in the place of standard output, as a notebook does, that is left.
    """
    ordinary = sys.stdout is sys.__stdout__ and sys.stdout is not None
    if wanted and ordinary and _Output.for_programs is None:
        sys.stdout.flush()
        _Output.for_programs = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a plain TextIO
    return wanted


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Print a value for programs."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False), file=_Output.for_programs)


@contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into an error whose message says what is kept."""
    # Where it comes within a query, SQLAlchemy logs a traceback of closing the cursor. With a
    # handler of its own, its log is not printed to standard error for want of any.
    logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())
    try:
        with no_interrupt_lost():
            yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted: {kept()}") from error


@contextmanager
def plain_warnings(target: Console) -> Iterator[None]:
    """Show warnings of ours as a line, and all others as ever."""
    with warnings.catch_warnings():
        ordinary = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, DistrealWarning):
                target.print(f"warning: {message}", markup=False)
            else:
                ordinary(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


@contextmanager
def measuring(target: Console, subject: str) -> Iterator[Callable[[int, int], None]]:
    """Give the listener of a measurement, which shows its rounds and says what Ctrl-C keeps."""
    rounds = 0

    def kept() -> str:
        if not rounds:
            return "nothing was measured"
        return (
            f"what was measured in {rounds} rounds is kept; "
            f"`distreal-dse measure {subject} --stored` shows it"
        )

    with interruptible(kept), progress_bar(target) as bar:

        def listen(done: int, total: int) -> None:
            nonlocal rounds
            rounds = done
            bar.show("rounds", done, total)

        yield listen


def latency_notes(front: Front) -> list[str]:
    """What has to be known of costs that were measured: where, and how far they are noise."""
    if front.cost_metric != "latency":
        return []
    from distreal_dse.cost import NoiseVerdict, device_text  # PyTorch, which takes a second

    notes = [f"Measured on {device_text(front.device)}."]
    with suppress(KeyError, TypeError):  # settings are free, e.g. of an imported front
        notes.append(NoiseVerdict(**front.settings["latency"]["noise"]).warning)
    return [note for note in notes if note]


def front_notes(front: Front) -> list[str]:
    """What has to be known of a front beside its points."""
    from distreal_dse.fronts import channel_counts, pilot_of, table_fit, verdict_of

    notes = latency_notes(front)
    if (pilot := pilot_of(front)) is not None and not pilot.is_worth_a_search:
        notes.append(" ".join(pilot.sentences()))
    if (verdict := verdict_of(front)) is not None and verdict.savings:
        notes.append(f"{verdict.sentence()}. {verdict.details()}")
    if (fit := table_fit(front)) is not None:
        notes.append(table_note(fit))
    if count := len(front.harmful):
        useful = front.cheapest_useful
        if useful:
            rest = f"use budgets from {useful.cost / front.reference_cost:.1%} on"
        elif fit is not None:
            rest = "they are used as parts of the table, which was judged as a whole"
        else:
            rest = "no vector of this front helps: search again"
        notes.append(
            f"{count} of {len(front.points)} points harm: short runs with them raised the "
            f"validation loss (gain below 0); {rest}."
        )
    if channel_counts(front).per_unit is None:
        notes.append(
            "Kept counts are of units, as this front doesn't say how many channels a unit has; a "
            "new search does."
        )
    return notes


def table_note(fit: TableFit) -> str:
    """What a table that was fitted to a fleet gains over one rate for all layers."""
    fitted = (
        f"The table of {fit.vectors} vectors was fitted to a fleet, which leaves {fit.unused:.1%} "
        "of its budgets unused."
    )
    found = f"{fit.gain:.2f} ({fit.low:.2f} … {fit.high:.2f}, 95% confidence)"
    if fit.low > 0:
        return (
            f"{fitted} In short runs of the fleet the logarithm of its loss is lower than that of "
            f"one rate for all layers by {found}."
        )
    return (
        f"{fitted} It is that of one rate for all layers, as no other was shown to be better (the "
        f"logarithm of the loss fell by {found} with the best)."
    )


def front_json(front: Front) -> dict[str, Any]:
    """A front for programs; its counts are of units, so it says how many channels a unit has."""
    from distreal_dse.fronts import channel_counts

    return {
        **front.content(),
        "version": front.version,
        "hash": front.content_hash,
        "channels_per_unit": channel_counts(front).per_unit,
    }


def front_table(front: Front) -> Table:
    """The points of a front, the dearest first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"Front {front.label}"), title_justify="left")
    for heading in (f"cost ({front.cost_unit})", "of full", "loss gain", "accuracy", "memory"):
        table.add_column(heading, justify="right")
    table.add_column(KeptCounts(kept_heading(front)))
    table.add_column("")
    for point in reversed(front.points):
        remarks = {"one rate": point.uniform, "harms": point.harms}
        said = ", ".join(remark for remark, holds in remarks.items() if holds)
        *cells, kept = point_cells(front, point)
        table.add_row(*cells, KeptCounts(kept), said)
    return table


def kept_heading(front: Front) -> str:
    """Heading of the column of kept channels: ``kept channels of 32-64``."""
    from distreal_dse.fronts import channel_counts

    channels = channel_counts(front)
    widths = [group.channels for group in front.groups]
    return f"kept {channels.noun} of {channels.text(widths)}"


def cost_text(front: Front, cost: float) -> str:
    """A cost in the unit of a front, without it."""
    return f"{cost:,.0f}" if front.cost_metric == "macs" else f"{cost:.4g}"


def gain_text(point: FrontPoint) -> str:
    """What a point gains, with its standard error."""
    return f"{point.convergence:.3f} ± {point.standard_error:.3f}"


def point_cells(front: Front, point: FrontPoint) -> tuple[str, ...]:
    """Cost, share of the full network, gain, accuracy, memory and kept channels of a point."""
    from distreal_dse.fronts import channel_counts, memory_text

    return (
        cost_text(front, point.cost),
        f"{point.cost / front.reference_cost:.1%}",
        gain_text(point),
        f"{point.accuracy:.1%}",
        memory_text(point.memory),
        channel_counts(front).text(point.kept_counts),
    )

"""``distreal-dse status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distreal_dse.cli._arguments import JsonOption, StorageOption
from distreal_dse.cli._console import print_json
from distreal_dse.support.progress import console

if TYPE_CHECKING:
    from distreal_dse.fronts.leases import Work

HEADINGS = ("", "what", "host", "process", "since", "progress", "last sign of life")
STATES = {True: "lives", None: "not of this host", False: "lost"}


def status(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Show who works on what, since when: on searches and on federated runs."""
    from distreal_dse.api import status as asked

    found = asked(storage)
    if as_json:
        print_json([_as_json(work) for work in found])
        return
    screen = console()
    if not found:
        screen.print("Nobody works on a search or a run.", markup=False)
        return
    from rich.table import Table

    table = Table()
    for heading in HEADINGS:
        table.add_column(heading)
    for work in found:
        table.add_row(*_cells(work))
    screen.print(table, markup=False)


def _cells(work: Work) -> tuple[Any, ...]:
    from rich.text import Text

    progress = work.stage or ""
    if work.done is not None and work.total is not None:
        progress += f" {work.done}/{work.total}"
    cells = (
        work.kind, work.name, work.owner.host, str(work.owner.pid), work.since, progress,
        f"{work.silent:.0f} s ago ({STATES[work.alive]})",
    )  # fmt: skip
    return tuple(map(Text, cells))


def _as_json(work: Work) -> dict[str, Any]:
    return {
        "kind": work.kind,
        "name": work.name,
        "host": work.owner.host,
        "process": work.owner.pid,
        "since": work.since,
        "seconds_silent": round(work.silent, 1),
        "alive": work.alive,
        "stage": work.stage,
        "done": work.done,
        "total": work.total,
    }

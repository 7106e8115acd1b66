"""``distreal-dse doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from distreal_dse.cli._arguments import JsonOption, StorageOption
from distreal_dse.cli._console import print_json
from distreal_dse.support.progress import console
from distreal_dse.support.storage import storage_url


def doctor(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Try what works on this machine: packages, training, storage, pictures."""
    from rich.table import Table
    from rich.text import Text

    from distreal_dse.doctor import examine

    screen = console()
    with screen.status("trying …"):
        findings = list(examine(storage_url(storage)))
    broken = [one.subject for one in findings if one.state == "broken"]
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        table = Table("", "state", "found", "what to do")
        for one in findings:
            style = {"works": "green", "missing": "yellow", "broken": "red"}[one.state]
            table.add_row(
                one.subject,
                Text(one.state, style),
                Text(one.found, overflow="fold"),
                Text(one.advice),
            )
        screen.print(table)
    if broken:
        typer.echo(f"error: broken here: {', '.join(broken)}", err=True)
        raise typer.Exit(1)

"""``distreal-dse studies``."""

from __future__ import annotations

from distreal_dse.cli._arguments import JsonOption
from distreal_dse.cli._console import print_json
from distreal_dse.support.progress import console


def studies(as_json: JsonOption = False) -> None:
    """List the study definitions that come with this package."""
    from rich.table import Table
    from rich.text import Text

    from distreal_dse.study.catalogue import shipped_description, shipped_studies

    found = {name: shipped_description(name) for name in shipped_studies()}
    if as_json:
        print_json([{"name": name, "description": text} for name, text in found.items()])
        return
    table = Table("study", "what it is")
    for name, text in found.items():
        table.add_row(name, Text(text))
    screen = console()
    screen.print(table)
    screen.print("One of your own: copy a file of the package `studies`, and give its path.")

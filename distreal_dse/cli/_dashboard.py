"""``distreal-dse dashboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distreal_dse.cli._arguments import StorageOption
from distreal_dse.support.progress import console
from distreal_dse.support.storage import storage_url


def dashboard(
    storage: StorageOption = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Beyond this machine, the printed link is needed."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    artifacts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the artifact store. Default: beside the database."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name that it is reached by; repeat for more."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Pages change nothing in the database.")
    ] = False,
    browser: Annotated[bool, typer.Option("--open", help="Open the pages in a browser.")] = False,
) -> None:
    """Serve optuna-dashboard with our figures and notes in each study, until Ctrl-C."""
    from dashboards.serving import dashboard_server

    screen = console()

    def warn(text: str) -> None:
        screen.print(f"warning: {text}", markup=False)

    served = dashboard_server(
        storage_url(storage), host, port, artifacts, warn, allow_host or (), read_only
    )
    with served as (server, address):
        screen.print(f"Dashboard at {address} (Ctrl-C ends it)", markup=False, soft_wrap=True)
        if browser:
            typer.launch(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it, so no failure
            screen.print("Dashboard ended")

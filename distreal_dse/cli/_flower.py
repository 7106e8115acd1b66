"""``distreal-dse fl flower-init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distreal_dse.cli._arguments import StorageOption
from distreal_dse.cli._federated_options import FrontOption
from distreal_dse.support.progress import console
from distreal_dse.support.storage import storage_url


def flower_init(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Of the project; a new one.")],
    study: Annotated[
        str,
        typer.Option(
            metavar="STUDY", help="Name of a shipped study, or a file, which is copied there."
        ),
    ] = "digits-cnn",
    *,
    front: FrontOption = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What devices train; `fl strategies` lists them. Default: distreal with a front, "
            "else distreal-uniform.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of training.")] = 30,
    devices: Annotated[int, typer.Option(help="Devices in all.")] = 20,
    cohort: Annotated[int, typer.Option(help="Devices whose updates a round needs.")] = 5,
    fleet: Annotated[
        str,
        typer.Option(
            metavar="FLEET",
            help="Classes, availability and pace of simulated devices, as `fl run --fleet` takes "
            "them.",
        ),
    ] = "thirds",
    storage: StorageOption = None,
) -> None:
    """Write a project that trains the same on Flower, in a simulation or on devices."""
    from distreal_dse.fronts import open_database
    from fl.flower.writing import Project, write_project

    chosen = strategy or ("distreal" if front else "distreal-uniform")
    project = Project(study, front, chosen, rounds, devices, cohort, fleet)
    engine = open_database(storage_url(storage))
    try:
        write_project(Path(folder).expanduser(), project, engine)
    finally:
        engine.dispose()
    console().print(
        f"Wrote a project for Flower to {folder}; its README.md says how to start it.", markup=False
    )

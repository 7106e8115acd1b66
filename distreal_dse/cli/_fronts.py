"""``distreal-dse front …``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._arguments import (
    DataOption,
    DeviceOption,
    FrontArgument,
    InputShapeOption,
    JsonOption,
    RepetitionsOption,
    SeedOption,
    StorageOption,
    StudyFileOption,
    StudyOptions,
    ThreadsOption,
    check_device,
    shape,
    study_source,
)
from distreal_dse.cli._console import front_json, front_notes, front_table, measuring, print_json
from distreal_dse.cli._verify import verify
from distreal_dse.support.progress import console
from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from distreal_dse.pricing import Repricing

app = typer.Typer(help="The fronts in the storage.", no_args_is_help=True, rich_markup_mode=None)
app.command("verify")(verify)


@app.command("list")
def list_(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """List the stored fronts."""
    from dataclasses import asdict

    from rich.table import Table

    from distreal_dse.fronts import list_fronts, open_database

    url = storage_url(storage)
    fronts = list_fronts(open_database(url, create=False))
    if as_json:
        print_json([asdict(front) for front in fronts])
        return
    table = Table("front", "study", "points", "cost", "hv", "created", "hash")
    for front in fronts:
        table.add_row(
            front.label,
            front.study,
            str(front.points),
            front.cost_metric,
            f"{front.hypervolume:.3f}",
            front.created_at[:16].replace("T", " "),
            front.content_hash[:8],
        )
    screen = console()
    screen.print(table if fronts else "No fronts yet: make one with `distreal-dse optimize`.")


@app.command()
def show(front: FrontArgument, storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Show the points of a front."""
    from distreal_dse.fronts import find_front

    found = find_front(storage_url(storage), front)
    if as_json:
        print_json(front_json(found))
        return
    screen = console()
    screen.print(front_table(found))
    for note in front_notes(found):
        screen.print(note, markup=False, soft_wrap=True)


@app.command()
def export(
    front: FrontArgument,
    file: Annotated[Path, typer.Argument(help="The .json file to write.")],
    storage: StorageOption = None,
) -> None:
    """Write a front to a JSON file, to be used elsewhere."""
    from distreal_dse.fronts import export_front, find_front

    found = find_front(storage_url(storage), front)
    export_front(found, file)
    console().print(f"Front {found.label} written to {file}", markup=False)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `front export` wrote.")],
    storage: StorageOption = None,
) -> None:
    """Store a front from a JSON file, as the next version of its name."""
    from distreal_dse.fronts import import_front, list_fronts, open_database, save_front

    front, engine = import_front(file), open_database(storage_url(storage))
    before = {one.label for one in list_fronts(engine)}
    stored = save_front(engine, front)
    said = "is stored already; nothing was added" if stored.label in before else "stored"
    console().print(f"Front {stored.label} {said}", markup=False)


@app.command("reprice")
def reprice_(
    front: FrontArgument,
    name: Annotated[
        str,
        typer.Option(
            metavar="NEW", help="Name of the new front. Default: the old one's and this device's."
        ),
    ] = "",
    repetitions: RepetitionsOption = 30,
    threads: ThreadsOption = 1,
    study: StudyFileOption = None,
    input_shape: InputShapeOption = None,
    storage: StorageOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a front's points on this device, and store a front with these costs."""
    from distreal_dse.api import reprice as reprice_front

    screen = console()
    with measuring(screen, front) as progress:
        repriced = reprice_front(
            front,
            study=study,
            name=name,
            repetitions=repetitions,
            threads=threads,
            seed=seed,
            input_shape=shape(input_shape),
            storage=storage,
            device=check_device(device),
            options=dict(study_source(front, data, option).options),
            listen=progress,
        )
    new = repriced.front
    if as_json:
        print_json(front_json(new))
        return
    screen.print(front_table(new))
    screen.print(_repriced(repriced), markup=False, soft_wrap=True)


def _repriced(repriced: Repricing) -> str:
    """What became of the points."""
    from distreal_dse.fronts import channel_counts

    new, dropped, added = repriced.front, repriced.dropped, repriced.added
    lines = [
        f"Front {new.label}: {len(new.points) - len(added)} points of front "
        f"{new.settings['repriced from']['front']}, which stays as it is."
    ]
    beaten = [point for point in dropped if not point.harms]
    for points, what in (
        (beaten, "dropped, as others that gain more cost no more here"),
        (repriced.harmful, "dropped, as they harm (their loss gain is below 0)"),
        (added, "added, with one rate for all layers"),
    ):
        if points:
            channels = channel_counts(new)
            keys = ", ".join(channels.text(point.kept_counts) for point in points)
            lines.append(f"{len(points)} {what}: {keys}")
    if repriced.beaten:
        lines.append(
            f"{repriced.beaten} points are beaten here by one rate for all layers: "
            "search again with `distreal-dse optimize --cost latency`."
        )
    return "\n".join([*lines, *front_notes(new)])

"""``distreal-dse fl …``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._advise import advise
from distreal_dse.cli._arguments import (
    DataOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    StorageOption,
    StudyArgument,
    StudyOptions,
    check_device,
    study_source,
)
from distreal_dse.cli._compare import compare
from distreal_dse.cli._console import interruptible, plain_warnings, print_json
from distreal_dse.cli._federated_options import (
    CheckpointOption,
    ClientsOption,
    FrontOption,
    RunOptions,
    TrackOption,
    WorkersOption,
)
from distreal_dse.cli._flower import flower_init
from distreal_dse.cli._option_groups import with_options
from distreal_dse.errors import InputError
from distreal_dse.support.progress import console, is_live
from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from fl.results import RoundResult
    from fl.store.runs import Run

app = typer.Typer(
    help="Federated training with a front.", no_args_is_help=True, rich_markup_mode=None
)
app.command()(compare)
app.command()(advise)
app.command()(flower_init)
# Rows of the curve that is printed at the end, and the width of its longest bar.
CURVE_ROWS, CURVE_WIDTH = 16, 30


@app.callback()
def _fl() -> None:
    """Federated training with a front."""


@app.command()
@with_options
def run(
    study: StudyArgument,
    *,
    front: FrontOption = None,
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="What devices train; `fl strategies` lists them.")
    ] = "distreal",
    asked: RunOptions,
    checkpoint_every: CheckpointOption = 10,
    track: TrackOption = "",
    workers: WorkersOption = 1,
    clients: ClientsOption = "auto",
    seed: SeedOption = 0,
    storage: StorageOption = None,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Train on devices whose free compute changes: by vectors of a front, or in nested levels."""
    import fl

    source = study_source(study, data, option)
    with _kept() as kept:
        result = fl.run(
            study,
            front=front,
            strategy=strategy,
            **vars(asked),
            checkpoint_every=checkpoint_every,
            workers=workers,
            clients=clients,
            seed=seed,
            storage=storage,
            device=check_device(device),
            options=dict(source.options),
            track=track,
            progress=partial(_shown, kept, as_json),
        )
    _tell(result.run, as_json)


@app.command()
def resume(
    run_id: Annotated[int, typer.Argument(metavar="RUN", help="Number of a run that stopped.")],
    workers: WorkersOption = 1,
    clients: ClientsOption = "auto",
    study: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Its study, where the run was begun on another machine or the file was changed.",
        ),
    ] = None,
    track: TrackOption = "",
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run from its newest checkpoint; the result is as if it had never stopped."""
    import fl

    with _kept() as kept:
        result = fl.resume(
            run_id,
            study=study,
            storage=storage,
            workers=workers,
            clients=clients,
            track=track,
            progress=partial(_shown, kept, as_json),
        )
    _tell(result.run, as_json)


@app.command()
def strategies(as_json: JsonOption = False) -> None:
    """List what devices can train, and how updates are merged."""
    from rich.table import Table

    from fl.strategies import describe_strategies

    described = describe_strategies()
    if as_json:
        print_json(described)
        return
    table = Table()
    table.add_column("strategy")
    table.add_column("what it does")
    for one, text in described.items():
        table.add_row(one, text)
    console().print(table)


@app.command()
def export(
    runs: Annotated[
        list[int] | None, typer.Argument(metavar="[RUN]…", help="Numbers of runs.")
    ] = None,
    comparison: Annotated[
        str | None, typer.Option(metavar="NAME", help="All runs of a comparison.")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option(metavar="FILE", help="CSV with a line for each round.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(metavar="FILE", help="CSV with a line for each device and round.")
    ] = None,
    tensorboard: Annotated[
        str | None, typer.Option(metavar="DIR", help="Events of TensorBoard.")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write figures of runs as CSV or for TensorBoard."""
    from distreal_dse.fronts import open_database
    from fl.compare.export import write_devices, write_events, write_rounds
    from fl.store.runs import list_runs, load_run

    targets = {write_rounds: rounds, write_devices: devices, write_events: tensorboard}
    if not any(targets.values()):
        raise InputError("expected --rounds FILE, --devices FILE or --tensorboard DIR, found none")
    engine = open_database(storage_url(storage), create=False)
    found = [load_run(engine, number) for number in runs or ()]
    if comparison is not None:
        found += list_runs(engine, comparison)
    if not found:
        raise InputError("expected the number of a run, or --comparison with one that has runs")
    for write, target in targets.items():
        if target is not None:
            write(found, target)
            console().print(f"Wrote {target}.", markup=False)


@contextmanager
def _kept() -> Iterator[list[str]]:
    """Turn an interrupt into an error; the list's last text says what is kept."""
    kept = ["nothing was begun"]
    with interruptible(lambda: kept[-1]), plain_warnings(console()):
        yield kept


@contextmanager
def _shown(kept: list[str], as_json: bool, stored: Run) -> Iterator[Callable[[RoundResult], None]]:
    """Show rounds; ``kept`` is told how to go on after each."""
    from distreal_dse.cli._live_run import live_view
    from fl.api import shown_rounds

    screen = console()
    kept.append(f"`distreal-dse fl resume {stored.id}` begins it again")
    live = is_live(screen) and not as_json
    view = live_view(screen, stored) if live else shown_rounds(stored)
    with _resumable(stored.id), view as show:

        def listen(result: RoundResult) -> None:
            kept.append(
                f"the figures of rounds 0 to {result.round} are kept as run {stored.id}; "
                f"`distreal-dse fl resume {stored.id}` goes on"
            )
            show(result)

        yield listen


@contextmanager
def _resumable(run_id: int) -> Iterator[None]:
    """Say how the run goes on where the database went away: `fl run` would begin another one."""
    from distreal_dse.fronts import ConnectionLostError

    try:
        yield
    except ConnectionLostError as error:
        again = f"`distreal-dse fl resume {run_id}`"
        raise ConnectionLostError(error.what, error.found, error.waited, again) from error


def _tell(stored: Run, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json(asdict(stored))
        return
    _print_curve(stored)
    with_front = f" with front {stored.front_label}" if stored.front_label else ""
    console().print(
        f"Run {stored.id}: {stored.strategy}{with_front}, {len(stored.rounds) - 1} rounds, "
        f"final accuracy {stored.accuracy:.1%} on the {stored.evaluated_on} data.",
        markup=False,
    )


def _print_curve(stored: Run) -> None:
    """Accuracy over virtual time, as bars."""
    from rich.table import Table

    scored = [result for result in stored.rounds if result.accuracy is not None]
    step = max(1, -(-len(scored) // CURVE_ROWS))
    shown = scored[::step]
    if scored[-1] not in shown:
        shown.append(scored[-1])
    title = f"Accuracy of the full network on the {stored.evaluated_on} data"
    table = Table(title=title, title_justify="left")
    table.add_column("round", justify="right")
    table.add_column("virtual s", justify="right")
    table.add_column("mean cost", justify="right")
    table.add_column("accuracy")
    for result in shown:
        share = result.mean_cost_share
        accuracy = result.accuracy or 0.0
        bar = "█" * round(accuracy * CURVE_WIDTH)
        table.add_row(
            str(result.round),
            f"{result.virtual_seconds:.4g}",
            "" if share is None else f"{share:.0%}",
            f"{bar} {accuracy:.1%}",
        )
    console().print(table)

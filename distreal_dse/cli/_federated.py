"""``distreal-dse fl …``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._arguments import (
    DataOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    StorageOption,
    StudyArgument,
    StudyOptions,
    check_device,
    storage_url,
    study_source,
)
from distreal_dse.cli._console import console, interruptible, print_json, progress_bar

if TYPE_CHECKING:
    from fl.results import RoundResult

app = typer.Typer(
    help="Federated training with a front.", no_args_is_help=True, rich_markup_mode=None
)
# Rows of the curve that is printed at the end, and the width of its longest bar.
CURVE_ROWS, CURVE_WIDTH = 16, 30


@app.callback()
def _fl() -> None:
    """Federated training with a front."""


@app.command()
def run(
    study: StudyArgument,
    front: Annotated[
        str, typer.Option(metavar="FRONT", help="NAME, NAME@VERSION, or an exported .json file.")
    ],
    rounds: Annotated[int, typer.Option(help="Rounds of training.")] = 30,
    devices: Annotated[int, typer.Option(help="Devices that hold the data.")] = 20,
    cohort: Annotated[int, typer.Option(help="Devices that take part in a round.")] = 5,
    epochs: Annotated[int, typer.Option(help="Passes of a device over its data per round.")] = 1,
    seed: SeedOption = 0,
    storage: StorageOption = None,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Train on devices whose free compute changes; each looks its vectors up in the front."""
    import torch

    from distreal_dse.fronts import LookupTable, find_front, open_database
    from distreal_dse.preparation import prepare
    from fl.engine import FederatedRun, RunSettings
    from fl.runs import finish_run, load_run, save_round, start_run
    from fl.strategies import Distreal, masks_of

    torch.set_num_threads(1)  # as in the search: faster beside any other process
    settings = RunSettings(
        rounds=rounds, devices=devices, cohort=cohort, local_epochs=epochs, seed=seed
    )
    source = study_source(study, data, option)
    screen = console()
    kept = ["nothing was begun"]
    with interruptible(lambda: kept[-1]), progress_bar(screen) as bar:
        loaded = source.load()
        engine = open_database(storage_url(storage))
        found = find_front(engine, front)
        network, loaded_data = prepare(loaded, seed, check_device(device))
        strategy = Distreal(LookupTable(found), masks_of(found, loaded))
        federated = FederatedRun(loaded, loaded_data, network, strategy, found, settings)
        described = {
            **settings.as_json(),
            "options": dict(source.options),
            "masks": strategy.policy.spec,
        }
        fingerprint = network.channels.fingerprint
        run_id = start_run(engine, loaded.name, strategy.name, found, fingerprint, seed, described)
        bar.start()
        task = bar.add_task("rounds", total=rounds, note="")
        for result in federated.rounds():
            save_round(engine, run_id, result)
            kept.append(f"the figures of rounds 0 to {result.round} are kept as run {run_id}")
            bar.update(task, completed=result.round, note=_note(result))
    finish_run(engine, run_id)
    stored = load_run(engine, run_id)
    if as_json:
        from dataclasses import asdict

        print_json(asdict(stored))
        return
    _print_curve(stored.rounds)
    screen.print(
        f"Run {run_id}: {strategy.name} with front {found.label}, {len(stored.rounds) - 1} rounds, "
        f"final accuracy {stored.accuracy:.1%} on the test data.",
        markup=False,
    )


def _note(result: RoundResult) -> str:
    accuracy = "" if result.accuracy is None else f"accuracy {result.accuracy:.1%}, "
    share = "" if result.mean_cost_share is None else f", mean cost {result.mean_cost_share:.0%}"
    return f"{accuracy}virtual {result.virtual_seconds:.3g} s{share}"


def _print_curve(rounds: tuple[RoundResult, ...]) -> None:
    """Accuracy over virtual time, as bars."""
    from rich.table import Table

    scored = [result for result in rounds if result.accuracy is not None]
    step = max(1, -(-len(scored) // CURVE_ROWS))
    shown = scored[::step]
    if scored[-1] not in shown:
        shown.append(scored[-1])
    table = Table(title="Accuracy of the full network on the test data", title_justify="left")
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

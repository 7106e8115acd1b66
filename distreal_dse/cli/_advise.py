"""``distreal-dse fl advise``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from distreal_dse.cli._arguments import (
    DataOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    StorageOption,
    StudyArgument,
    StudyOptions,
    storage_url,
    study_source,
)
from distreal_dse.cli._comparison_tables import (
    comparison_tables,
    difference_table,
    summaries_json,
)
from distreal_dse.cli._console import console, interruptible, print_json, progress_bar
from distreal_dse.cli._federated_options import (
    AUTO,
    AdviseOptions,
    FrontOption,
    WorkersOption,
    read_rates,
    read_schedules,
)
from distreal_dse.cli._option_groups import with_options
from distreal_dse.cli._tuning_tables import learning_rate_table
from distreal_dse.errors import InputError

if TYPE_CHECKING:
    from fl.compare.advice import Advice


@with_options
def advise(
    study: StudyArgument,
    *,
    front: FrontOption = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="What to choose from. Default: small, nested, heterofl, ordered masks with one "
            "rate, and distreal where there is a front.",
        ),
    ] = None,
    learning_rates: Annotated[
        str,
        typer.Option(
            metavar="auto|RATE,…",
            help="Rates to begin with; as many more as it takes are tried. auto begins around the "
            "study's.",
        ),
    ] = AUTO,
    schedules: Annotated[
        str | None,
        typer.Option(metavar="SCHEDULE,…", help="Try each rate with each of them."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Runs of each, with seeds from --seed.")
    ] = 5,
    name: Annotated[
        str | None, typer.Option(help="Of the comparison. Default: the study's and 'advice'.")
    ] = None,
    asked: AdviseOptions,
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    storage: StorageOption = None,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Try which strategy and learning rate suit a fleet and data, by short runs."""
    import torch

    from distreal_dse.fronts import open_database
    from distreal_dse.specs import split_specs
    from fl.compare.advice import CANDIDATES, advise
    from fl.store.specs import RunSpec

    torch.set_num_threads(1)
    if seeds < 2:
        raise InputError(f"--seeds: expected at least 2, as seeds are paired, found {seeds}")
    source = study_source(study, data, option)
    rates = read_rates(learning_rates)
    tried = read_schedules(schedules, learning_rates, asked.schedule)
    engine = open_database(storage_url(storage))
    shared = asked.settings(source, engine, front, device)
    spec = RunSpec(**shared, strategy=CANDIDATES[0], seed=seed)
    comparison = name or f"{source.load().name} advice"
    kept = f"finished rounds of '{comparison}' are kept; the same command goes on"
    with interruptible(lambda: kept), progress_bar(console()) as bar:
        found = advise(
            engine, comparison, spec, seeds, rates,
            lambda done, total: bar.show("rounds", done, total), workers,
            strategies=split_specs(strategies) if strategies else None, schedules=tried,
        )  # fmt: skip
    if as_json:
        print_json(_json(found))
    else:
        _show(found)
    for failure in found.failures:
        typer.echo(f"error: {failure}", err=True)
    if found.failures:
        raise typer.Exit(1)


def _show(found: Advice) -> None:
    from fl.compare.summaries import summarise

    screen = console()
    screen.print(learning_rate_table(found.name, found.tuned))
    for table in comparison_tables(found.name, *summarise(found.runs)):
        screen.print(table)
    if found.differences:
        screen.print(difference_table(found.name, found.differences))
    screen.print(found.sentences(), markup=False, soft_wrap=True)


def _json(found: Advice) -> dict[str, Any]:
    from fl.compare.summaries import summarise

    summaries, target = summarise(found.runs)
    told = summaries_json(found.name, summaries, target, found.runs, found.tuned, found.differences)
    return {
        "advice": found.first,
        "certain": bool(found.differences) and not found.rivals,
        "rivals": [one.strategy for one in found.rivals],
        "sentences": found.sentences(),
        **told,
    }

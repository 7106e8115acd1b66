"""``distreal-dse fl compare``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
    CompareOptions,
    FrontOption,
    WorkersOption,
    read_rates,
    read_schedules,
)
from distreal_dse.cli._option_groups import with_options
from distreal_dse.cli._tuning_tables import learning_rate_table
from distreal_dse.errors import InputError

if TYPE_CHECKING:
    from fl.compare.candidates import Tuned
    from fl.store.runs import Run


@with_options
def compare(
    study: StudyArgument,
    *,
    front: FrontOption = None,
    strategies: Annotated[
        str,
        typer.Option(metavar="NAME,…", help="Strategies to compare; all is all that are built in."),
    ] = "all",
    learning_rates: Annotated[
        str | None,
        typer.Option(
            metavar="auto|RATE,…",
            help="Give each strategy the one that is best for it on validation data, of these and "
            "up to three beyond each end; auto begins around the study's.",
        ),
    ] = None,
    schedules: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEDULE,…",
            help="Beside --learning-rates: give each strategy the best pair, such as of "
            "constant,cosine.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Runs of each, with seeds from --seed.")
    ] = 3,
    target: Annotated[
        float | None,
        typer.Option(help="Accuracy whose time is asked for. Default: 90 % of the best."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the comparison. Default: the study's.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Strategy that differences are taken to, seed by seed. Default: small, else the "
            "first.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write figures, as an HTML file.")
    ] = None,
    asked: CompareOptions,
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    storage: StorageOption = None,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Train strategies under the same conditions; run it again to go on with what is left."""
    import torch

    from distreal_dse.fronts import open_database
    from distreal_dse.specs import split_specs
    from fl.compare.comparison import Failure, RunsFailedError
    from fl.compare.comparison import compare as compare_runs
    from fl.compare.paired import reference_strategy
    from fl.compare.tuning import tune
    from fl.store.specs import RunSpec
    from fl.strategies import built_in_strategies

    torch.set_num_threads(1)
    if seeds < 1:
        raise InputError(f"--seeds: expected at least 1, found {seeds}")
    if target is not None and not 0 < target <= 1:
        raise InputError(f"--target: expected an accuracy above 0 and up to 1, found {target}")
    source = study_source(study, data, option)
    engine = open_database(storage_url(storage))
    shared = asked.settings(source, engine, front, device)
    names = built_in_strategies() if strategies == "all" else split_specs(strategies)
    if against is not None:
        reference_strategy(names, against)  # before anything is trained
    rates = read_rates(learning_rates) if learning_rates is not None else None
    tried = read_schedules(schedules, learning_rates, asked.schedule)
    specs = [
        RunSpec(**shared, strategy=one, seed=number)
        for number in range(seed, seed + seeds)
        for one in names
    ]
    comparison = name or source.load().name
    screen = console()
    kept = f"finished rounds of comparison '{comparison}' are kept; the same command goes on"
    with interruptible(lambda: kept), progress_bar(screen) as bar:
        for spec in specs[: len(names)]:
            spec.rehearse(engine)

        def listener(of: str) -> Callable[[int, int], None]:
            return lambda done, total: bar.show(of, done, total)

        tuned: list[Tuned] = []
        failures: tuple[Failure, ...] = ()
        if learning_rates is not None:
            listen = listener("learning rates")
            tuned, failures = tune(
                engine, comparison, specs, rates, listen, workers, schedules=tried
            )
            at_best = {one.strategy: one.at_best for one in tuned}
            specs = [replace(spec, strategy=at_best[spec.strategy]) for spec in specs]
        try:
            runs = compare_runs(engine, comparison, specs, listener("rounds"), workers)
        except RunsFailedError as error:
            runs, failures = list(error.runs), (*failures, *error.failures)
    if runs:
        _show_comparison(comparison, runs, tuned, target, against, out, as_json)
    for failure in failures:
        typer.echo(f"error: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


def _show_comparison(
    name: str,
    runs: list[Run],
    tuned: list[Tuned],
    target: float | None,
    against: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from fl.compare.paired import paired_differences, reference_strategy
    from fl.compare.summaries import summarise

    screen = console()
    if out is not None:
        from dashboards.report import write_report

        write_report(out, (), runs)
        screen.print(f"Report written to {out}", markup=False)
    found, reached = summarise(runs, target)
    base = reference_strategy([one.strategy for one in found], against)
    differences = paired_differences(runs, base)
    if as_json:
        print_json(summaries_json(name, found, reached, runs, tuned, differences))
        return
    if tuned:
        screen.print(learning_rate_table(name, tuned))
    for table in comparison_tables(name, found, reached):
        screen.print(table)
    if differences:
        screen.print(difference_table(name, differences))

"""``distreal-dse fl compare``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    study_source,
)
from distreal_dse.cli._comparison_tables import (
    show_comparison,
    summaries_json,
    tell_failures,
)
from distreal_dse.cli._console import interruptible, print_json
from distreal_dse.cli._federated_options import (
    CompareOptions,
    FrontOption,
    WorkersOption,
    read_rates,
    read_schedules,
)
from distreal_dse.cli._option_groups import with_options
from distreal_dse.errors import InputError
from distreal_dse.progress import console, progress_bar
from distreal_dse.storage import storage_url

if TYPE_CHECKING:
    from fl.compare.at_best import Compared


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
    from fl.compare.at_best import compare_as_given, compare_at_best
    from fl.compare.paired import reference_strategy
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
    if strategies == "all" and front is None:
        names.remove("distreal")  # without a front it is nested
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
    kept = f"finished rounds of comparison '{comparison}' are kept; the same command goes on"
    with interruptible(lambda: kept), progress_bar(console()) as bar:

        def listen(stage: str) -> Callable[[int, int], None]:
            return partial(bar.show, stage)

        if learning_rates is None:
            done = compare_as_given(engine, comparison, specs, listen, workers)
        else:
            done = compare_at_best(
                engine, comparison, specs, rates, listen, workers, schedules=tried
            )
    if done.runs:
        _show_comparison(comparison, done, target, against, out, as_json)
    tell_failures(done.failures)


def _show_comparison(
    name: str,
    done: Compared,
    target: float | None,
    against: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from fl.compare.paired import paired_differences, reference_strategy
    from fl.compare.summaries import summarise

    if out is not None:
        from dashboards.report import write_report

        write_report(out, (), done.runs)
        console().print(f"Report written to {out}", markup=False)
    found, reached = summarise(done.runs, target)
    base = reference_strategy([one.strategy for one in found], against)
    differences = paired_differences(done.runs, base)
    if as_json:
        print_json(summaries_json(name, found, reached, done.runs, done.tuned, differences))
    else:
        show_comparison(name, found, reached, done.tuned, differences)

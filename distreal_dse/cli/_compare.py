"""``distreal-dse fl compare``."""

from __future__ import annotations

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
    check_device,
    study_source,
)
from distreal_dse.cli._comparison_tables import (
    show_comparison,
    summaries_json,
    tell_failures,
    told_at_the_end,
)
from distreal_dse.cli._console import interruptible, plain_warnings, print_json
from distreal_dse.cli._federated_options import (
    CompareOptions,
    FrontOption,
    TrackOption,
    WorkersOption,
    read_rates,
    read_schedules,
)
from distreal_dse.cli._option_groups import with_options
from distreal_dse.support.progress import console

if TYPE_CHECKING:
    from fl import ComparisonResult


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
    track: TrackOption = "",
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    storage: StorageOption = None,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Train strategies under the same conditions; run it again to go on with what is left."""
    import fl

    source = study_source(study, data, option)
    comparison = name or source.load().name
    kept = f"finished rounds of comparison '{comparison}' are kept; the same command goes on"
    with interruptible(lambda: kept), plain_warnings(console()), told_at_the_end():
        result = fl.compare_strategies(
            study,
            strategies,
            front=front,
            seeds=seeds,
            learning_rates=read_rates(learning_rates),
            schedules=read_schedules(schedules),
            against=against,
            target=target,
            name=comparison,
            storage=storage,
            workers=workers,
            seed=seed,
            device=check_device(device),
            options=dict(source.options),
            track=track,
            **vars(asked),
        )
    _show(result, out, as_json)
    tell_failures(result.failures)


def _show(result: ComparisonResult, out: Path | None, as_json: bool) -> None:
    if out is not None:
        from dashboards.report import write_report

        write_report(out, (), result.runs)
        console().print(f"Report written to {out}", markup=False)
    found, reached = result.summaries()
    tuned, differences = result.compared.tuned, result.paired()
    if as_json:
        print_json(summaries_json(result.name, found, reached, result.runs, tuned, differences))
    else:
        show_comparison(result.name, found, reached, tuned, differences)

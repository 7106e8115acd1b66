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
    check_device,
    study_source,
)
from distreal_dse.cli._comparison_tables import (
    show_comparison,
    summaries_json,
    tell_failures,
    told_at_the_end,
)
from distreal_dse.cli._console import interruptible, print_json
from distreal_dse.cli._federated_options import (
    AUTO,
    AdviseOptions,
    FrontOption,
    WorkersOption,
    read_rates,
    read_schedules,
)
from distreal_dse.cli._option_groups import with_options
from distreal_dse.support.progress import console

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
    import fl
    from distreal_dse.support.specs import split_specs

    source = study_source(study, data, option)
    comparison = name or f"{source.load().name} advice"
    kept = f"finished rounds of '{comparison}' are kept; the same command goes on"
    with interruptible(lambda: kept), told_at_the_end():
        found = fl.advise(
            study,
            split_specs(strategies) if strategies else None,
            front=front,
            seeds=seeds,
            learning_rates=read_rates(learning_rates) or AUTO,
            schedules=read_schedules(schedules),
            name=comparison,
            storage=storage,
            workers=workers,
            seed=seed,
            device=check_device(device),
            options=dict(source.options),
            **vars(asked),
        )
    if as_json:
        print_json(_json(found))
    else:
        _show(found)
    tell_failures(found.compared.failures)


def _show(found: Advice) -> None:
    from fl.compare.summaries import summarise

    compared = found.compared
    show_comparison(found.name, *summarise(compared.runs), compared.tuned, found.differences)
    console().print(found.sentences(), markup=False, soft_wrap=True)


def _json(found: Advice) -> dict[str, Any]:
    from fl.compare.summaries import summarise

    runs, tuned = found.compared.runs, found.compared.tuned
    told = summaries_json(found.name, *summarise(runs), runs, tuned, found.differences)
    return {
        "advice": found.first,
        "certain": bool(found.differences) and not found.rivals,
        "rivals": [one.strategy for one in found.rivals],
        "sentences": found.sentences(),
        **told,
    }

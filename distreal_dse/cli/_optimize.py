"""``distreal-dse optimize``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._arguments import (
    DataOption,
    DeviceOption,
    JsonOption,
    LocalWorkersOption,
    SeedOption,
    StorageOption,
    StudyArgument,
    StudyOptions,
    check_device,
    same_storage,
    seconds,
    study_source,
)
from distreal_dse.cli._console import (
    front_json,
    front_notes,
    front_table,
    interruptible,
    plain_warnings,
    print_json,
)
from distreal_dse.support.progress import console

if TYPE_CHECKING:
    from distreal_dse.fronts import Front
    from distreal_dse.search import SearchProgress

KEPT = "everything finished is kept; run the same command again to go on"


def optimize(
    study: StudyArgument,
    storage: StorageOption = None,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Finished trials to end with, those of earlier starts included. Default: 30 for a "
            "fleet, 100 for vectors on their own.",
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            help="Begin no new trial after so many short runs; the verification does some more."
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin no new trial after this time: 90s, 10m, 2h."),
    ] = None,
    workers: LocalWorkersOption = 1,
    sampler: Annotated[str, typer.Option(metavar="cost-aware|tpe|nsga2|gp|random")] = "cost-aware",
    cost: Annotated[
        str,
        typer.Option(
            metavar="macs|latency", help="Counted MACs, or seconds measured on this device."
        ),
    ] = "macs",
    fleet: Annotated[
        str | None,
        typer.Option(
            metavar="FLEET",
            help="What a table is fitted to: NAME=SHARE@SPEED,… as --classes of fl compare, with "
            "';markov' and ';pace=1.6' behind it if need be; or thirds, wide, extreme, spread; or "
            "a .txt file; or none, for vectors on their own. Default: spread, and none with "
            "--cost latency.",
        ),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Which filters are kept: random, random-round, ordered, rolling, blocks, core, "
            "with settings as in blocks:blocks=4,core=0.25,redraw=round. Default: the study's.",
        ),
    ] = None,
    granularity: Annotated[
        int | None,
        typer.Option(help="Keep multiples of so many channels. Default: the study's, else 1."),
    ] = None,
    pilot: Annotated[
        bool,
        typer.Option(help="Stop early where the first trials show that a search does not pay."),
    ] = True,
    join: Annotated[
        bool,
        typer.Option(
            "--join",
            help="Work on the search together with all others that join it, on any number of "
            "machines that share the database.",
        ),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="What a training step may take on a device, as in 64MB or 1.5GiB: vectors that "
            "need more are never tried.",
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    name: Annotated[
        str, typer.Option(metavar="FRONT", help="Name of the front. Default: the study's name.")
    ] = "",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Search the Pareto front of a study, or go on with a search that was stopped."""
    from distreal_dse.api import optimize as search
    from distreal_dse.api import shown_search

    source = study_source(study, data, option)
    screen = console()
    failed = 0
    with (
        interruptible(lambda: KEPT),
        plain_warnings(screen),
        shown_search(screen, "--no-pilot") as show,
    ):

        def listen(progress: SearchProgress) -> None:
            nonlocal failed
            if progress.stage in ("search", "fit"):
                failed = progress.failed
            show(progress)

        front = search(
            study,
            trials=trials,
            storage=storage,
            fleet=fleet,
            name=name,
            workers=workers,
            runs=runs,
            timeout=None if timeout is None else seconds(timeout),
            sampler=sampler,
            cost=cost,
            masks=masks,
            granularity=granularity,
            pilot=pilot,
            memory=memory,
            seed=seed,
            device=check_device(device),
            options=dict(source.options),
            join=join,
            listen=listen,
        )
    if as_json:
        print_json(front_json(front))
        return
    screen.print(front_table(front))
    screen.print("\n".join([_summary(front, failed), *front_notes(front)]), markup=False)
    asked = ["distreal-dse", "fl", "run", study, "--front", front.name]
    for flag, values in (("--data", [data]), ("-o", option or [])):
        asked += [part for value in values if value is not None for part in (flag, value)]
    there, comment = same_storage(storage)
    line = f"Train with it: {shlex.join(asked)}{there}{comment}"
    screen.print(line, markup=False, soft_wrap=True)


def _summary(front: Front, failed: int) -> str:
    """How the front compares with one rate for all layers.

    That no uniform vector dominates a point holds by construction: they are verified with the
    candidates, and the front is what is non-dominated among all of them.
    """
    searched = sum(not point.uniform for point in front.points)
    left_out = len(front.settings["failed verification"])
    harmful = len(front.settings.get("harmful", ()))
    return (
        f"{len(front.points)} points, {searched} of them with rates of their own for each layer; "
        "no uniform-rate vector dominates any.\n"
        f"Hypervolume {front.hypervolume:.3f}; the curve through uniform rates "
        f"{front.uniform_hypervolume:.3f}."
        + (f"\n{failed} trials failed; their reasons are with the trials." if failed else "")
        + (f"\n{left_out} vectors failed in verification and are left out." if left_out else "")
        + (
            f"\n{harmful} cheaper vectors are left out: they harm, their loss gain is below 0."
            if harmful
            else ""
        )
    )

"""Options that all commands of federated training share, and the spec that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distreal_dse.errors import InputError

if TYPE_CHECKING:
    from fl.devices import DeviceClass

FrontOption = Annotated[
    str | None,
    typer.Option(
        metavar="FRONT",
        help="NAME, NAME@VERSION, or an exported .json file; for strategies that need one.",
    ),
]
RoundsOption = Annotated[int, typer.Option(help="Rounds of training.")]
UntilOption = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Virtual time after which no further round begins."),
]
DevicesOption = Annotated[int, typer.Option(help="Devices that hold the data.")]
CohortOption = Annotated[int, typer.Option(help="Devices whose updates a round needs.")]
EpochsOption = Annotated[int, typer.Option(help="Passes of a device over its data per round.")]
EvaluateOption = Annotated[int, typer.Option(help="Rounds from one evaluation to the next.")]
EvaluateOnOption = Annotated[
    str,
    typer.Option(metavar="test|validation", help="Held-out data that accuracies are measured on."),
]
StatisticsOption = Annotated[
    str,
    typer.Option(
        metavar="all|cohort|averaged",
        help="Batch normalisation's in evaluations: of samples of all devices or of the last "
        "cohort, or averaged as weights are.",
    ),
]
SplitOption = Annotated[
    str,
    typer.Option(
        metavar="SPLIT",
        help="Who holds which samples: iid, dirichlet:alpha=0.3, shards, owners, by-class.",
    ),
]
AvailabilityOption = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="Free compute over time: constant:share=1, redrawn, markov:stay=0.8, trace:FILE.",
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=SHARE@SPEED,…",
        help="Classes of devices. Default: strong, medium and weak, a third each at 1, 0.5, 0.25.",
    ),
]
SpeedsOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Measured speeds of devices to draw from.")
]
LinksOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Measured links of devices to draw from.")
]
PaceOption = Annotated[
    float,
    typer.Option(help="Time allotted to a mini-batch; 1 is what a full one takes at speed 1."),
]
DeadlineOption = Annotated[
    float | None,
    typer.Option(help="Of a round, over the time allotted to its mini-batches. Default: none."),
]
LateOption = Annotated[
    str,
    typer.Option(metavar="drop|partial|wait", help="What becomes of devices that miss it."),
]
OvercommitOption = Annotated[
    float, typer.Option(help="So many more devices begin a round, as a share; the fastest count.")
]
ServerOption = Annotated[
    str,
    typer.Option(
        metavar="OPTIMISER", help="Of the server: replace, momentum:lr=1,beta=0.9, adam:lr=0.1."
    ),
]
MaskedLossOption = Annotated[
    bool,
    typer.Option(
        "--masked-loss", help="Devices leave classes that they have no sample of out of the loss."
    ),
]
CheckpointOption = Annotated[int, typer.Option(help="Rounds from one checkpoint to the next.")]
WorkersOption = Annotated[
    int, typer.Option(metavar="N", help="Processes that train at the same time.")
]


def device_classes(text: str | None) -> dict[str, Any]:
    """Return the argument ``classes`` of a spec; nothing where the default is meant.

    Raises
    ------
    InputError
        If the text is not of the form NAME=SHARE@SPEED,…
    """
    if text is None:
        return {}
    return {"classes": tuple(_device_class(part) for part in text.split(","))}


def files(availability: str, speeds: str | None, links: str | None) -> dict[str, Any]:
    """Return the arguments of a spec that may name files, with absolute paths.

    So a run can be resumed from another folder.
    """
    name, colon, path = availability.partition(":")
    if name == "trace" and colon and path:
        availability = f"trace:{Path(path).absolute()}"
    return {
        "availability": availability,
        "speeds": str(Path(speeds).absolute()) if speeds else None,
        "links": str(Path(links).absolute()) if links else None,
    }


def read_rates(text: str | None) -> tuple[float, ...]:
    """Return the learning rates of ``--learning-rates``; none where it is not given.

    Raises
    ------
    InputError
        If the text is no list of numbers.
    """
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--learning-rates: expected numbers such as 0.05,0.1,0.2, found '{text}'"
        ) from error


def rules(deadline: float | None, late: str, overcommit: float) -> dict[str, Any]:
    """Return the argument ``rules`` of a spec.

    Raises
    ------
    InputError
        If a value is out of range.
    """
    from fl.deadlines import RoundRules

    return {"rules": RoundRules(deadline, late, overcommit)}  # type: ignore[arg-type]


def _device_class(part: str) -> DeviceClass:
    from fl.devices import DeviceClass

    name, equals, rest = part.partition("=")
    share, at, speed = rest.partition("@")
    try:
        if name and equals and at:
            return DeviceClass(name.strip(), float(share), float(speed))
    except ValueError:
        pass
    raise InputError(
        f"--classes: expected NAME=SHARE@SPEED,… such as strong=0.3@1,weak=0.7@0.25, found '{part}'"
    )

"""Options that all commands of federated training share, and the spec that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from distreal_dse.errors import InputError

FrontOption = Annotated[
    str | None,
    typer.Option(
        metavar="FRONT",
        help="NAME, NAME@VERSION, or an exported .json file; for strategies that need one, and for "
        "costs in seconds, where its own are.",
    ),
]
EvaluateOnOption = Annotated[
    str,
    typer.Option(metavar="test|validation", help="Held-out data that accuracies are measured on."),
]
DeadlineOption = Annotated[
    float | None,
    typer.Option(
        help="Of a round, over the time allotted to its mini-batches. Without one it has no end."
    ),
]
CheckpointOption = Annotated[int, typer.Option(help="Rounds from one checkpoint to the next.")]
TrackOption = Annotated[
    str,
    typer.Option(
        metavar="TRACKER,…",
        help="Send figures while it goes: tensorboard:FOLDER, mlflow:ADDRESS, wandb:PROJECT.",
    ),
]
WorkersOption = Annotated[
    int, typer.Option(metavar="N", help="Processes that train at the same time.")
]
ClientsOption = Annotated[
    str,
    typer.Option(
        metavar="auto|one-by-one|batched",
        help="How one process trains the devices of a cohort: batched is all at once, and what "
        "auto does on a GPU.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run trains: the options that `fl run` and `fl compare` share, see `with_options`."""

    rounds: Annotated[int, typer.Option(help="Rounds of training.")] = 30
    until: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Virtual time after which no further round begins."),
    ] = None
    devices: Annotated[int, typer.Option(help="Devices that hold the data.")] = 20
    cohort: Annotated[int, typer.Option(help="Devices whose updates a round needs.")] = 5
    epochs: Annotated[int, typer.Option(help="Passes of a device over its data per round.")] = 1
    evaluate_every: Annotated[int, typer.Option(help="Rounds from one evaluation to the next.")] = 1
    evaluate_on: EvaluateOnOption = "test"
    statistics: Annotated[
        str,
        typer.Option(
            metavar="all|cohort|averaged",
            help="Batch normalisation's in evaluations: of samples of all devices or of the last "
            "cohort, or averaged as weights are.",
        ),
    ] = "all"
    split: Annotated[
        str,
        typer.Option(
            metavar="SPLIT",
            help="Who holds which samples: iid, dirichlet:alpha=0.3, shards, owners, by-class.",
        ),
    ] = "iid"
    fleet: Annotated[
        str | None,
        typer.Option(
            metavar="FLEET",
            help="Classes, availability and pace in one, as `optimize --fleet` takes them: thirds, "
            "wide, extreme, spread, or strong=0.1@1,weak=0.9@1/16;markov;pace=1.6.",
        ),
    ] = None
    availability: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Free compute over time: constant:share=1, redrawn, markov:stay=0.8, trace:FILE.",
        ),
    ] = "markov"
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=SHARE@SPEED,…",
            help="Classes of devices. Default: strong, medium and weak, a third each at 1, 0.5, "
            "0.25.",
        ),
    ] = None
    speeds: Annotated[
        str | None, typer.Option(metavar="FILE", help="Measured speeds of devices to draw from.")
    ] = None
    links: Annotated[
        str | None, typer.Option(metavar="FILE", help="Measured links of devices to draw from.")
    ] = None
    pace: Annotated[
        float,
        typer.Option(help="Time allotted to a mini-batch; 1 is what a full one takes at speed 1."),
    ] = 1.0
    deadline: DeadlineOption = None
    late: Annotated[
        str,
        typer.Option(metavar="drop|partial|wait", help="What becomes of devices that miss it."),
    ] = "drop"
    overcommit: Annotated[
        float,
        typer.Option(help="So many more devices begin a round, as a share; the fastest count."),
    ] = 0.0
    server: Annotated[
        str,
        typer.Option(
            metavar="OPTIMISER", help="Of the server: replace, momentum:lr=1,beta=0.9, adam:lr=0.1."
        ),
    ] = "replace"
    schedule: Annotated[
        str,
        typer.Option(
            metavar="SCHEDULE",
            help="Of devices' learning rates over rounds: constant, cosine:end=0.02,warmup=5, "
            "step:every=30,factor=0.1, exponential:factor=0.99.",
        ),
    ] = "constant"
    robust: Annotated[
        str,
        typer.Option(
            metavar="DEFENCE",
            help="Against hostile updates: none, median, trimmed-mean:share=0.2, krum:share=0.2, "
            "multi-krum:share=0.2, clip:times=1.",
        ),
    ] = "none"
    masked_loss: Annotated[
        bool,
        typer.Option(
            "--masked-loss",
            help="Devices leave classes that they have no sample of out of the loss, and outputs "
            "are averaged over those that have samples of their class.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RunOptions):
    """Those of a comparison: strategies differ in what becomes of late devices."""

    deadline: DeadlineOption = 1.0


@dataclass(frozen=True, kw_only=True)
class AdviseOptions(CompareOptions):
    """Those of advice: test data are for what is trained after it."""

    evaluate_on: EvaluateOnOption = "validation"


AUTO = "auto"


def read_rates(text: str | None) -> str | tuple[float, ...] | None:
    """Return the learning rates of ``--learning-rates``, which may be ``auto``.

    Raises
    ------
    InputError
        If the text is neither ``auto`` nor a list of numbers.
    """
    if text is None or text.strip() == AUTO:
        return text and text.strip()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--learning-rates: expected {AUTO}, or numbers such as 0.05,0.1,0.2, found '{text}'"
        ) from error


def read_schedules(text: str | None) -> tuple[str, ...]:
    """Return the schedules of ``--schedules``; none where it is not given."""
    from distreal_dse.support.specs import split_specs

    return () if text is None else tuple(split_specs(text))

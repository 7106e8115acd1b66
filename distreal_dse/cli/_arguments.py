"""Arguments and options that several commands share, and how their text is read."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._console import only_json
from distreal_dse.errors import InputError
from distreal_dse.support.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from distreal_dse.study.catalogue import StudySource

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A study's name (see `distreal-dse studies`), or a .py file."
    ),
]
FrontArgument = Annotated[
    str,
    typer.Argument(metavar="FRONT", help="NAME, NAME@VERSION, or an exported .json file."),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help=f"Database. Default: $DISTREAL_STORAGE, else $OPTUNA_STORAGE, else {DEFAULT_STORAGE}.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="Folder of the data; short for -o data=DIR."),
]
StudyOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of the study."),
]
SeedOption = Annotated[
    int, typer.Option(help="Same seed, same machine, one worker, in one go: same result.")
]
DeviceOption = Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to train.")]
RepetitionsOption = Annotated[
    int, typer.Option(metavar="N", help="Times that each vector's training step is timed.")
]
ThreadsOption = Annotated[int, typer.Option(metavar="N", help="Threads of PyTorch.")]
StudyFileOption = Annotated[
    str | None,
    typer.Option("--study", metavar="FILE", help="The study of a front, if it's a file of yours."),
]
InputShapeOption = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        metavar="C,H,W",
        help="Of one input, where the study doesn't say it; then no data is loaded.",
    ),
]
LocalWorkersOption = Annotated[int, typer.Option(help="Local processes, one thread each.")]
JsonOption = Annotated[
    bool, typer.Option("--json", callback=only_json, help="Print JSON to standard output.")
]


def same_storage(given: str | None) -> tuple[str, str]:
    """What a suggested command line ends with, for the same database, and a comment for its reader.

    A URL with a secret is not repeated.
    """
    if given is None:
        return "", ""
    from distreal_dse.fronts import has_secret

    if has_secret(given):
        return (
            ' --storage "$DISTREAL_STORAGE"',
            "  # with DISTREAL_STORAGE set to the URL, which holds a secret",
        )
    return f" --storage {shlex.quote(given)}", ""


def study_source(spec: str, data: str | None, options: list[str] | None) -> StudySource:
    """The study that the arguments name.

    Raises
    ------
    InputError
        If an option is not of the form NAME=VALUE.
    """
    from distreal_dse.study.catalogue import StudySource

    pairs = {}
    for option in options or []:
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise InputError(f"--option {option}: expected NAME=VALUE")
        pairs[name] = value
    if data is not None:
        pairs["data"] = str(Path(data).expanduser())
    return StudySource(spec, tuple(sorted(pairs.items())))


def check_device(device: str) -> str:
    """Return the device if it is one that can be asked for.

    Raises
    ------
    InputError
        If it is neither cpu nor cuda.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device is '{device}': expected cpu or cuda")
    return device


def seconds(text: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``10m`` or ``1.5h``.

    Raises
    ------
    InputError
        If it is none.
    """
    factors = {"s": 1, "m": 60, "h": 3600}
    number, factor = (text[:-1], factors[text[-1]]) if text[-1:] in factors else (text, 1)
    try:
        return float(number) * factor
    except ValueError as error:
        raise InputError(
            f"duration '{text}': expected a number of seconds, or one with s, m or h, as in 10m"
        ) from error


def rates(text: str | None) -> tuple[float, ...] | None:
    """Read uniform rates such as ``0,0.25,0.5``.

    Raises
    ------
    InputError
        If one is no number in [0, 1).
    """
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 <= rate < 1 for rate in found):
        raise InputError(
            f"--rates is '{text}': expected numbers from 0 to below 1, as in 0,0.25,0.5"
        )
    return found


def shape(text: str | None) -> tuple[int, ...] | None:
    """Read the shape of one input such as ``3,32,32``.

    Raises
    ------
    InputError
        If a size is no whole number of 1 or more.
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(
            f"--input-shape is '{text}': expected the sizes of one input, as in 3,32,32"
        )
    return tuple(int(part) for part in parts)

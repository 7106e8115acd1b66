"""Figures of runs for other programs: CSV, and events of TensorBoard."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from distreal_dse.errors import InputError
from distreal_dse.files import write_whole
from fl.results import DeviceRound, RoundResult
from fl.store.runs import Run

_NOT_SCALAR = ("cohort", "accuracy_by_class", "devices")
_FIGURES = tuple(one.name for one in fields(RoundResult) if one.name not in _NOT_SCALAR)
_OF_DEVICE = tuple(one.name for one in fields(DeviceRound))
_OF_RUN = ("run", "strategy", "seed")


def round_rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Give the figures of each round of each run, by column; see `write_rounds`."""
    return (_of_run(run) | _of_round(one) for run in runs for one in run.rounds)


def device_rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Give the figures of each device in each round of each run, by column."""
    return (
        _of_run(run) | {"round": one.round} | {name: getattr(device, name) for name in _OF_DEVICE}
        for run in runs
        for one in run.rounds
        for device in one.devices
    )


def write_rounds(runs: Sequence[Run], path: str | os.PathLike[str]) -> None:
    """Write a CSV file with a line for each round of each run.

    Columns are run, strategy, seed, the figures of `RoundResult`, and ``accuracy of CLASS`` for
    each class of device; what is not known is empty.

    Raises
    ------
    InputError
        If the file can't be written.
    """
    classes = dict.fromkeys(
        name for run in runs for one in run.rounds for name in one.accuracy_by_class
    )
    columns = (*_OF_RUN, *_FIGURES, *(f"accuracy of {name}" for name in classes))
    _write(path, columns, round_rows(runs))


def write_devices(runs: Sequence[Run], path: str | os.PathLike[str]) -> None:
    """Write a CSV file with a line for each device of each round of each run.

    Raises
    ------
    InputError
        If the file can't be written.
    """
    _write(path, (*_OF_RUN, "round", *_OF_DEVICE), device_rows(runs))


def write_events(runs: Sequence[Run], folder: str | os.PathLike[str]) -> None:
    """Write events of TensorBoard, a folder for each run; its time axis shows virtual seconds.

    Raises
    ------
    InputError
        If TensorBoard is not installed, or there are events of a run already: they would be mixed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "events of TensorBoard: expected the package tensorboard, found none; install it with "
            "`pip install 'distreal-dse[tensorboard]'`"
        ) from error
    for run in runs:
        own = Path(folder) / f"{run.id}-{run.strategy.replace(':', '-')}-seed{run.seed}"
        if own.exists():
            raise InputError(f"{own}: expected no events of this run yet, found some; remove them")
        with SummaryWriter(str(own)) as writer:
            for one in run.rounds:
                for name, value in _of_round(one).items():
                    if name not in ("round", "virtual_seconds") and value is not None:
                        writer.add_scalar(name, value, one.round, one.virtual_seconds)


def _of_run(run: Run) -> dict[str, Any]:
    return {"run": run.id, "strategy": run.strategy, "seed": run.seed}


def _of_round(one: RoundResult) -> dict[str, Any]:
    figures = {name: getattr(one, name) for name in _FIGURES}
    by_class = {f"accuracy of {name}": value for name, value in one.accuracy_by_class.items()}
    return figures | by_class


def _write(
    path: str | os.PathLike[str], columns: Sequence[str], lines: Iterable[Mapping[str, Any]]
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, text.getvalue(), "the figures")

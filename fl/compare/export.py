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
from distreal_dse.support.files import write_whole
from fl.results import DeviceRound
from fl.store.runs import Run
from fl.tracking.base import FIGURES, figures_of
from fl.tracking.tensor_board import TensorBoard, folder_name, write_scalars

_OF_DEVICE = tuple(one.name for one in fields(DeviceRound))
_OF_RUN = ("run", "strategy", "seed")


def round_rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Give the figures of each round of each run, by column; see `write_rounds`."""
    return (_of_run(run) | figures_of(one) for run in runs for one in run.rounds)


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
    columns = (*_OF_RUN, *FIGURES, *(f"accuracy of {name}" for name in classes))
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
    TensorBoard("").check()
    for run in runs:
        own = Path(folder) / folder_name(run)
        if own.exists():
            raise InputError(f"{own}: expected no events of this run yet, found some; remove them")
        with TensorBoard.package().SummaryWriter(str(own)) as writer:
            for one in run.rounds:
                write_scalars(writer, one)


def _of_run(run: Run) -> dict[str, Any]:
    return {"run": run.id, "strategy": run.strategy, "seed": run.seed}


def _write(
    path: str | os.PathLike[str], columns: Sequence[str], lines: Iterable[Mapping[str, Any]]
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, text.getvalue(), "the figures")

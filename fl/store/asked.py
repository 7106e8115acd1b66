"""What people ask of a run, in Python or on the command line, as the arguments of a `RunSpec`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import Front, find_front, save_front
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.given import GivenStudy
from fl.store.specs import exact_front
from fl.world.deadlines import RoundRules
from fl.world.devices import DeviceClass
from fl.world.fleet import Fleet, device_classes, make_fleet

DEFAULTS: dict[str, Any] = {"availability": "markov", "classes": None, "speeds": None, "pace": 1.0}
"""What a fleet stands for, where it is not asked for."""


def spec_arguments(
    source: StudySource | GivenStudy,
    engine: Engine,
    front: Front | str | os.PathLike[str] | None,
    device: str,
    *,
    rounds: int,
    until: float | None,
    devices: int,
    cohort: int,
    epochs: int,
    evaluate_every: int,
    evaluate_on: str,
    statistics: str,
    split: str,
    fleet: Fleet | str | None,
    availability: str,
    classes: str | tuple[DeviceClass, ...] | None,
    speeds: str | None,
    links: str | None,
    pace: float,
    deadline: float | None,
    late: str,
    overcommit: float,
    server: str,
    schedule: str,
    robust: str,
    masked_loss: bool,
) -> dict[str, Any]:
    """Return the arguments of a `RunSpec`, but for its strategy, seed and checkpoints.

    Paths are made absolute, so that a run can be resumed from another folder.

    Parameters
    ----------
    source, engine, front, device
        The study; the opened database; a front, its label or file; where to train.
    fleet
        In place of classes, availability, speeds and pace.
    rounds, until, devices, cohort, evaluate_every, evaluate_on, statistics, split, availability, \
speeds, links, pace, server, schedule, robust, masked_loss
        As in `RunSpec`.
    epochs
        Passes of a device over its data per round.
    classes
        Classes of devices, or their text; None for a third each of strong, medium and weak.
    deadline, late, overcommit
        As in `RoundRules`.

    Raises
    ------
    DistrealError
        If a value is out of range, or there is no such front.
    """
    world: dict[str, Any] = {
        "availability": availability,
        "classes": classes,
        "speeds": speeds,
        "pace": pace,
    }
    if fleet is not None:
        world |= _of_fleet(fleet, world)
    kinds = world["classes"]
    if isinstance(kinds, str):
        kinds = device_classes(kinds)
    return {
        "study": str(Path(source.spec).absolute()) if _is_file(source) else source.spec,
        "options": source.options,
        "front": _label(engine, front),
        "rounds": rounds,
        "until": until,
        "devices": devices,
        "cohort": cohort,
        "local_epochs": epochs,
        "evaluate_every": evaluate_every,
        "evaluate_on": evaluate_on,
        "statistics": statistics,
        "split": split,
        "server": server,
        "schedule": schedule,
        "robust": robust,
        "masked_loss": masked_loss,
        "device": device,
        "pace": world["pace"],
        "availability": _absolute(world["availability"]),
        "speeds": str(Path(world["speeds"]).absolute()) if world["speeds"] else None,
        "links": str(Path(links).absolute()) if links else None,
        **({} if kinds is None else {"classes": tuple(kinds)}),
        "rules": RoundRules(deadline, late, overcommit),  # type: ignore[arg-type]
    }


def _is_file(source: StudySource | GivenStudy) -> bool:
    return isinstance(source, StudySource) and source.is_file


def _of_fleet(fleet: Fleet | str, world: dict[str, Any]) -> dict[str, Any]:
    """What a fleet stands for, in place of options of their own."""
    for name, default in DEFAULTS.items():
        if world[name] != default:
            raise InputError(
                f"--{name} beside --fleet: expected one of them, found both; write it into the "
                "fleet, or leave --fleet out"
            )
    found = fleet if isinstance(fleet, Fleet) else make_fleet(fleet)
    return {"classes": found.classes, "pace": found.pace, "availability": found.availability}


def _label(engine: Engine, front: Front | str | os.PathLike[str] | None) -> str | None:
    """The exact label of a front; one that the database lacks, and that is at hand, is stored."""
    if not isinstance(front, Front):
        return exact_front(engine, None if front is None else os.fspath(front))
    try:
        if find_front(engine, front.label).content_hash == front.content_hash:
            return exact_front(engine, front.label)
    except FrontError:
        pass
    return save_front(engine, front).label


def _absolute(availability: str) -> str:
    name, colon, path = availability.partition(":")
    if name == "trace" and colon and path:
        return f"trace:{Path(path).absolute()}"
    return availability

"""Trackers by their text: ``tensorboard:events``, ``mlflow:http://…``, ``wandb:project``."""

from __future__ import annotations

from collections.abc import Mapping

from distreal_dse.errors import InputError
from distreal_dse.support.specs import unknown_name
from fl.tracking.base import Tracker
from fl.tracking.ml_flow import MLflow
from fl.tracking.tensor_board import TensorBoard
from fl.tracking.weights_and_biases import WeightsAndBiases

TRACKERS: Mapping[str, type[Tracker]] = {
    one.name: one for one in (TensorBoard, MLflow, WeightsAndBiases)
}


def tracker_names() -> list[str]:
    """Return the names of all trackers."""
    return [*TRACKERS]


def make_trackers(text: str) -> list[Tracker]:
    """Make trackers of their text, such as ``tensorboard:events,mlflow``; none of an empty one.

    Raises
    ------
    InputError
        If there is none of a name, or one is named twice.
    """
    made: list[Tracker] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, _, target = part.partition(":")
        if name not in TRACKERS:
            raise unknown_name("tracker", text, name, TRACKERS)
        made.append(TRACKERS[name](target))
    names = [one.name for one in made]
    if len(set(names)) < len(names):
        raise InputError(f"--track '{text}': expected each tracker once, found one twice")
    return made


def check_trackers(text: str) -> None:
    """Refuse trackers that can't be used, before anything is trained.

    Raises
    ------
    InputError
        As for `make_trackers`, or if a package is not installed.
    """
    for one in make_trackers(text):
        one.check()

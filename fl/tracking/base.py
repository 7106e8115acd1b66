"""What a tracker is: told of a run when it begins, of each round, and when it ends."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any

from distreal_dse.errors import DistrealWarning, InputError
from fl.results import RoundResult
from fl.store.runs import Run

NOT_SCALAR = ("cohort", "accuracy_by_class", "devices")
FIGURES = tuple(one.name for one in fields(RoundResult) if one.name not in NOT_SCALAR)


class TrackingWarning(DistrealWarning):
    """A tracker failed; the run goes on without it."""


class Tracker(ABC):
    """Sends the figures of one run somewhere.

    The database is what a run goes on from; a tracker shows it to others. So it may fail without
    harm, and a run that goes on from a checkpoint continues what it began there.

    Parameters
    ----------
    target
        What follows the colon in its text, such as a folder or an address; empty for its default.
    """

    name = ""
    extra = ""
    """Of the distribution, which installs its package."""

    def __init__(self, target: str) -> None:
        self.target = target

    @classmethod
    @abstractmethod
    def package(cls) -> ModuleType:
        """Import what it needs.

        Raises
        ------
        ImportError
            If it is not installed.
        """

    @abstractmethod
    def begin(self, run: Run) -> None:
        """Hear of a run that begins or goes on, before any training."""

    @abstractmethod
    def round(self, result: RoundResult) -> None:
        """Hear of a round; rounds come in order, from 0 on, again where a run goes on."""

    @abstractmethod
    def end(self, failed: bool) -> None:
        """Hear that the run ended, or was stopped."""

    def check(self) -> None:
        """Refuse a tracker whose package is missing.

        Raises
        ------
        InputError
            If it is not installed.
        """
        try:
            self.package()
        except ImportError as error:
            raise InputError(
                f"tracker {self.name}: expected its package, found none ({error}); install it with "
                f"`pip install 'distreal-dse[{self.extra}]'`"
            ) from error


def figures_of(result: RoundResult) -> dict[str, Any]:
    """Return the figures of a round that are numbers, by name; None where one is not known.

    They are those of `RoundResult`, and ``accuracy of CLASS`` for each class of device.
    """
    figures = {name: getattr(result, name) for name in FIGURES}
    by_class = {f"accuracy of {name}": value for name, value in result.accuracy_by_class.items()}
    return figures | by_class


def title(run: Run) -> str:
    """What people read: ``digits-cnn 7: nested, seed 0``."""
    return f"{run.study} {run.id}: {run.strategy}, seed {run.seed}"


def key(run: Run) -> str:
    """What tells a run from those of all other databases; the same whenever it goes on."""
    told = "\n".join([run.created_at, str(run.id), run.study, run.strategy, str(run.seed)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def settings_of(run: Run) -> Mapping[str, str]:
    """The settings of a run as text, those that are not set left out."""
    own = {name: value for name, value in run.settings.items() if value not in (None, (), [], "")}
    told = {**own, "strategy": run.strategy, "seed": run.seed, "front": run.front_label}
    return {name: str(value) for name, value in told.items() if value is not None}

"""A run that trackers hear of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from distreal_dse.errors import described
from fl.results import RoundResult
from fl.store.runs import Run
from fl.tracking.base import Tracker, TrackingWarning
from fl.tracking.registry import make_trackers

Listener = Callable[[RoundResult], None]


@contextmanager
def tracked(text: str, run: Run, listen: Listener) -> Iterator[Listener]:
    """Give a listener of a run's rounds that tells trackers and then another listener.

    Of a run that goes on, they hear the rounds that are stored, too. A tracker that fails is warned
    of once and hears no more.

    Parameters
    ----------
    text
        As `make_trackers` takes it.
    run
        As it is stored when it begins or goes on.
    listen
        Hears of each round as well.

    Raises
    ------
    InputError
        As for `make_trackers`, or if a package is not installed.

    Warns
    -----
    TrackingWarning
        If a tracker fails.
    """
    trackers = make_trackers(text)
    for one in trackers:
        one.check()

    def tell(what: Callable[[Tracker], None]) -> None:
        for one in [*trackers]:
            try:
                what(one)
            except Exception as error:  # of a library, a network, a disk: training goes on
                trackers.remove(one)
                said = f"tracker {one.name} is told no more of run {run.id}: {described(error)}"
                warnings.warn(said, TrackingWarning, stacklevel=3)

    begun = False

    def hear(result: RoundResult) -> None:
        nonlocal begun
        told = [result]
        if not begun:  # another process may have carried it out: only now it is known to begin
            begun = True
            tell(lambda one: one.begin(run))
            # Rounds behind the checkpoint are trained again, those before it are in the database.
            told = [*(one for one in run.rounds if one.round < result.round), result]
        for heard in told:
            tell(partial(_round, heard))
        listen(result)

    failed = True
    try:
        yield hear
        failed = False
    finally:
        if begun:
            tell(lambda one: one.end(failed))


def _round(result: RoundResult, tracker: Tracker) -> None:
    tracker.round(result)

"""Fronts measured again from Python, as ``front verify`` and ``front reprice`` do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from distreal_dse.support.progress import console, progress_bar
from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from distreal_dse.fronts import Front
    from distreal_dse.pricing import Repricing, Wanted
    from distreal_dse.search import Reverified, SearchProgress
    from distreal_dse.study import Study


def verify(
    front: Front | str | os.PathLike[str],
    *,
    study: Study | str | os.PathLike[str] | None = None,
    replicates: int | None = None,
    seed: int | None = None,
    workers: int = 1,
    storage: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
    listen: Callable[[SearchProgress], None] | None = None,
) -> Reverified:
    """Measure a front's points again from another seed, and say what of it holds.

    Finished short runs are in the database: the same call goes on with what is left.

    Parameters
    ----------
    front
        A `Front`, its label, or the path of an exported one.
    study
        The `Study` object that it was searched for, where it was one, or its file, where this user
        never gave it before. None for a shipped study.
    replicates
        Short runs of each point, 2 or more; None for as many as the study's verification has.
    seed
        Of the short runs; None for the seed after that of the search.
    storage, workers, device, options, progress, listen
        As for `distreal_dse.optimize`.

    Returns
    -------
    Reverified
        Which points are non-dominated again, and which claims hold.

    Raises
    ------
    FrontError
        If there is no such front, or it is for another model.
    InputError
        If an argument, the study or its data can't be used.
    StorageError
        If the database can't be used.
    DistrealError
        If every point fails.
    """
    from distreal_dse.api._stages import stage_listener
    from distreal_dse.fronts import open_database
    from distreal_dse.pricing import source_of_front
    from distreal_dse.support.installation import full_installation

    with full_installation("a search"):
        from distreal_dse.search import reverify

    engine = open_database(storage_url(storage))
    try:
        found = _front(front, storage)
        source = source_of_front(found, _wanted(study, options, workers))
        with progress_bar(console()) if progress and listen is None else nullcontext() as bar:
            hear = listen or (stage_listener(bar) if bar else _unheard)
            return reverify(found, source, engine, seed, replicates, workers, device, hear)
    finally:
        engine.dispose()


def reprice(
    front: Front | str | os.PathLike[str],
    *,
    study: Study | str | os.PathLike[str] | None = None,
    name: str = "",
    repetitions: int = 30,
    threads: int = 1,
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
    storage: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
    listen: Callable[[int, int], None] | None = None,
) -> Repricing:
    """Measure a front's points on this device, and store a front with these costs.

    Parameters
    ----------
    front, study
        As for `verify`.
    name
        Of the new front; empty for the old one's with the start of the device's hash.
    repetitions
        Steps of each vector, in turn.
    threads
        That PyTorch computes with.
    seed
        Of the network's initialisation.
    input_shape
        Of one sample; None for the study's own.
    storage, device, options, progress
        As for `distreal_dse.optimize`.
    listen
        Called with (done, total) rounds in place of what is shown.

    Returns
    -------
    Repricing
        The new front, and what became of the points.

    Raises
    ------
    FrontError
        If there is no such front, it is for another model, or all of its points harm.
    InputError
        If an argument, the study or its data can't be used.
    StorageError
        If the database can't be used.
    """
    from dataclasses import replace

    from distreal_dse.fronts import open_database
    from distreal_dse.pricing import MeasureSettings, subject_of_front
    from distreal_dse.pricing import reprice as reprice_subject

    settings = MeasureSettings(repetitions, threads, seed=seed)
    wanted = replace(_wanted(study, options, 1), input_shape=input_shape, seed=seed, device=device)
    engine = open_database(storage_url(storage))
    try:
        subject = subject_of_front(_front(front, storage), wanted)
        with _rounds(progress and listen is None) as show:
            return reprice_subject(subject, settings, engine, name, listen or show)
    finally:
        engine.dispose()


def _front(front: Front | str | os.PathLike[str], storage: str | os.PathLike[str] | None) -> Front:
    from distreal_dse.api._fronts import load_front

    return load_front(front, storage) if isinstance(front, (str, os.PathLike)) else front


def _wanted(
    study: Study | str | os.PathLike[str] | None, options: Mapping[str, Any] | None, workers: int
) -> Wanted:
    from distreal_dse.pricing import Wanted
    from distreal_dse.study.given import GivenStudy, source_of

    if study is None:
        given = tuple(sorted((one, str(value)) for one, value in (options or {}).items()))
        return Wanted(options=given)
    source = source_of(study, options, workers=workers)
    return Wanted(source.options, source if isinstance(source, GivenStudy) else source.spec)


@contextmanager
def _rounds(shown: bool) -> Iterator[Callable[[int, int], None]]:
    if not shown:
        yield lambda done, total: None
        return
    with progress_bar(console()) as bar:
        yield lambda done, total: bar.show("rounds", done, total)


def _unheard(progress: SearchProgress) -> None:
    """Nobody is told."""

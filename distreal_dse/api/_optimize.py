"""Searching a study from Python; ``distreal-dse optimize`` calls the same."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from distreal_dse.errors import DistrealWarning, StorageError
from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from distreal_dse.fronts import Front
    from distreal_dse.search import SearchProgress
    from distreal_dse.study import Study
    from fl.world.fleet import Fleet

NO_FLEET, SPREAD = "none", "spread"
TABLE_TRIALS, VECTOR_TRIALS = 30, 100


def optimize(
    study: Study | str | os.PathLike[str],
    *,
    trials: int | None = None,
    storage: str | os.PathLike[str] | None = None,
    fleet: Fleet | str | None = None,
    name: str = "",
    workers: int = 1,
    runs: int | None = None,
    timeout: float | None = None,
    sampler: str = "cost-aware",
    cost: str = "macs",
    masks: str | None = None,
    granularity: int | None = None,
    pilot: bool = True,
    memory: float | str | None = None,
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    join: bool = False,
    progress: bool = True,
    listen: Callable[[SearchProgress], None] | None = None,
) -> Front:
    """Search the Pareto front of a study, or go on with a search that was stopped.

    Everything that is finished is in the database, whatever stops the search: the same call goes
    on from there. It ends with a front, which is stored too.

    Parameters
    ----------
    study
        A `Study`, which needs a name; or the name of a shipped study; or the path of a study file.
    trials
        Finished trials to end with, those of earlier calls included; None for 30 where a table is
        fitted, 100 where vectors are searched.
    storage
        URL of the database, or a `pathlib.Path` of an SQLite file; None for
        ``$DISTREAL_STORAGE``, else ``sqlite:///distreal.db`` in the working folder.
    fleet
        What a table is fitted to: a `Fleet`, a name such as ``"extreme"``, or its text. None takes
        ``"spread"``, as far as the network has vectors for its budgets; with ``cost="latency"``,
        and with ``"none"``, vectors are searched on their own.
    name
        Of the search and its front; the study's where it is empty.
    workers
        Local processes, one thread each; 1 trains in this process. A `Study` object is copied to
        them, with the functions that it refers to.
    runs
        Begin no new trial after so many short runs; None for no limit.
    timeout
        Begin no new trial after so many seconds; None for no limit.
    sampler
        ``"cost-aware"``, ``"tpe"``, ``"nsga2"``, ``"gp"`` or ``"random"``.
    cost
        ``"macs"``, counted, or ``"latency"``, seconds that are measured here.
    masks, granularity
        In place of the study's own; None for those.
    pilot
        Whether the search ends early where its first trials show that it does not pay.
    memory
        What a training step on a device may take: bytes, or text such as ``"64MB"``. Vectors that
        need more are never tried. None for no limit.
    seed
        Same seed, same machine, one worker, in one go: same front.
    device
        ``"cpu"`` or ``"cuda"``.
    options
        Of a study that is a function, by name, such as ``{"data": "images"}``.
    join
        Work on the search together with all others that join it, on any number of machines that
        share the database. All return the same front.
    progress
        Whether to show how far it is: bars in a terminal, lines elsewhere.
    listen
        Hears of every step in place of what is shown.

    Returns
    -------
    Front
        As stored, with its version.

    Raises
    ------
    InputError
        If an argument, the study, its model or its data can't be used.
    HeldError
        If another process carries out a search of this name, and not both have joined it.
    StorageError
        If the database can't be written.
    NoGainError
        If every vector harms: no front is stored.

    Warns
    -----
    DistrealWarning
        If the pictures of the dashboard could not be drawn; the front is stored all the same.

    Examples
    --------
    >>> front = optimize("digits-cnn", trials=30)  # doctest: +SKIP
    >>> front.lookup("20%").kept_counts  # doctest: +SKIP
    (7, 12, 26, 25, 64)
    """
    from distreal_dse.api._stages import shown_search
    from distreal_dse.study.given import source_of
    from distreal_dse.support.installation import full_installation
    from fl.world.fleet import Fleet, make_fleet

    with full_installation("a search"), warnings.catch_warnings():
        # Of tqdm, in a notebook without ipywidgets, which nothing here shows a bar with.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from distreal_dse.search import SearchSettings, search
    from distreal_dse.fronts import read_memory

    changes: dict[str, Any] = {"masks": masks, "granularity": granularity}
    changes = {field: value for field, value in changes.items() if value is not None}
    source = source_of(study, options, changes, workers)
    whole_fleet = fleet is not None
    if fleet is None and cost == "macs":
        fleet = SPREAD
    if fleet == NO_FLEET:
        fleet = None
    if fleet is not None and not isinstance(fleet, Fleet):
        fleet = make_fleet(fleet)
    if trials is None:
        trials = VECTOR_TRIALS if fleet is None else TABLE_TRIALS
    settings = SearchSettings(
        source=source,
        name=name,
        trials=trials,
        runs=runs,
        timeout=timeout,
        workers=workers,
        sampler=sampler,
        seed=seed,
        device=device,
        cost=cost,
        fleet=fleet.budgets() if fleet is not None else None,
        whole_fleet=whole_fleet,
        pilot=pilot,
        join=join,
        memory=None if memory is None else read_memory(memory),
    )
    url = storage_url(storage)
    shown = shown_search() if progress and listen is None else nullcontext(listen or _unheard)
    with shown as hear:
        front = search(settings, url, hear)
        try:
            _draw(url, front.name)
        except StorageError as error:
            warnings.warn(str(error), DistrealWarning, stacklevel=2)
    return front


def _unheard(progress: SearchProgress) -> None:
    """Nobody is told."""


def _draw(url: str, name: str) -> None:
    """Draw the search for `distreal-dse dashboard`."""
    from dashboards.publishing import open_storage, publish
    from distreal_dse.fronts import open_database

    engine = open_database(url)
    try:
        storage = open_storage(url)
        try:
            publish(storage, engine, name)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    finally:
        engine.dispose()

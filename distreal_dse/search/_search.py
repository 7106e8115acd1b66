"""The search: propose vectors, evaluate them, verify the best, store the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, KeptCounts, make_policy
from distreal_dse.errors import InputError
from distreal_dse.fronts import (
    PILOT,
    TABLE,
    Front,
    FrontPoint,
    Pilot,
    check_front_name,
    filled,
    open_database,
    pilot_from,
    table_setting,
    useful_front,
)
from distreal_dse.search._costs import TrialCost, check_metric, trial_cost
from distreal_dse.search._fleets import find_for_fleet
from distreal_dse.search._fronts import front_of, settings_of, study_attributes
from distreal_dse.search._job import SearchJob
from distreal_dse.search._memory import SearchMemory
from distreal_dse.search._settings import (
    Listener,
    SearchProgress,
    SearchSettings,
    check_granularity,
)
from distreal_dse.search._vectors import Explorer
from distreal_dse.search.executors import Executor
from distreal_dse.search.ledger import (
    Ledger,
    TrialArchive,
    comparable_settings,
    holding_search,
    joining,
    progress_notes,
)
from distreal_dse.search.proposer import make_sampler
from distreal_dse.search.verdicts import pilot_shapes, run_pilot, verify
from distreal_dse.study.preparation import prepare
from distreal_dse.support.specs import slug


def search(
    settings: SearchSettings,
    storage: str,
    listen: Listener = lambda progress: None,
    executor: Executor | None = None,
) -> Front:
    """Find the Pareto front of a study and store it; continue a search that was begun.

    Finished trials and verification runs are in the database when ``listen`` hears of them, and
    stay there whatever happens: the same call goes on from there. One process at a time carries
    out the search of a name, or all those together that do so with `SearchSettings.join`: they
    share its short runs, take over what one of them leaves when it is lost, and return the same
    front, which one of them stores.

    Parameters
    ----------
    settings
        What to search, and how.
    storage
        URL of the database.
    listen
        Hears of every step.
    executor
        Where short runs are done; closed at the end. None does them as the settings say: here, or
        in local processes.

    Returns
    -------
    Front
        As stored, with its version.

    Raises
    ------
    InputError
        If a setting, the study, its model or its data can't be used.
    HeldError
        If another process carries out a search of this name, and not both have joined it.
    StorageError
        If the database can't be written.
    NoGainError
        If every verified vector harms: no front is stored.
    DistrealError
        If every trial fails.
    """
    _check(settings)
    study = settings.source.load()
    name = settings.name or slug(study.name)
    check_front_name(name)
    make_policy(study.masks)  # before anything takes long
    engine = open_database(storage)
    try:
        taking_part = (
            joining(engine, name, settings.trials, settings.pilot)
            if settings.join
            else holding_search(engine, name)
        )
        with taking_part as driver:
            note = progress_notes(engine, driver)

            def hear(progress: SearchProgress) -> None:
                note(progress.stage, progress.done, progress.total)
                listen(progress)

            job = SearchJob(settings, study, name, storage, engine, driver, hear, executor)
            front = _find(job) if settings.fleet is None else find_for_fleet(job)
            return driver.store(front, front.settings["trials"])
    finally:
        engine.dispose()


def _find(job: SearchJob) -> Front:
    """Find the front of vectors."""
    settings, study, listen = job.settings, job.study, job.listen
    network, data = prepare(study, settings.seed, settings.device)
    check_granularity(study, network)
    memory = SearchMemory(study, network, data, settings.memory)
    cost = trial_cost(settings.cost, study, network, data, settings.seed)
    comparable = {
        **comparable_settings(study, network, settings.seed, settings.device),
        **cost.comparable,
        **memory.comparable,
    }
    attributes = {**study_attributes(study, network), **cost.attributes}
    with job.opened(network, data, comparable, attributes) as (archive, ledger):
        cost.begin(archive)
        explorer = Explorer(
            settings, study, network, cost, archive, ledger, memory.fits, job.company
        )
        starts = explorer.space.uniform()
        shapes = pilot_shapes(explorer.space, network, study.granularity)
        pilot = _piloted(job, explorer, cost, archive, ledger, starts, shapes)
        if pilot is not None:
            starts += shapes
        explorer.enqueue(starts)
        pays = pilot is None or pilot.is_worth_a_search
        explorer.run(settings.trials if pays else len(starts), listen)
        if job.company is not None:
            # From what is stored, in its order: so that all drivers verify the same vectors.
            explorer = Explorer(settings, study, network, cost, archive, ledger, memory.fits)
        verified = verify(
            explorer.candidates(only_uniform=not pays),
            study.short_run.verification_replicates,
            ledger,
            lambda done, total, failed: listen(
                explorer.progress("verification", done, total, failed)
            ),
        )
        settled = cost.settle(
            verified.points,
            archive,
            lambda done, total: listen(explorer.progress("latency", done, total, 0)),
        )
    settled = memory.told(settled)
    told = {
        **comparable,
        **settings_of(settings, explorer.finished),
        **_table(useful_front(settled.points)[0], cost, network, memory),
        **({PILOT: pilot.as_json()} if pilot else {}),
    }
    return front_of(job.name, study, network, cost, verified, settled, told)


def _piloted(
    job: SearchJob,
    explorer: Explorer,
    cost: TrialCost,
    archive: TrialArchive,
    ledger: Ledger,
    uniform: Sequence[Mapping[str, float]],
    shapes: Sequence[Mapping[str, float]],
) -> Pilot | None:
    """Recall what the pilot found, or carry it out; None where there is none."""
    settings, listen = job.settings, job.listen
    if not settings.pilot:
        return None
    stored, trials_left = archive.recall(PILOT), settings.trials - len(uniform) - len(shapes)
    if stored is not None or trials_left <= 0:
        return pilot_from(stored)
    pilot: Pilot | None = run_pilot(
        explorer.space, uniform, shapes, job.study, cost, ledger, listen, explorer.goes_on
    )
    if job.company is not None and (stored := archive.recall(PILOT)) is not None:
        pilot = pilot_from(stored)  # another driver's: the same, but for its seconds
    elif explorer.goes_on():  # else the next start makes it whole
        archive.remember(PILOT, pilot.as_json() if pilot else {})
    if pilot is not None:
        left = ledger.seconds_for(explorer.runs_left(trials_left))
        listen(SearchProgress("pilot", 1, 1, pilot=pilot, seconds_left=left))
    return pilot


def _table(
    points: Sequence[FrontPoint], cost: TrialCost, network: DroppableNetwork, memory: SearchMemory
) -> dict[str, Any]:
    """What devices look up: the points, and vectors between them where costs are exact."""
    if cost.metric != "macs" or not points:
        return {}
    macs = MacCost(network.channels)

    def price(vectors: Sequence[KeptCounts]) -> Sequence[float]:
        return macs.training_many(vectors).tolist() if vectors else []

    vectors = filled([point.kept_counts for point in points], price)
    if memory.fits is not None:  # between two that fit lie some that don't
        fitting = memory.fits(np.array(vectors)).tolist()
        vectors = [counts for counts, fits in zip(vectors, fitting, strict=True) if fits]
    return {TABLE: table_setting(vectors, price(vectors), memory.peak)}


def _check(settings: SearchSettings) -> None:
    for what, value in (("--trials", settings.trials), ("--workers", settings.workers)):
        if value < 1:
            raise InputError(f"{what} is {value}: expected 1 or more")
    if settings.runs is not None and settings.runs < 1:
        raise InputError(f"--runs is {settings.runs}: expected 1 or more")
    if settings.timeout is not None and not settings.timeout > 0:
        raise InputError(f"--timeout is {settings.timeout}: expected more than 0 seconds")
    if settings.memory is not None and settings.memory < 1:
        raise InputError(f"--memory is {settings.memory}: expected 1 byte or more, such as 64MB")
    make_sampler(settings.sampler, 0)
    check_metric(settings.cost)
    if settings.join and settings.cost != "macs":
        raise InputError(
            f"--cost is {settings.cost}: expected macs with --join, as seconds are of one device "
            "that does nothing else; search without --join"
        )

"""The search: propose vectors, evaluate them, verify the best, store the front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Engine

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, KeptCounts, make_policy
from distreal_dse.errors import InputError, StudyError
from distreal_dse.fronts import (
    LAYERS,
    TABLE,
    VERIFICATION,
    Front,
    FrontPoint,
    check_front_name,
    filled,
    open_database,
    save_front,
    table_setting,
    useful_front,
)
from distreal_dse.preparation import prepare
from distreal_dse.search._archive import TrialArchive
from distreal_dse.search._comparable import comparable_settings
from distreal_dse.search._costs import TrialCost, check_metric, trial_cost
from distreal_dse.search._executors import make_executor
from distreal_dse.search._explorer import Explorer
from distreal_dse.search._fleet_search import find_for_fleet
from distreal_dse.search._front_parts import (
    channels_of_a_unit,
    front_groups,
    layer_terms,
    no_gain,
    uniform_family,
    verified_gains,
    versions,
)
from distreal_dse.search._holding import holding_search
from distreal_dse.search._ledger import Ledger
from distreal_dse.search._samplers import make_sampler
from distreal_dse.search._settings import Listener, SearchProgress, SearchSettings
from distreal_dse.search._tried import CHANNELS_OF_A_UNIT
from distreal_dse.search._verification import verify
from distreal_dse.specs import slug
from distreal_dse.study import Study


def search(
    settings: SearchSettings, storage: str, listen: Listener = lambda progress: None
) -> Front:
    """Find the Pareto front of a study and store it; continue a search that was begun.

    Finished trials and verification runs are in the database when ``listen`` hears of them, and
    stay there whatever happens: the same call goes on from there. One process at a time carries
    out the search of a name.

    Parameters
    ----------
    settings
        What to search, and how.
    storage
        URL of the database.
    listen
        Hears of every step.

    Returns
    -------
    Front
        As stored, with its version.

    Raises
    ------
    InputError
        If a setting, the study, its model or its data can't be used.
    HeldError
        If another process carries out a search of this name.
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
        with holding_search(engine, name) as check:
            find = _find if settings.fleet is None else find_for_fleet
            front = find(settings, study, name, storage, engine, check, listen)
            check()
            return save_front(engine, front)
    finally:
        engine.dispose()


def _find(
    settings: SearchSettings,
    study: Study,
    name: str,
    storage: str,
    engine: Engine,
    check: Callable[[], None],
    listen: Listener,
) -> Front:
    """Find the front; ``check`` raises if the search was taken over."""
    network, data = prepare(study, settings.seed, settings.device)
    _check_granularity(study, network)
    cost = trial_cost(settings.cost, study, network, data, settings.seed)
    comparable = {
        **comparable_settings(study, network, settings.seed, settings.device),
        **cost.comparable,
    }
    attributes = {
        "study": f"{study.name}: {study.description}",
        "channel groups": {group.name: group.channels for group in network.groups},
        CHANNELS_OF_A_UNIT: channels_of_a_unit(network),
        **cost.attributes,
    }
    with (
        closing(TrialArchive(storage, name, comparable, attributes, check)) as archive,
        closing(
            make_executor(
                study,
                network,
                data,
                settings.source,
                settings.seed,
                settings.device,
                settings.workers,
                lambda done, total: listen(SearchProgress("warm-up", done, total)),
            )
        ) as executor,
    ):
        archive.check_snapshots(executor.snapshot_losses())
        cost.begin(archive)
        explorer = Explorer(settings, study, network, cost, archive)
        explorer.run(executor, listen)
        verified = verify(
            explorer.candidates(),
            study.short_run.verification_replicates,
            Ledger(executor, engine, archive.key, settings.seed),
            lambda done, total, failed: listen(
                explorer.progress("verification", done, total, failed)
            ),
        )
        points = cost.settle(
            verified.points,
            archive,
            lambda done, total: listen(explorer.progress("latency", done, total, 0)),
        )
    front_points, harmful = useful_front(points)
    if not front_points:
        raise no_gain(name, points)
    return Front(
        name=name,
        study=study.name,
        model_fingerprint=network.channels.fingerprint,
        groups=front_groups(network),
        cost_metric=cost.metric,
        device=cost.device,
        reference_cost=cost.reference,
        settings={
            **comparable,
            # Where the data lies does not matter to a reader of the front.
            "options": {name: value for name, value in settings.source.options if name != "data"},
            "sampler": settings.sampler,
            "trials": explorer.finished,
            **cost.front_settings(front_points),
            LAYERS: layer_terms(network),
            **_table(front_points, cost, network),
            "uniform family": uniform_family(points, network.channels.widths, study.granularity),
            VERIFICATION: verified_gains(points, verified),
            "failed verification": dict(verified.failures),
            **({"harmful": {p.key: p.convergence for p in harmful}} if harmful else {}),
            "versions": versions(),
        },
        points=front_points,
    )


def _table(
    points: Sequence[FrontPoint], cost: TrialCost, network: DroppableNetwork
) -> dict[str, Any]:
    """What devices look up: the points, and vectors between them where costs are exact."""
    if cost.metric != "macs":
        return {}
    macs = MacCost(network.channels)

    def price(vectors: Sequence[KeptCounts]) -> Sequence[float]:
        return macs.training_many(vectors).tolist() if vectors else []

    vectors = filled([point.kept_counts for point in points], price)
    return {TABLE: table_setting(vectors, price(vectors))}


def _check(settings: SearchSettings) -> None:
    for what, value in (("--trials", settings.trials), ("--workers", settings.workers)):
        if value < 1:
            raise InputError(f"{what} is {value}: expected 1 or more")
    if settings.timeout is not None and not settings.timeout > 0:
        raise InputError(f"--timeout is {settings.timeout}: expected more than 0 seconds")
    make_sampler(settings.sampler, 0)
    check_metric(settings.cost)


def _check_granularity(study: Study, network: DroppableNetwork) -> None:
    widest = max(network.channels.widths)
    if 1 < study.granularity >= widest:
        raise StudyError(
            f"granularity of study {study.name} is {study.granularity}: expected less than the "
            f"{widest} channels of the widest group, or there is nothing to drop"
        )

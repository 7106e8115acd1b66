"""The search: propose vectors, evaluate them, verify the best, store the front."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from typing import Any

from sqlalchemy import Engine

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, make_policy, uniform_rate
from distreal_dse.errors import InputError, NoGainError, StudyError
from distreal_dse.fronts import (
    FIXED,
    LAYERS,
    Front,
    FrontGroup,
    FrontPoint,
    check_front_name,
    open_database,
    save_front,
    useful_front,
)
from distreal_dse.preparation import prepare
from distreal_dse.search._archive import TrialArchive
from distreal_dse.search._comparable import comparable_settings
from distreal_dse.search._costs import check_metric, trial_cost
from distreal_dse.search._executors import make_executor
from distreal_dse.search._explorer import Explorer
from distreal_dse.search._holding import holding_search
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
            front = _find(settings, study, name, storage, engine, check, listen)
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
        CHANNELS_OF_A_UNIT: {
            group.name: size
            for group, size in zip(network.groups, network.channels.channels_per_unit, strict=True)
        },
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
        verified, failures = verify(
            explorer.candidates(),
            study.short_run.verification_replicates,
            executor,
            engine,
            archive.key,
            settings.seed,
            lambda done, total, failed: listen(
                explorer.progress("verification", done, total, failed)
            ),
        )
        verified = cost.settle(
            verified,
            archive,
            lambda done, total: listen(explorer.progress("latency", done, total, 0)),
        )
    points, harmful = useful_front(verified)
    if not points:
        raise _no_gain(name, verified)
    return Front(
        name=name,
        study=study.name,
        model_fingerprint=network.channels.fingerprint,
        groups=tuple(FrontGroup(group.name, group.channels) for group in network.groups),
        cost_metric=cost.metric,
        device=cost.device,
        reference_cost=cost.reference,
        settings={
            **comparable,
            # Where the data lies does not matter to a reader of the front.
            "options": {name: value for name, value in settings.source.options if name != "data"},
            "sampler": settings.sampler,
            "trials": explorer.finished,
            **cost.front_settings(points),
            LAYERS: _layers(network),
            "uniform family": _uniform_family(verified, network.channels.widths, study.granularity),
            "failed verification": failures,
            # Only where there are any, so that a front of before is not stored anew.
            **({"harmful": {p.key: p.convergence for p in harmful}} if harmful else {}),
            "versions": _versions(),
        },
        points=points,
    )


def _no_gain(name: str, verified: Sequence[FrontPoint]) -> NoGainError:
    best = max(verified, key=lambda point: point.convergence)
    return NoGainError(
        f"search '{name}': expected a vector whose short runs lower the validation loss, found "
        f"that each of {len(verified)} raises it (the best gain is {best.convergence:.3f} ± "
        f"{best.standard_error:.3f}); no front is stored: lower the study's learning rate or "
        "lengthen its ShortRun, and search under another --name"
    )


def _uniform_family(
    verified: Sequence[FrontPoint], widths: Sequence[int], granularity: int
) -> list[dict[str, float | None]]:
    """What the front is held against, dominated or not."""
    return [
        {
            "rate": uniform_rate(point.kept_counts, widths, granularity),
            "cost": point.cost,
            "convergence": point.convergence,
            "standard_error": point.standard_error,
            "replicates": point.replicates,
            "accuracy": point.accuracy,
        }
        for point in sorted(verified, key=lambda point: point.cost)
        if point.uniform
    ]


def _layers(network: DroppableNetwork) -> list[dict[str, Any]]:
    """What `layer_costs` reads from a front."""

    def named(channels: Sequence[float]) -> dict[str, float]:
        keys = [*map(str, range(len(channels) - 1)), FIXED]
        return {key: count for key, count in zip(keys, channels, strict=True) if count}

    return [
        {"name": name, "macs": macs, "inputs": named(inputs), "outputs": named(outputs)}
        for name, macs, inputs, outputs in MacCost(network.channels).terms()
    ]


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


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("distreal-dse", "optuna", "torch")}
    return {"python": platform.python_version(), **packages}

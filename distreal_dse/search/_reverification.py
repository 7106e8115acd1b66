"""A front measured again from another start, to see whether what it says holds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from distreal_dse.catalogue import StudySource
from distreal_dse.dropout import make_policy
from distreal_dse.errors import InputError
from distreal_dse.fronts import (
    Front,
    FrontPoint,
    hypervolume,
    non_dominated,
    verification_keys,
)
from distreal_dse.preparation import prepare
from distreal_dse.search._archive import IMPLIED
from distreal_dse.search._comparable import SAME_LOSS, check_agreement, comparable_settings
from distreal_dse.search._executors import make_executor
from distreal_dse.search._settings import Listener, SearchProgress
from distreal_dse.search._verification import Candidate, verify


@dataclass(frozen=True)
class Reverified:
    """The points of a front as they were, and as they are from another start.

    Parameters
    ----------
    front
        As it is stored.
    points
        Measured again, in the order of the front's; without those that failed.
    failures
        Kept counts, as text, of these, and why.
    """

    front: Front
    points: tuple[FrontPoint, ...]
    failures: Mapping[str, str]

    @property
    def pairs(self) -> list[tuple[FrontPoint, FrontPoint]]:
        """Each point that was measured again, before and now."""
        before = {point.kept_counts: point for point in self.front.points}
        return [(before[point.kept_counts], point) for point in self.points]

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of the gains before and now; NaN where there are fewer than two points."""
        if len(self.points) < 2:
            return math.nan
        from scipy.stats import spearmanr  # takes a second to import

        gains = [(before.convergence, now.convergence) for before, now in self.pairs]
        return float(spearmanr(*zip(*gains, strict=True)).statistic)

    @property
    def non_dominated(self) -> list[bool]:
        """Of each point now, whether no other one gains as much for less."""
        best = non_dominated([p.cost for p in self.points], [p.convergence for p in self.points])
        return [index in best for index in range(len(self.points))]

    @property
    def hypervolume(self) -> float:
        """Of the points now, as `Front.hypervolume` is of those before."""
        pairs = ((point.cost, point.convergence) for point in self.points)
        return hypervolume(pairs, self.front.reference_cost)


def reverify(
    front: Front,
    source: StudySource,
    engine: Engine,
    seed: int | None = None,
    replicates: int | None = None,
    workers: int = 1,
    device: str = "cpu",
    listen: Listener = lambda progress: None,
) -> Reverified:
    """Measure the points of a front again: short runs from a snapshot of another seed.

    Gains depend on the snapshot, so what can be compared is their order, what is dominated, and
    roughly the hypervolume. Costs are those of the front. Finished runs are kept in the database:
    the same call goes on with what is left.

    Parameters
    ----------
    front
        Of the study that ``source`` names.
    source
        The study, with its options; masks and granularity are taken from the front.
    engine
        The opened database.
    seed
        Of initialisation, snapshot and short runs; None for the seed after that of the search.
    replicates
        Short runs of each point, ≥ 2; None for as many as the study's verification has.
    workers
        Local processes; 1 measures in this process.
    device
        ``"cpu"`` or ``"cuda"``.
    listen
        Hears of warm-up and verification.

    Raises
    ------
    FrontError
        If the front is for another model.
    InputError
        If a number is out of range, or study, model or data can't be used.
    DistrealError
        If every point fails.
    """
    for what, value, least in (("--workers", workers, 1), ("--replicates", replicates, 2)):
        if value is not None and value < least:
            raise InputError(f"{what} is {value}: expected {least} or more")
    if seed is None:
        searched = front.settings.get("seed")
        seed = searched + 1 if isinstance(searched, int) else 1
    study, changes = source.load(), {}
    own = {"masks": make_policy(study.masks).spec, "granularity": study.granularity}
    for key, own_value in own.items():
        if (searched_with := front.settings.get(key, IMPLIED[key])) != own_value:
            changes[key] = searched_with
    study = replace(study, **changes)
    source = replace(source, changes=tuple(changes.items()))
    network, data = prepare(study, seed, device)
    front.check_model(network.channels.fingerprint, f"study {study.name}")
    candidates = [
        Candidate(point.rates, point.kept_counts, point.cost, point.uniform, point.trial)
        for point in front.points
    ]

    def progress(done: int, total: int) -> None:
        listen(SearchProgress("warm-up", done, total))

    executor = make_executor(study, network, data, source, seed, device, workers, progress)
    with closing(executor):
        losses = executor.snapshot_losses()
        check_agreement(losses, f"front {front.label}")
        told = {"front": front.content_hash, **comparable_settings(study, network, seed, device)}
        key = _key_of_runs(engine, told, losses[0])
        points, failures = verify(
            candidates,
            study.short_run.verification_replicates if replicates is None else replicates,
            executor,
            engine,
            key,
            seed,
            lambda done, total, failed: listen(SearchProgress("verification", done, total, failed)),
        )
    return Reverified(front, points, failures)


def _key_of_runs(engine: Engine, told: Mapping[str, Any], loss: float) -> str:
    """Return what the runs of such settings are kept under, where they began at such a loss.

    The loss of the snapshot stands for the data, the model's code and versions, as in a search.
    """
    canonical = json.dumps(told, sort_keys=True)
    prefix = f"again/{hashlib.sha256(canonical.encode()).hexdigest()[:12]}/"
    for known in verification_keys(engine, prefix):
        if abs(float(known.removeprefix(prefix)) - loss) <= SAME_LOSS:
            return known
    return f"{prefix}{loss:.6f}"

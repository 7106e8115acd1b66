"""A front measured again from another start, to see whether what it says holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from distreal_dse.budgets import budgets_of
from distreal_dse.convergence import FleetTable
from distreal_dse.dropout import make_policy
from distreal_dse.errors import InputError
from distreal_dse.fronts import (
    Front,
    FrontPoint,
    MeasuredVector,
    Saving,
    Verdict,
    hypervolume,
    measured_vectors,
    non_dominated,
    table_of,
    verdict_of,
    verdict_on,
    verification_keys,
)
from distreal_dse.search._settings import Listener, SearchProgress
from distreal_dse.search._tried import FLEET
from distreal_dse.search.executors import make_executor
from distreal_dse.search.ledger import (
    IMPLIED,
    SAME_LOSS,
    Ledger,
    check_agreement,
    comparable_settings,
)
from distreal_dse.search.verdicts._verification import Candidate, verify
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.given import GivenStudy
from distreal_dse.study.preparation import prepare


@dataclass(frozen=True)
class Claim:
    """That a vector is better than one rate for all layers, held against new runs.

    Parameters
    ----------
    before
        What the front's own runs say: the vector gains more than one rate at ``at_least``.
    difference
        How much more than that one-rate vector it gains now: the mean over pairs of new runs.
    """

    before: Saving
    difference: float

    @property
    def holds(self) -> bool:
        """Whether it gained more again."""
        return self.difference > 0


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
    measured
        All that was measured again, one rate for all layers too, run by run.
    """

    front: Front
    points: tuple[FrontPoint, ...]
    failures: Mapping[str, str]
    measured: tuple[MeasuredVector, ...] = ()

    @property
    def pairs(self) -> list[tuple[FrontPoint, FrontPoint]]:
        """Each point that was measured again, before and now."""
        before = {point.kept_counts: point for point in self.front.points}
        return [(before[point.kept_counts], point) for point in self.points]

    @property
    def verdict(self) -> Verdict | None:
        """What the new runs say of the front against one rate; None where there is no such."""
        return verdict_on(self.measured, self.front.reference_cost)

    @property
    def claims(self) -> list[Claim]:
        """What the front claims to be better than one rate, and whether that holds."""
        before = verdict_of(self.front)
        now = {one.kept_counts: one for one in self.measured}
        family = {one.cost: one for one in self.measured if one.uniform}
        return [
            Claim(one, now[one.vector.kept_counts].gain - family[one.at_least].gain)
            for one in (before.better if before else ())
            if one.vector.kept_counts in now and one.at_least in family
        ]

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
    source: StudySource | GivenStudy,
    engine: Engine,
    seed: int | None = None,
    replicates: int | None = None,
    workers: int = 1,
    device: str = "cpu",
    listen: Listener = lambda progress: None,
) -> Reverified:
    """Measure the points of a front again: short runs from a snapshot of another seed.

    The one-rate vectors that the front was held against are measured again, too, and so is what it
    claims to be better. Gains depend on the snapshot, so what can be compared is who gains more,
    what is dominated, and roughly the hypervolume. Costs are those of the front. Finished runs
    are kept in the database: the same call goes on with what is left.

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
    candidates = _candidates(front)

    def progress(done: int, total: int) -> None:
        listen(SearchProgress("warm-up", done, total))

    executor = make_executor(study, network, data, source, seed, device, workers, progress)
    with closing(executor):
        losses = executor.snapshot_losses()
        check_agreement(losses, f"front {front.label}")
        told = {"front": front.content_hash, **comparable_settings(study, network, seed, device)}
        key = _key_of_runs(engine, told, losses[0])
        verified = verify(
            candidates,
            study.short_run.verification_replicates if replicates is None else replicates,
            Ledger(executor, engine, key, seed),
            lambda done, total, failed: listen(SearchProgress("verification", done, total, failed)),
            _fleet_table(front),
        )
    on_front = {point.kept_counts for point in front.points}
    return Reverified(
        front,
        tuple(point for point in verified.points if point.kept_counts in on_front),
        verified.failures,
        tuple(
            MeasuredVector(p.kept_counts, p.cost, verified.gains[p.kept_counts], p.uniform)
            for p in verified.points
        ),
    )


def _candidates(front: Front) -> list[Candidate]:
    """The front's points, and what they were held against or claimed to be better."""
    points = {
        point.kept_counts: Candidate(
            point.rates, point.kept_counts, point.cost, point.uniform, point.trial
        )
        for point in front.points
    }
    verdict = verdict_of(front)
    better = {one.vector.kept_counts for one in verdict.better} if verdict else set()
    widths = [group.channels for group in front.groups]
    for one in measured_vectors(front):
        if one.uniform or one.kept_counts in better:
            pairs = zip(one.kept_counts, widths, strict=True)
            rates = tuple(1 - kept / width for kept, width in pairs)
            other = Candidate(rates, one.kept_counts, one.cost, one.uniform, None)
            points.setdefault(one.kept_counts, other)
    return list(points.values())


def _fleet_table(front: Front) -> FleetTable | None:
    """What the other mini-batches of its short runs trained, where it is for a fleet."""
    if FLEET not in front.settings:
        return None
    full, vectors = front.reference_cost, table_of(front)
    return FleetTable(
        budgets_of(front.settings[FLEET]),
        tuple(one.kept_counts for one in vectors),
        tuple(one.cost / full for one in vectors),
    )


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

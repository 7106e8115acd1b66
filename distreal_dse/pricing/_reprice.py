"""A front for this device, made of one that was searched for MACs or on another device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Engine

from distreal_dse.cost import MemoryCost, device_text, fingerprint_hash, noise_verdict
from distreal_dse.dropout import DroppableNetwork, KeptCounts, check_counts
from distreal_dse.errors import DistrealError, FrontError, VectorError
from distreal_dse.fronts import (
    PILOT,
    TABLE,
    VERIFICATION,
    Front,
    FrontPoint,
    MeasuredVector,
    check_front_name,
    measured_vectors,
    save_front,
    table_fit,
    useful_front,
    utc_now,
    verification_setting,
)
from distreal_dse.pricing._measure import Measurement, MeasureSettings, measure
from distreal_dse.pricing._one_rate import ONE_RATE, granularity_of, one_rate_knots
from distreal_dse.pricing._subject import Subject, uniform_vectors

# Settings of a front that only hold with its own costs.
_OF_ITS_COSTS = frozenset({TABLE, PILOT, VERIFICATION})


@dataclass(frozen=True)
class Repricing:
    """A re-priced front as it is stored, how its points came about, and what was measured.

    ``dropped`` were points of the first front, of which ``harmful`` are those that harm; ``added``
    are vectors with one rate for all layers, which were verified beside it. ``beaten`` counts
    points that such a vector dominates here but can't replace, because the first front says too
    little of it.
    """

    front: Front
    dropped: tuple[FrontPoint, ...]
    added: tuple[FrontPoint, ...]
    beaten: int
    measurement: Measurement

    @property
    def harmful(self) -> tuple[FrontPoint, ...]:
        """Dropped points that harm: earlier versions put them on fronts."""
        return tuple(point for point in self.dropped if point.harms)


def reprice(
    subject: Subject,
    settings: MeasureSettings,
    engine: Engine,
    name: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Repricing:
    """Measure a front's points on this device and store a front with these costs.

    Convergence is a matter of the vector, not of the device: it stays. The new front is what
    gains and is non-dominated here of the old one's points and of the uniform vectors that were
    verified beside them. Other vectors of the search that were too dear for the first front don't
    come back: search with ``--cost latency`` for that. All that were verified are measured, so that
    the verdict is one in seconds. Networks of one rate are timed as well (`one_rate_knots`), so
    that all strategies of federated training have prices.

    What the first front says of its own costs does not hold here and is left out: its lookup table,
    whose vectors were not measured, and the pilot of its search.

    Parameters
    ----------
    subject
        A front and its network.
    settings
        How to measure.
    engine
        An opened database.
    name
        Of the new front; by default the old one's with the start of the device's hash.
    progress
        Called with (done, total) rounds.

    Raises
    ------
    FrontError
        If the subject is no front, all of its points harm, or the name can't be one.
    InputError, StudyError, StorageError
        As for `measure`, which see for interrupts too.
    """
    front = subject.front
    if front is None:
        raise FrontError(f"{subject.label} can't be re-priced: expected a front")
    if name:
        check_front_name(name)
    if front.cheapest_useful is None:
        rest = "its table was judged as a whole, for MACs" if table_fit(front) else "search again"
        raise FrontError(
            f"{subject.label} can't be re-priced: expected a point that gains, found that all "
            f"{len(front.points)} harm (their loss gain is below 0); {rest}"
        )
    family = _uniform_family(front, subject.network)
    verified = _verified(front, subject.network)
    vectors = (*subject.vectors, *family, *(one.kept_counts for one in verified))
    knots = one_rate_knots(subject.network.groups, granularity_of(front))
    measurement = measure(subject, settings, engine, progress, vectors, knots)
    costs = measurement.latencies.costs()
    own = {point.kept_counts for point in front.points}
    uniform = [
        _uniform_point(entry, counts, front)
        for counts, entry in family.items()
        if counts not in own and entry.keys() >= {"replicates", "accuracy"}
    ]
    memory = _memory(subject, measurement.batch_size)
    priced = [
        replace(p, cost=costs[p.kept_counts], memory=memory(p.kept_counts))
        for p in (*front.points, *uniform)
    ]
    kept, _ = useful_front(priced)
    points = {point.kept_counts for point in kept}
    dropped = tuple(point for point in front.points if point.kept_counts not in points)
    added = tuple(point for point in kept if point.kept_counts not in own)
    entries = sorted(
        ({**entry, "cost": costs[counts]} for counts, entry in family.items()),
        key=lambda entry: entry["cost"],
    )
    noise = noise_verdict(one for one in measurement.latencies.vectors if one.counts in points)
    new = replace(
        front,
        name=name or f"{front.name}-{fingerprint_hash(measurement.device)[:6]}",
        cost_metric="latency",
        device=measurement.device,
        reference_cost=measurement.latencies.full.median,
        settings={
            **{name: kept for name, kept in front.settings.items() if name not in _OF_ITS_COSTS},
            **({"uniform family": entries} if entries else {}),
            **({VERIFICATION: _verification(verified, costs)} if verified else {}),
            "batch size": measurement.batch_size,
            "cost": "latency",
            "measured on": device_text(measurement.device),
            "latency": {
                **measurement.latencies.as_json(),
                "noise": asdict(noise),
                **({ONE_RATE: one_rate} if (one_rate := measurement.one_rate) else {}),
            },
            "repriced from": {
                "front": front.label,
                "hash": front.content_hash,
                "cost metric": front.cost_metric,
                "dropped": [point.key for point in dropped],
                "added": [point.key for point in added],
            },
        },
        points=kept,
        created_at=utc_now(),
        version=0,
    )
    beaten = sum(
        any(
            costs[counts] < point.cost and entry["convergence"] > point.convergence
            for counts, entry in family.items()
        )
        for point in kept
    )
    return Repricing(save_front(engine, new), dropped, added, beaten, measurement)


def _memory(subject: Subject, batch_size: int) -> Callable[[KeptCounts], int | None]:
    """What vectors need in mini-batches of this size; None of all where that can't be told."""
    try:
        return MemoryCost(subject.study, subject.network, subject.input_shape, batch_size).peak
    except DistrealError:
        return lambda counts: None


def _verified(front: Front, network: DroppableNetwork) -> tuple[MeasuredVector, ...]:
    """What was verified for the front; empty where that is not told, or of another network."""
    vectors = measured_vectors(front)
    try:
        for one in vectors:
            check_counts(one.kept_counts, network.groups)
    except VectorError:
        return ()
    return vectors


def _verification(
    verified: Sequence[MeasuredVector], costs: Mapping[KeptCounts, float]
) -> list[dict[str, Any]]:
    return verification_setting([replace(one, cost=costs[one.kept_counts]) for one in verified])


def _uniform_family(front: Front, network: DroppableNetwork) -> dict[KeptCounts, dict[str, Any]]:
    """The verified uniform vectors beside the front, by kept counts; empty where unknown."""
    found: dict[KeptCounts, dict[str, Any]] = {}
    try:
        granularity = granularity_of(front)
        for entry in front.settings["uniform family"]:
            (counts,) = uniform_vectors(network, [entry["rate"]], granularity)
            numbers = {key: float(entry[key]) for key in ("convergence", "standard_error")}
            found[counts] = {**entry, **numbers}
    except (KeyError, TypeError, ValueError, VectorError):  # settings are free, e.g. of an import
        return {}
    return found


def _uniform_point(entry: Mapping[str, Any], counts: KeptCounts, front: Front) -> FrontPoint:
    return FrontPoint(
        rates=(entry["rate"],) * len(front.groups),
        kept_counts=counts,
        cost=0.0,  # is measured
        convergence=entry["convergence"],
        standard_error=entry["standard_error"],
        replicates=entry["replicates"],
        accuracy=entry["accuracy"],
        uniform=True,
    )

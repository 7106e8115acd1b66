"""The front that comes of a search: what was verified, and how it was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, uniform_rate
from distreal_dse.errors import NoGainError
from distreal_dse.fronts import (
    FIXED,
    LAYERS,
    VERIFICATION,
    Front,
    FrontGroup,
    FrontPoint,
    MeasuredVector,
    useful_front,
    verification_setting,
)
from distreal_dse.search._costs import Settled, TrialCost
from distreal_dse.search._settings import SearchSettings
from distreal_dse.search._tried import CHANNELS_OF_A_UNIT
from distreal_dse.search.verdicts import Verified
from distreal_dse.study import Study
from distreal_dse.support import installation


def front_of(
    name: str,
    study: Study,
    network: DroppableNetwork,
    cost: TrialCost,
    verified: Verified,
    settled: Settled,
    settings: Mapping[str, Any],
    *,
    judged_as_a_whole: bool = False,
) -> Front:
    """Make the front of what a search has verified.

    Parameters
    ----------
    name, study, network, cost
        Of the search.
    verified, settled
        The verification, and its points with their final costs.
    settings
        What else the front tells of how it was made.
    judged_as_a_whole
        Whether the points are vectors of a table that was. Then those that harm by themselves are
        the front where there are no others, as happens once mini-batches of the fleet have taught
        all that there is to learn.

    Raises
    ------
    NoGainError
        If every verified vector harms, and was judged by itself.
    """
    points = settled.points
    useful, harmful = useful_front(points)
    if not useful and judged_as_a_whole:
        useful, harmful = harmful, ()
    if not useful:
        raise _no_gain(name, points)
    return Front(
        name=name,
        study=study.name,
        model_fingerprint=network.channels.fingerprint,
        groups=tuple(FrontGroup(group.name, group.channels) for group in network.groups),
        cost_metric=cost.metric,
        device=cost.device,
        reference_cost=cost.reference,
        settings={
            **settings,
            **cost.front_settings(useful),
            LAYERS: _layer_terms(network),
            "uniform family": _uniform_family(points, network.channels.widths, study.granularity),
            VERIFICATION: _verified_gains(points, verified),
            "failed verification": {**verified.failures, **settled.failures},
            **({"harmful": {p.key: p.convergence for p in harmful}} if harmful else {}),
            "versions": _versions(),
        },
        points=useful,
    )


def settings_of(settings: SearchSettings, trials: int) -> dict[str, Any]:
    """Return what the front tells of the user's settings, and how many trials there were."""
    return {
        # Where the data lies does not matter to a reader of the front.
        "options": {name: value for name, value in settings.source.options if name != "data"},
        "sampler": settings.sampler,
        "trials": trials,
    }


def study_attributes(study: Study, network: DroppableNetwork) -> dict[str, Any]:
    """Return what a reader of the Optuna study is told of the network."""
    return {
        "study": f"{study.name}: {study.description}",
        "channel groups": {group.name: group.channels for group in network.groups},
        CHANNELS_OF_A_UNIT: channels_of_a_unit(network),
    }


def channels_of_a_unit(network: DroppableNetwork) -> dict[str, int]:
    """Return how many channels a unit of each channel group is."""
    sizes = network.channels.channels_per_unit
    return {group.name: size for group, size in zip(network.groups, sizes, strict=True)}


def _verified_gains(points: Sequence[FrontPoint], verified: Verified) -> list[dict[str, Any]]:
    """Return all that was verified, replicate by replicate, for `measured_vectors` to read.

    ``points`` are those of the verification with the costs of the front.
    """
    return verification_setting(
        [
            MeasuredVector(p.kept_counts, p.cost, verified.gains[p.kept_counts], p.uniform)
            for p in points
        ]
    )


def _no_gain(name: str, verified: Sequence[FrontPoint]) -> NoGainError:
    """Return the error of a search whose vectors all harm."""
    best = max(verified, key=lambda point: point.convergence)
    return NoGainError(
        f"search '{name}': expected a vector whose short runs lower the validation loss, found "
        f"that each of {len(verified)} raises it (the best gain is {best.convergence:.3f} ± "
        f"{best.standard_error:.3f}); no front is stored: lower the study's learning rate or "
        "lengthen its ShortRun, and search under another --name"
    )


def _uniform_family(
    points: Sequence[FrontPoint], widths: Sequence[int], granularity: int
) -> list[dict[str, float | None]]:
    """Return what a front is held against, dominated or not."""
    return [
        {
            "rate": uniform_rate(point.kept_counts, widths, granularity),
            "cost": point.cost,
            "convergence": point.convergence,
            "standard_error": point.standard_error,
            "replicates": point.replicates,
            "accuracy": point.accuracy,
        }
        for point in sorted(points, key=lambda point: point.cost)
        if point.uniform
    ]


def _layer_terms(network: DroppableNetwork) -> list[dict[str, Any]]:
    """Return what `layer_costs` reads from a front."""

    def named(channels: Sequence[float]) -> dict[str, float]:
        keys = [*map(str, range(len(channels) - 1)), FIXED]
        return {key: count for key, count in zip(keys, channels, strict=True) if count}

    return [
        {"name": name, "macs": macs, "inputs": named(inputs), "outputs": named(outputs)}
        for name, macs, inputs, outputs in MacCost(network.channels).terms()
    ]


def _versions() -> dict[str, str]:
    """Return the versions that a front was made with."""
    packages = {
        "distreal-dse": installation.version(),
        **{name: version(name) for name in ("optuna", "torch")},
    }
    return {"python": platform.python_version(), **packages}

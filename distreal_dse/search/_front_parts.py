"""What the fronts of all searches say of the network and of how they were made."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, uniform_rate
from distreal_dse.errors import NoGainError
from distreal_dse.fronts import FIXED, FrontGroup, FrontPoint, MeasuredVector, verification_setting
from distreal_dse.search._verification import Verified


def front_groups(network: DroppableNetwork) -> tuple[FrontGroup, ...]:
    """Return the channel groups of a front."""
    return tuple(FrontGroup(group.name, group.channels) for group in network.groups)


def channels_of_a_unit(network: DroppableNetwork) -> dict[str, int]:
    """Return how many channels a unit of each channel group is."""
    sizes = network.channels.channels_per_unit
    return {group.name: size for group, size in zip(network.groups, sizes, strict=True)}


def verified_gains(points: Sequence[FrontPoint], verified: Verified) -> list[dict[str, Any]]:
    """Return all that was verified, replicate by replicate, for `measured_vectors` to read.

    ``points`` are those of the verification with the costs of the front.
    """
    return verification_setting(
        [
            MeasuredVector(p.kept_counts, p.cost, verified.gains[p.kept_counts], p.uniform)
            for p in points
        ]
    )


def no_gain(name: str, verified: Sequence[FrontPoint]) -> NoGainError:
    """Return the error of a search whose vectors all harm."""
    best = max(verified, key=lambda point: point.convergence)
    return NoGainError(
        f"search '{name}': expected a vector whose short runs lower the validation loss, found "
        f"that each of {len(verified)} raises it (the best gain is {best.convergence:.3f} ± "
        f"{best.standard_error:.3f}); no front is stored: lower the study's learning rate or "
        "lengthen its ShortRun, and search under another --name"
    )


def uniform_family(
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


def layer_terms(network: DroppableNetwork) -> list[dict[str, Any]]:
    """Return what `layer_costs` reads from a front."""

    def named(channels: Sequence[float]) -> dict[str, float]:
        keys = [*map(str, range(len(channels) - 1)), FIXED]
        return {key: count for key, count in zip(keys, channels, strict=True) if count}

    return [
        {"name": name, "macs": macs, "inputs": named(inputs), "outputs": named(outputs)}
        for name, macs, inputs, outputs in MacCost(network.channels).terms()
    ]


def versions() -> dict[str, str]:
    """Return the versions that a front was made with."""
    packages = {name: version(name) for name in ("distreal-dse", "optuna", "torch")}
    return {"python": platform.python_version(), **packages}

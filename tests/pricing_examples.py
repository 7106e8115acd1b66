"""Fronts in MACs of the tiny study, to be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distreal_dse.cost import MacCost
from distreal_dse.dropout import KeptCounts, uniform_rate
from distreal_dse.fronts import Front, FrontGroup, FrontPoint
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare_network

FULL: KeptCounts = (6, 8)


def make_front(
    study: Path, gains: dict[KeptCounts, float], family: dict[float, float] | None = None
) -> Front:
    """A front in MACs of a study file's network; the gains of a uniform family by their rates."""
    network, _ = prepare_network(StudySource(str(study)).load(), seed=0)
    macs = MacCost(network.channels)
    shared: dict[str, Any] = {"standard_error": 0.01, "replicates": 2, "accuracy": 0.5}
    return Front(
        name="tiny",
        study=study.stem,
        model_fingerprint=network.channels.fingerprint,
        groups=tuple(FrontGroup(group.name, group.channels) for group in network.groups),
        cost_metric="macs",
        device={},
        reference_cost=macs.full,
        settings={
            "options": {},
            "uniform family": [
                {"rate": rate, "cost": 1.0, "convergence": gain, **shared}
                for rate, gain in (family or {}).items()
            ],
        },
        points=tuple(
            FrontPoint(
                rates=tuple(1 - kept / width for kept, width in zip(counts, FULL, strict=True)),
                kept_counts=counts,
                cost=macs.training(counts),
                convergence=gain,
                uniform=uniform_rate(counts, FULL) is not None,
                **shared,
            )
            for counts, gain in gains.items()
        ),
    )

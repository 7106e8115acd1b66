"""Fronts in seconds, of devices whose steps take what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from distreal_dse.cost import Latencies, Quartiles, VectorLatency
from distreal_dse.dropout import KeptCounts
from distreal_dse.fronts import Front
from distreal_dse.pricing import ONE_RATE

Ratios = Mapping[KeptCounts, float]


def timed_front(
    front: Front,
    cut: Ratios,
    alone: Ratios,
    others: Ratios | None = None,
    reference: float = 2.0,
) -> Front:
    """The front in seconds, with the knots that were timed, by time over that of the full network.

    Points are priced as in ``cut`` and ``others``, else by their place.
    """

    def timed(counts: KeptCounts, ratio: float) -> VectorLatency:
        return VectorLatency(counts, same(ratio * reference), same(ratio), 9)

    def same(number: float) -> Quartiles:
        return Quartiles(number, number, number)

    full = tuple(group.channels for group in front.groups)
    known = {**cut, **(others or {}), full: 1.0}
    vectors = tuple(timed(counts, ratio) for counts, ratio in known.items())
    return replace(
        front,
        cost_metric="latency",
        device={"cpu": "made up"},
        reference_cost=reference,
        settings={
            **front.settings,
            "latency": {
                **Latencies(same(reference), vectors).as_json(),
                ONE_RATE: {
                    "cut": [[*counts] for counts in cut],
                    "alone": [timed(counts, ratio).as_json() for counts, ratio in alone.items()],
                },
            },
        },
        points=tuple(
            replace(point, cost=reference * (place + 1) / len(front.points))
            for place, point in enumerate(front.points)
        ),
    )

"""Time to count the MACs of many vectors, and to look a budget up."""

from __future__ import annotations

import timeit
from statistics import median

import torch

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from distreal_dse.cost import MacCost
from distreal_dse.dropout import trace_channels
from distreal_dse.fronts import Front, FrontGroup, FrontPoint, LookupTable
from distreal_dse.support.compat import torchvision
from distreal_dse.support.seeding import generator

VECTORS, LOOKUPS, POINTS = 1_000, 10_000, 50


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--repetitions", type=int, default=21)
    given = arguments.parse_args()
    settings = settle()
    network = torchvision.models.densenet121(weights=None, num_classes=10)
    channels = trace_channels(network, torch.zeros(1, 3, 32, 32))
    cost = MacCost(channels)
    widths = torch.tensor(channels.widths)
    draws = torch.rand(VECTORS, len(widths), generator=generator(0))
    counts = [tuple(row) for row in (1 + draws * (widths - 1)).long().tolist()]
    counting = timeit.repeat(lambda: cost.training_many(counts), number=1, repeat=given.repetitions)

    points = [
        FrontPoint((1 - kept / POINTS,), (kept,), kept, kept, 0.1, 3, 0.5, uniform=True)
        for kept in range(1, POINTS + 1)
    ]
    front = Front(
        "lookup",
        "lookup",
        "0",
        (FrontGroup("conv", POINTS),),
        "macs",
        {},
        POINTS,
        {},
        tuple(points),
    )
    table = LookupTable(front)
    budgets = torch.empty(LOOKUPS).uniform_(1, POINTS, generator=generator(1)).tolist()

    def look_up() -> None:
        for budget in budgets:
            table.pick(budget)

    looking_up = timeit.repeat(look_up, number=1, repeat=given.repetitions)
    report(
        [
            Figure(
                f"MACs of {VECTORS:,} vectors of {len(widths)} groups",
                median(counting) * 1e3,
                "ms",
                20,
                "lower",
                {"network": "densenet121", "repetitions": given.repetitions, **settings},
            ),
            Figure(
                f"a lookup in {POINTS} points",
                median(looking_up) / LOOKUPS * 1e6,
                "µs",
                2,
                "lower",
                {"repetitions": given.repetitions, **settings},
            ),
        ],
        given.json,
    )


if __name__ == "__main__":
    main()

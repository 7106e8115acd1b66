"""How far prices in seconds are off where nothing was timed, beside how far timing scatters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

import torch

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from distreal_dse.cost import LatencySamples, MacCost, StepTimer
from distreal_dse.dropout import DroppableNetwork, KeptCounts, kept_counts
from distreal_dse.pricing import SecondsPrices, one_rate_knots
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare_network
from distreal_dse.support.seeding import generator

UNEVEN = 20
# Of the logarithm of the exponent of the common share, drawn for each group.
SPREAD = 0.6

Ratios = Mapping[KeptCounts, float]


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("study", nargs="?", default="digits-cnn")
    arguments.add_argument("--repetitions", type=int, default=40)
    given = arguments.parse_args()
    settings = {"study": given.study, "repetitions": given.repetitions, **settle()}
    study = StudySource(given.study).load()
    network, shape = prepare_network(study, seed=0)
    timer = StepTimer(study, network, shape, study.batch_size)
    knots = one_rate_knots(network.groups, study.granularity)
    known = {*knots, network.full_counts}
    between = [one for one in _between(network, study.granularity) if one not in known]
    uneven = [one for one in _uneven(network) if one not in {*known, *between}]

    def timed() -> tuple[Ratios, Ratios]:
        samples = LatencySamples(network.full_counts)
        vectors, alone = [*knots, *between, *uneven], [*knots, *between]
        timer.measure(vectors, given.repetitions, samples, alone=alone)
        cut, own = samples.latencies(vectors), samples.latencies(alone, alone=True)
        return (
            {one.counts: one.ratio.median for one in cut.vectors},
            {one.counts: one.ratio.median for one in own.vectors},
        )

    (cut, own), (cut_again, own_again) = timed(), timed()
    figures = []
    for name, vectors, ratios, again, full in (
        ("one rate, cut out", between, cut, cut_again, {}),
        ("one rate, alone", between, own, own_again, {network.full_counts: 1.0}),
        ("rates of their own, cut out", uneven, cut, cut_again, {}),
    ):
        curve = {**{knot: ratios[knot] for knot in knots}, **full}
        prices = SecondsPrices(MacCost(network.channels), network.full_counts, 1.0, {}, curve)
        errors = [prices.cost(one) / ratios[one] - 1 for one in vectors]
        scatter = [again[one] / ratios[one] - 1 for one in vectors]
        for what, found in (("price", errors), ("timed again", scatter)):
            sizes = [100 * abs(one) for one in found]
            for how, value in (("median", median(sizes)), ("worst", max(sizes))):
                label = f"{name}: {what}, {how} of {len(sizes)}"
                figures.append(Figure(label, value, "%", None, "lower", settings))
        figures.append(
            Figure(f"{name}: price, mean", 100 * sum(errors) / len(errors), "%", None, "lower")
        )
    report(figures, given.json)


def _between(network: DroppableNetwork, granularity: int) -> list[KeptCounts]:
    """Of one rate, half-way between the knots."""
    groups = network.groups
    shares = (part / 32 for part in range(1, 32, 2))
    return [*dict.fromkeys(kept_counts([1 - s] * len(groups), groups, granularity) for s in shares)]


def _uneven(network: DroppableNetwork) -> list[KeptCounts]:
    draws, found = generator(0, "uneven"), []
    widths = torch.tensor(network.full_counts)
    for _ in range(UNEVEN):
        share = float(torch.empty(()).uniform_(0.05, 1, generator=draws))
        exponents = torch.exp(SPREAD * torch.randn(len(widths), generator=draws))
        kept = (widths * torch.exp(exponents * math.log(share))).round().long()
        found.append(tuple(kept.clamp(min=1).tolist()))
    return [*dict.fromkeys(found)]


if __name__ == "__main__":
    main()

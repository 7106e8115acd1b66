"""Whether the short run predicts federated training: rank correlation over dropout vectors.

A short run is a stand-in for what a vector does to federated training, and is worth what its
ranking is worth. So: federated runs in which half of the devices can afford the full network and
the other half always train one vector; the validation loss of the full network, averaged over the
rounds of the second half and over seeds, against the loss gain of the short run. Once over vectors
of all costs, where cost alone explains much, and once over vectors of about the same cost, which
is the hard part.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch
from scipy.stats import spearmanr

from benchmarks.figures import Figure, parser, report
from distreal_dse.convergence import Convergence, ShortRuns
from distreal_dse.cost import MacCost
from distreal_dse.dropout import ChannelMap, DroppableNetwork, KeptCounts, RandomMasks, kept_counts
from distreal_dse.study import Data, Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from fl.averaging import fedavg
from fl.engine import FederatedRun
from fl.results import State, Update
from fl.settings import RunSettings
from fl.strategies import FixedPlan, LocalPlan, Strategy, Vector
from fl.world.availability import ConstantAvailability
from fl.world.devices import Device, DeviceClass

STUDY = "digits-cnn"
CLASSES = (DeviceClass("strong", 0.5, 1.0), DeviceClass("weak", 0.5, 0.01))
# (warm-up mini-batches, share of full mini-batches) of the short runs that are compared.
VARIANTS = ((0, 0.0), (0, 0.5), (20, 0.0), (20, 0.5), (100, 0.0), (100, 0.5))
# Vectors of equal cost have this share of the full network's MACs, within a tenth of it.
EQUAL_COST = 0.25


class OneVector(Strategy):
    """Strong devices train the full network, weak ones always the same vector."""

    name = "one-vector"

    def __init__(self, full: Vector, vector: Vector) -> None:
        self._full, self._vector = full, vector

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """By the class of the device."""
        vector = self._full if device.device_class == "strong" else self._vector
        return FixedPlan(vector, RandomMasks())

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Plain averaging."""
        return fedavg(updates)


def vectors_of(network: DroppableNetwork, cost: MacCost, count: int, equal: bool) -> list[Vector]:
    """Draw vectors with a fixed seed: rates independent in [0, 0.85] in each group."""
    draws = random.Random(0)
    found: dict[KeptCounts, Vector] = {}
    while len(found) < count:
        rates = [draws.uniform(0, 0.85) for _ in network.groups]
        counts = kept_counts(rates, network.groups)
        vector = Vector(counts, cost.training(counts))
        if not equal or abs(vector.cost / cost.full / EQUAL_COST - 1) < 0.1:
            found[counts] = vector
    return list(found.values())


def federated_loss(
    study: Study, data: Data, vector: Vector, full: Vector, seed: int, rounds: int
) -> float:
    """Mean validation loss of the full network over the second half of the rounds."""
    network, _ = prepare(replace(study, data=lambda: data), seed)
    settings = RunSettings(
        rounds=rounds,
        devices=10,
        cohort=4,
        seed=seed,
        classes=CLASSES,
        availability=ConstantAvailability(),
    )
    # No decision may rest on the test data, not even how short runs are made.
    data = replace(data, test=data.validation)
    results = FederatedRun(study, data, network, OneVector(full, vector), None, settings).rounds()
    losses = [result.loss for result in results if result.round > rounds // 2]
    return fmean(loss for loss in losses if loss is not None)


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--vectors", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=16)
    arguments.add_argument("--seeds", type=int, default=4)
    arguments.add_argument("--replicates", type=int, default=4)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    study = StudySource(STUDY).load()
    network, data = prepare(study, 0)
    cost = MacCost(network.channels)
    full = Vector(network.full_counts, cost.full)
    figures = []
    for equal in (False, True):
        kind = f"{EQUAL_COST:.0%} of the cost" if equal else "all costs"
        vectors = vectors_of(network, cost, given.vectors, equal)
        losses = []
        for vector in vectors:
            seeds = range(1, given.seeds + 1)  # 0 is that of the short runs
            losses.append(
                fmean(federated_loss(study, data, vector, full, s, given.rounds) for s in seeds)
            )
            print(f"{kind}: {vector.kept_counts} {losses[-1]:.4f}", file=sys.stderr)
        for warm_up, full_share in VARIANTS:
            settings = replace(study.short_run, warm_up=warm_up, full_share=full_share)
            short_runs = ShortRuns(replace(study, short_run=settings), data, network, 0)
            gains = [
                Convergence(
                    tuple(
                        short_runs.run(vector.kept_counts, "search", replicate)
                        for replicate in range(given.replicates)
                    )
                ).loss_gain
                for vector in vectors
            ]
            correlation = float(spearmanr(gains, [-loss for loss in losses]).statistic)
            figures.append(
                Figure(
                    f"rank correlation, {kind}",
                    correlation,
                    "Spearman ρ",
                    None,
                    "higher",
                    {
                        "warm_up": warm_up,
                        "full_share": full_share,
                        "vectors": given.vectors,
                        "replicates": given.replicates,
                        "rounds": given.rounds,
                        "seeds": given.seeds,
                    },
                )
            )
    report(figures, given.json)


if __name__ == "__main__":
    main()

"""Which scaling rule, and which batch-norm statistics, leave the better full network.

Inputs that a layer sums over are multiplied by width ÷ kept ("inverted") or left as they are
("none"). A network is trained with a federated-like mixture: of each three mini-batches one is
full, one is dropped at a uniform rate to about half of the MACs and one to about a quarter, in an
order that is drawn anew. What counts is the validation loss of the *full* network at the end, with
the running statistics as they are and with recalibrated ones.

The rules share initial weights, data order, order of costs and masks (common random numbers), so
that they are compared seed by seed. A rule may only look better at one learning rate, so each is
shown at its own best of several; the rest is in the settings.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from benchmarks.figures import Figure, parser, report
from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch, shuffled_forever, size_of
from distreal_dse.data.evaluation import Score, evaluate
from distreal_dse.dropout import (
    BATCH_NORMS,
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    RandomMasks,
    kept_counts,
)
from distreal_dse.study import Data, Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.seeding import generator, seeded

RULES = ("inverted", "none")
COST_SHARES = (1.0, 0.5, 0.25)
NO_SCORE = Score(math.inf, math.nan)  # of a run that diverged


@dataclass(frozen=True)
class Way:
    """A scaling rule together with the statistics that its network is evaluated with."""

    rule: str
    statistics: str

    def __str__(self) -> str:
        return f"{self.rule}, {self.statistics}"


# For each way and each learning rate (relative to the study's), one score per seed.
Scores = Mapping[Way, Mapping[float, Sequence[Score]]]


def without_norm(module: nn.Module) -> nn.Module:
    """Replace batch normalisation by nothing, and draw weights that do without it."""
    for name, part in list(module.named_modules()):
        if isinstance(part, BATCH_NORMS):
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, nn.Identity())
        elif isinstance(part, nn.Conv2d):
            # PyTorch's default shrinks activations from layer to layer; He et al., ICCV 2015.
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return module


def counts_of_share(network: DroppableNetwork, share: float) -> KeptCounts:
    """Kept counts of the uniform rate whose training MACs come nearest to ``share`` of all."""
    cost = MacCost(network.channels)
    rates = (percent / 100 for percent in range(100))
    choices = [kept_counts([rate] * len(network.groups), network.groups) for rate in rates]
    return min(choices, key=lambda counts: abs(cost.training(counts) / cost.full - share))


def schedule(network: DroppableNetwork, mini_batches: int, seed: int) -> list[KeptCounts]:
    """Kept counts of each mini-batch: all shares once in each three, in random order."""
    choices = [counts_of_share(network, share) for share in COST_SHARES]
    draws, order = generator(seed, "scaling", "costs"), list[int]()
    while len(order) < mini_batches:
        order += torch.randperm(len(choices), generator=draws).tolist()
    return [choices[index] for index in order[:mini_batches]]


def train(
    study: Study, data: Data, rule: str, rate: float, mini_batches: int, seed: int
) -> nn.Module | None:
    """The full network behind the mixture, at ``rate`` × the learning rate; None if it diverged."""
    with seeded(seed, "scaling", "model"):
        module = study.model()
    network = DroppableNetwork(module, fetch(data.train, torch.arange(2))[0], rule)
    optimizer = study.optimizer(module.parameters())
    for group in optimizer.param_groups:
        group["lr"] *= rate
    masks = generator(seed, "scaling", "masks")
    trainer = DropoutTrainer(network, optimizer, study.loss, RandomMasks(), masks)
    samples = torch.arange(size_of(data.train))
    batches = shuffled_forever(samples, study.batch_size, generator(seed, "scaling", "data"))
    with seeded(seed, "scaling", "layers"):
        for counts, indices in zip(schedule(network, mini_batches, seed), batches, strict=False):
            if not math.isfinite(trainer.step(*fetch(data.train, indices), counts)):
                return None
    return module


def statistics_of(study: Study, data: Data) -> dict[str, Dataset[Any] | None]:
    """What the network can be evaluated with: names, and the data to calibrate on."""
    if any(isinstance(part, BATCH_NORMS) for part in study.model().modules()):
        return {"recalibrated": data.train, "running": None}
    return {"no statistics": None}


def score(
    study: Study, data: Data, module: nn.Module | None, calibration: Dataset[Any] | None
) -> Score:
    """Validation score of a trained network; `NO_SCORE` where its loss is not finite."""
    if module is None:
        return NO_SCORE
    found = evaluate(module, data.validation, study.loss, calibration)
    return found if math.isfinite(found.loss) else NO_SCORE


def measure(
    study: Study, rates: Sequence[float], seeds: int, mini_batches: int
) -> dict[Way, dict[float, list[Score]]]:
    """Train with every rule, rate and seed."""
    data = study.data()
    statistics = statistics_of(study, data)
    runs = [(seed, rate, rule) for seed in range(seeds) for rate in rates for rule in RULES]
    scores: dict[Way, dict[float, list[Score]]] = {}
    started = time.monotonic()
    for done, (seed, rate, rule) in enumerate(runs, start=1):
        module = train(study, data, rule, rate, mini_batches, seed)
        for name, calibration in statistics.items():
            of_way = scores.setdefault(Way(rule, name), {})
            of_way.setdefault(rate, []).append(score(study, data, module, calibration))
        left = (time.monotonic() - started) / done * (len(runs) - done) / 60
        print(f"{done} of {len(runs)} runs, about {left:.1f} min left", file=sys.stderr)
    return scores


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return fmean(values), stdev(values) / math.sqrt(len(values))


def mean_loss(scores: Sequence[Score]) -> float:
    """Mean over seeds; infinite where a run diverged."""
    return fmean(score.loss for score in scores)


def best_rate(of_way: Mapping[float, Sequence[Score]]) -> float:
    """The learning rate of the lowest mean loss."""
    return min(of_way, key=lambda rate: mean_loss(of_way[rate]))


def figures_of(scores: Scores, settings: dict[str, Any]) -> list[Figure]:
    """Each way at its best rate, then the differences of all pairs."""
    best = {way: best_rate(of_way) for way, of_way in scores.items()}
    finite = [way for way in scores if math.isfinite(mean_loss(scores[way][best[way]]))]
    figures = [figure_of_way(way, scores[way], best[way], settings) for way in finite]
    for one, other in combinations(finite, 2):
        pairs = list(zip(scores[one][best[one]], scores[other][best[other]], strict=True))
        loss, loss_error = mean_and_error([a.loss - b.loss for a, b in pairs])
        accuracy, accuracy_error = mean_and_error([a.accuracy - b.accuracy for a, b in pairs])
        figures.append(
            Figure(
                f"loss of ({one}) − loss of ({other})",
                loss,
                "nats",
                None,
                "lower",
                {
                    "standard_error": round(loss_error, 4),
                    "accuracy": round(accuracy, 4),
                    "accuracy_standard_error": round(accuracy_error, 4),
                    **settings,
                },
            )
        )
    return figures


def figure_of_way(
    way: Way, of_way: Mapping[float, Sequence[Score]], best: float, settings: dict[str, Any]
) -> Figure:
    """The validation loss of a way at its best rate; the other rates in the settings."""
    loss, error = mean_and_error([score.loss for score in of_way[best]])
    accuracy, accuracy_error = mean_and_error([score.accuracy for score in of_way[best]])
    losses = {rate: mean_loss(found) for rate, found in of_way.items()}
    return Figure(
        f"validation loss, {way}",
        loss,
        "nats",
        None,
        "lower",
        {
            "standard_error": round(error, 4),
            "accuracy": round(accuracy, 4),
            "accuracy_standard_error": round(accuracy_error, 4),
            "rate": best,
            "loss_by_rate": {
                str(rate): round(value, 4) if math.isfinite(value) else "diverged"
                for rate, value in losses.items()
            },
            **settings,
        },
    )


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--study", choices=["digits-cnn", "cifar10-resnet20"], default="digits-cnn"
    )
    arguments.add_argument("--without-norm", action="store_true", help="no batch normalisation")
    arguments.add_argument("--data", type=Path, help="the study's option, for CIFAR-10")
    arguments.add_argument("--subset", type=int, default=6000, help="images of CIFAR-10")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--mini-batches", type=int, default=300)
    arguments.add_argument("--rates", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0])
    given = arguments.parse_args()
    if given.seeds < 2:
        arguments.error(f"--seeds is {given.seeds}: a standard error takes 2 or more")
    torch.set_num_threads(1)
    options = {"subset": str(given.subset)} if given.study == "cifar10-resnet20" else {}
    if given.data:
        options["data"] = str(given.data)
    study = StudySource(given.study, tuple(options.items())).load()
    if given.without_norm:
        build = study.model
        study = replace(study, model=lambda: without_norm(build()))
    settings = {
        "study": given.study,
        "norm": not given.without_norm,
        "seeds": given.seeds,
        "mini_batches": given.mini_batches,
    }
    scores = measure(study, given.rates, given.seeds, given.mini_batches)
    report(figures_of(scores, settings), given.json)


if __name__ == "__main__":
    main()

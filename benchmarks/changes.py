"""What following the budget within a round brings, by how fast resources change.

A strategy that chooses its vector before each mini-batch is held against the same one that chooses
when a round begins, and against the same one that goes by what a device has free on average. All
have the same devices, traces, cohorts and splits, each its best learning rate, and so the same mean
budget. Resources move between four levels; from slot to slot they keep their level with the
probability ``stay``: from 1 (a device has the same share for a whole round) to ¼ (each mini-batch
has its own, independent of the last). Late devices count with what they trained in time.

Everything is kept in ``--storage``; the same command goes on where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import Engine

from benchmarks._atlas_cells import CLASSES, SCHEDULE, SPLITS, TRAININGS
from benchmarks.figures import Figure, parser, report
from distreal_dse.fronts import open_database
from distreal_dse.support.specs import name_of, parse_spec
from fl.compare.at_best import compare_at_best
from fl.compare.paired import paired_differences
from fl.compare.summaries import by_strategy
from fl.store.runs import Run
from fl.store.specs import RunSpec
from fl.world.deadlines import RoundRules
from fl.world.fleet import make_fleet

STAYS = (1.0, 0.95, 0.8, 0.5, 0.25)
RATES = (0.1, 0.2, 0.4)
CHOICES = ("mini-batch", "round", "run")
GOAL = 2.0  # points


def specs(
    data: str, folder: Path | None, fleet: str, split: str, stay: float, strategy: str,
    seeds: int, epochs: int, rounds: int, deadline: float,
) -> list[RunSpec]:  # fmt: skip
    """Return the runs of one speed of change, at rates that are not chosen yet."""
    training = TRAININGS[data]
    source = training.source(folder)
    # The mean of what is free is 0.625; the pace makes up for it.
    world = make_fleet(f"{CLASSES[fleet]};markov:stay={stay:g};pace=1.6")
    shared: dict[str, Any] = {
        "study": source.spec,
        "options": source.options,
        "rounds": rounds,
        "devices": training.devices,
        "cohort": training.cohort,
        "local_epochs": epochs,
        "evaluate_every": max(1, rounds // 20),
        "classes": world.classes,
        "availability": world.availability,
        "pace": world.pace,
        "split": SPLITS[split],
        "schedule": SCHEDULE,
        "rules": RoundRules(deadline=deadline, late="partial"),
    }
    more = "," if ":" in strategy else ":"
    return [
        RunSpec(**shared, strategy=f"{strategy}{more}choose={choice}", seed=seed)
        for choice in CHOICES
        for seed in range(seeds)
    ]


def choice_of(strategy: str) -> str:
    """Return when a strategy chooses, from its text."""
    return str(parse_spec("strategy", strategy)[1]["choose"])


def seconds_to(run: Run, accuracy: float) -> float | None:
    """Virtual seconds until a run first reaches an accuracy; None if it never does."""
    reached = (
        one.virtual_seconds
        for one in run.rounds
        if one.accuracy is not None and one.accuracy >= accuracy
    )
    return next(reached, None)


def figures(strategy: str, stay: float, runs: Sequence[Run]) -> list[Figure]:
    """Return what choosing per mini-batch brings over the other two."""
    groups = {choice_of(name): own for name, own in by_strategy(runs).items()}
    ours = groups["mini-batch"]
    found = []
    for one in paired_differences(runs, ours[0].strategy):
        own = one.settled_accuracy
        other = groups[choice_of(one.strategy)]
        finals = {run.seed: run.rounds[-1].accuracy or 0.0 for run in other}
        ratios = [
            None if (own_time := seconds_to(run, finals[run.seed])) is None
            else own_time / next(r.rounds[-1].virtual_seconds for r in other if r.seed == run.seed)
            for run in ours if run.seed in finals
        ]  # fmt: skip
        found.append(
            Figure(
                f"{strategy}, stay {stay:g}: per mini-batch − per {choice_of(one.strategy)}",
                -100 * own.mean,
                "points",
                GOAL,
                "higher",
                {
                    "low": round(-100 * own.high, 1),
                    "high": round(-100 * own.low, 1),
                    "seeds": len(one.seeds),
                    "share of the time to the other's final accuracy": [
                        None if ratio is None else round(ratio, 2) for ratio in ratios
                    ],
                    "rates": {
                        choice: float(parse_spec("strategy", own[0].strategy)[1]["lr"])
                        for choice, own in groups.items()
                    },
                    "cost of a mini-batch": {
                        choice: round(mean_share(own), 4) for choice, own in groups.items()
                    },
                },
            )
        )
    return found


def mean_share(runs: Sequence[Run]) -> float:
    """Mean cost of the mini-batches of runs, as a share of the full network's."""
    shares = [
        device.mean_cost_share
        for run in runs
        for one in run.rounds
        for device in one.devices
        if device.mean_cost_share is not None
    ]
    return sum(shares) / len(shares)


def main() -> None:
    """Fill the sweep, and print what came out."""
    arguments = parser(__doc__)
    arguments.add_argument("--storage", required=True, help="database that all is kept in")
    arguments.add_argument("--strategies", default="nested,distreal-uniform")
    arguments.add_argument("--study", default="digits", choices=sorted(TRAININGS))
    arguments.add_argument("--data", type=Path, help="folder of CIFAR-10's images")
    arguments.add_argument("--fleet", default="extreme", choices=sorted(CLASSES))
    arguments.add_argument("--split", default="iid", choices=sorted(SPLITS))
    arguments.add_argument("--stays", default=",".join(f"{stay:g}" for stay in STAYS))
    arguments.add_argument("--epochs", type=int, default=10, help="so that rounds are long enough")
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--deadline", type=float, default=1.0)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--workers", type=int, default=2)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    engine: Engine = open_database(asked.storage)
    found: list[Figure] = []
    for strategy in asked.strategies.split(","):
        for stay in map(float, asked.stays.split(",")):
            planned = specs(
                asked.study, asked.data, asked.fleet, asked.split, stay, strategy,
                asked.seeds, asked.epochs, asked.rounds, asked.deadline,
            )  # fmt: skip
            name = (
                f"changes {asked.study} {asked.fleet} {asked.split} {asked.epochs} "
                f"{asked.deadline:g} {name_of(strategy)} {stay:g}"
            )
            compared = compare_at_best(engine, name, planned, RATES, workers=asked.workers)
            for failure in compared.failures:
                print(f"{name}: {failure}", file=sys.stderr)
            own = figures(strategy, stay, compared.runs)
            for figure in own:
                told = f"{figure.name}: {figure.value:+.1f} points, {figure.settings}"
                print(told, file=sys.stderr)
            found += own
    engine.dispose()
    report(found, asked.json)


if __name__ == "__main__":
    main()

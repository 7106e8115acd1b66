"""Which front serves a fleet: vectors on their own, a table for a spread, a table for the fleet.

``distreal:form=random`` trains with each front in each fleet, ``distreal-uniform`` beside it. Runs
of a seed share split, cohorts and initial weights, each has its best learning rate (two seeds of
their own, validation data). What is given is the settled accuracy above one rate's, paired by seed,
with an interval that holds for the fronts of a fleet together, and that between fronts.

Everything is kept in ``--storage``; the same command goes on where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch
from sqlalchemy import Engine

from benchmarks._atlas_cells import CLASSES, SPLITS, TRAININGS, Cell
from benchmarks.figures import Figure, parser, report
from distreal_dse.budgets import Budgets
from distreal_dse.errors import FrontError
from distreal_dse.fronts import load_front, open_database
from distreal_dse.search import SearchSettings, search
from distreal_dse.study.catalogue import StudySource
from fl.compare.at_best import compare_at_best
from fl.compare.paired import simultaneous
from fl.compare.settled import settled_of
from fl.world.fleet import make_fleet

RATES = (0.1, 0.2, 0.4)
VECTOR_TRIALS, TABLE_TRIALS = 80, 30
ONE_RATE, WITH_FRONT = "distreal-uniform", "distreal:form=random"
OWN, SPREAD, FITTED = "vectors on their own", "table for a spread", "table for the fleet"


def front_for(
    engine: Engine, storage: str, source: StudySource, name: str, budgets: Budgets | None,
    seed: int, workers: int,
) -> str:  # fmt: skip
    """Return the label of a front, which is searched if it is not there."""
    try:
        return load_front(engine, name).label
    except FrontError:
        trials = VECTOR_TRIALS if budgets is None else TABLE_TRIALS
        settings = SearchSettings(
            source, name=name, trials=trials, workers=workers, fleet=budgets, seed=seed
        )
        return search(settings, storage).label


def settled(
    engine: Engine, name: str, cell: Cell, source: StudySource, front: str | None, strategy: str,
    seeds: int, workers: int,
) -> tuple[dict[int, float], str]:  # fmt: skip
    """Return the settled accuracy by seed, and the strategy with the rate that was chosen."""
    specs = cell.specs(source, front, seeds, [strategy])
    compared = compare_at_best(engine, name, specs, RATES, workers=workers)
    for failure in compared.failures:
        print(f"{name}: {failure}", file=sys.stderr)
    runs = compared.runs
    return {run.seed: settled_of(run) for run in runs}, runs[0].strategy if runs else ""


def figures(fleet: str, accuracies: Mapping[str, tuple[dict[int, float], str]]) -> list[Figure]:
    """Return differences between all pairs of fronts in a fleet."""
    pairs = list(combinations(accuracies, 2))
    found = []
    for less, more in pairs:
        (base, base_strategy), (own, own_strategy) = accuracies[less], accuracies[more]
        seeds = sorted(base.keys() & own.keys())
        one = simultaneous([100 * (own[seed] - base[seed]) for seed in seeds], len(pairs))
        found.append(
            Figure(
                f"{fleet}: {more} − {less}",
                one.mean,
                "points",
                None,
                "higher",
                {
                    "low": round(one.low, 1),
                    "high": round(one.high, 1),
                    "seeds": len(seeds),
                    "settled": [round(100 * fmean(a.values()), 1) for a in (own, base)],
                    "strategies": [own_strategy, base_strategy],
                },
            )
        )
    return found


def main() -> None:
    """Search the fronts, train with them, and print what came out."""
    arguments = parser(__doc__)
    arguments.add_argument("--storage", required=True, help="database that all is kept in")
    arguments.add_argument("--study", default="digits", choices=sorted(TRAININGS))
    arguments.add_argument("--data", type=Path, help="folder of CIFAR-10's images")
    arguments.add_argument("--fleets", default="extreme,wide,thirds", help=", ".join(CLASSES))
    arguments.add_argument("--split", default="iid", choices=sorted(SPLITS))
    arguments.add_argument("--spread", default="spread", help="fleet of the table for a spread")
    arguments.add_argument("--search-seed", type=int, default=0)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--workers", type=int, default=2)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    engine = open_database(asked.storage)
    source = TRAININGS[asked.study].source(asked.data)

    def front(kind: str, budgets: Budgets | None) -> str:
        name = f"{kind} {asked.study} {asked.search_seed}".replace(" ", "-")
        return front_for(
            engine, asked.storage, source, name, budgets, asked.search_seed, asked.workers
        )

    found: list[Figure] = []
    for fleet in asked.fleets.split(","):
        cell = Cell(asked.study, fleet, asked.split, "constant")
        fronts = {
            "one rate": None,
            OWN: front("own", None),
            SPREAD: front("spread", make_fleet(asked.spread).budgets()),
            FITTED: front(fleet, cell.world.budgets()),
        }
        accuracies = {}
        for kind, label in fronts.items():
            name = f"fleets {asked.study} {fleet} {asked.split} {label or kind}"
            strategy = ONE_RATE if label is None else WITH_FRONT
            accuracies[kind] = settled(
                engine, name, cell, source, label, strategy, asked.seeds, asked.workers
            )
        own = figures(fleet, accuracies)
        for one in own:
            print(f"{one.name}: {one.value:+.1f} {one.settings}", file=sys.stderr)
        found += own
    engine.dispose()
    report(found, asked.json)


if __name__ == "__main__":
    main()

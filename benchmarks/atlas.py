"""Who wins where: strategies compared on many fleets, splits, data sets and changes of resources.

For each cell, a table is fitted to the fleet, each strategy gets the learning rate that is best for
it on validation data (two seeds of their own), and all are compared by paired seeds. What is given
is by how much `OURS` leads the best of the others on average over seeds, with an interval that
holds for all others together.

Everything is kept in ``--storage``; the same command goes on where it was stopped, and more cells,
seeds and strategies may be added; ``distreal`` from the beginning.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from statistics import median

import torch
from sqlalchemy import Engine

from benchmarks._atlas_cells import OURS, STRATEGIES, TRAININGS, Cell, all_cells
from benchmarks._atlas_picture import REFERENCE, above_small, picture
from benchmarks.figures import Figure, parser, report
from dashboards.images import write_images
from distreal_dse.errors import DistrealError, FrontError, InputError
from distreal_dse.fronts import load_front, open_database
from distreal_dse.search import SearchSettings, search
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.specs import name_of, parse_spec
from fl.compare.advice import advise
from fl.compare.at_best import compare_at_best
from fl.compare.paired import Difference, paired_differences
from fl.compare.summaries import by_strategy, summarise
from fl.store.runs import Run, list_runs

RATES = (0.1, 0.2, 0.4)
FIT_TRIALS = 30
GOAL = -0.5  # points that OURS may be behind the best other strategy
ADVISED, WITHIN = 0.8, 1.0  # share of cells, points
PILOT_SEED, PILOT_SEEDS = 1000, 3
FASTER = 0.7  # share of the small network's time to its final accuracy


def fitted_front(
    engine: Engine, storage: str, cell: Cell, source: StudySource, workers: int
) -> str | None:
    """Return the label of the front that is fitted to the fleet; None where there can be none."""
    with suppress(FrontError):
        return load_front(engine, cell.front).label
    settings = SearchSettings(
        source, name=cell.front, trials=FIT_TRIALS, workers=workers, fleet=cell.world.budgets()
    )
    try:
        return search(settings, storage).label
    except DistrealError as error:
        print(f"{cell.front}: {error}", file=sys.stderr)
        return None


def runs_of(
    engine: Engine,
    storage: str,
    cell: Cell,
    folder: Path | None,
    seeds: int,
    strategies: Sequence[str],
    workers: int,
) -> Sequence[Run]:
    """Carry out what is left of a cell, and return its runs."""
    source = TRAININGS[cell.data].source(folder)
    # Only what needs a front has one fitted; it belongs to the conditions of all runs of a cell.
    needed = "distreal" in strategies
    front = fitted_front(engine, storage, cell, source, workers) if needed else None
    specs = cell.specs(source, front, seeds, strategies)
    compared = compare_at_best(engine, cell.name, specs, RATES, workers=workers)
    for failure in compared.failures:
        print(f"{cell.name}: {failure}", file=sys.stderr)
    return compared.runs


def kept_runs(engine: Engine, cell: Cell, strategies: Sequence[str]) -> Sequence[Run]:
    """Return the finished runs of a cell, of each strategy those at the rate that was best last.

    Another rate was best before, where seeds or strategies were added, and ranges widened.
    """
    names = set(map(name_of, strategies))
    runs = [run for run in list_runs(engine, cell.name) if run.finished]
    last = {
        name_of(run.strategy): run.strategy
        for run in sorted(runs, key=lambda run: run.id)
        if name_of(run.strategy) in names
    }
    return [run for run in runs if run.strategy in last.values()]


def settled_points(runs: Sequence[Run]) -> dict[str, float]:
    """Return the mean settled accuracy of each strategy, in per cent, the best first."""
    found, _ = summarise(runs)
    means = {name_of(one.strategy): 100 * one.settled_accuracy.mean for one in found}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def lead(cell: Cell, runs: Sequence[Run]) -> Figure | None:
    """Return by how much `OURS` leads the best of the others, in points; None without both."""
    ours = next((run.strategy for run in runs if name_of(run.strategy) == OURS), "")
    others = paired_differences(runs, ours)
    if not others:
        return None
    leads = {name_of(one.strategy): one.settled_accuracy for one in others}
    best = max(leads, key=lambda name: leads[name].mean)
    means = settled_points(runs)
    return Figure(
        f"lead in {cell.name}",
        -100 * leads[best].mean,
        "points",
        GOAL,
        "higher",
        {
            # The intervals of all others hold at once, so that of whichever came out best does.
            "low": round(-100 * leads[best].high, 1),
            "high": round(-100 * leads[best].low, 1),
            "best other": best,
            "less ours": {name_of(one.strategy): points_of(one) for one in others},
            "settled": {name: round(mean, 1) for name, mean in means.items()},
            "above the small network": {
                name_of(one.strategy): points_of(one) for one in above_small(runs)
            },
            "rates": {name_of(run.strategy): rate_of(run.strategy) for run in runs},
            "seeds": len({run.seed for run in runs}),
        },
    )


def points_of(difference: Difference) -> str:
    """Return a difference with its interval, in points."""
    own = difference.settled_accuracy
    return f"{100 * own.mean:+.1f} ({100 * own.low:+.1f} … {100 * own.high:+.1f})"


def faster(cell: Cell, runs: Sequence[Run]) -> Figure | None:
    """Return when `OURS` reaches the final accuracy of the small network, as a share of its time.

    By seed; the median, in which a seed that never reaches it counts as infinite.
    """
    groups = {name_of(one): own for one, own in by_strategy(runs).items()}
    small = {run.seed: run.rounds[-1] for run in groups.get(REFERENCE, [])}
    shares = {
        run.seed: next(
            (
                one.virtual_seconds / small[run.seed].virtual_seconds
                for one in run.rounds
                if one.accuracy is not None and one.accuracy >= (small[run.seed].accuracy or 0)
            ),
            math.inf,
        )
        for run in groups.get(OURS, [])
        if run.seed in small
    }
    reached = [share for share in shares.values() if not math.isinf(share)]
    if 2 * len(reached) <= len(shares):
        return None
    return Figure(
        f"time to the small network's final accuracy in {cell.name}",
        median(shares.values()),
        "of its time",
        FASTER,
        "lower",
        {"seeds": len(shares), "reached": len(reached), "each": [round(s, 2) for s in reached]},
    )


def regret(
    engine: Engine,
    cell: Cell,
    runs: Sequence[Run],
    folder: Path | None,
    rounds: int,
    workers: int,
) -> float:
    """Return how many points the first choice of a pilot is below the best of a cell.

    The pilot is `fl.compare.advice.advise` with so many rounds and seeds of its own, judged by
    validation data.
    """
    source = TRAININGS[cell.data].source(folder)
    strategies = tuple(dict.fromkeys(without_rate(run.strategy) for run in runs))
    front = next((run.front_label for run in runs if run.front_label is not None), None)
    spec = replace(
        cell.specs(source, front, 1, strategies[:1])[0],
        rounds=rounds,
        seed=PILOT_SEED,
        evaluate_on="validation",
    )
    name = f"{cell.name} advice {rounds}"
    found = advise(engine, name, spec, PILOT_SEEDS, RATES, workers=workers, strategies=strategies)
    means = settled_points(runs)
    lost = max(means.values()) - means[name_of(found.first)]
    print(f"{cell.name}: {found.first} {lost:.1f} points below the best", file=sys.stderr)
    return lost


def good_advice(lost: Mapping[str, float], rounds: int) -> Figure:
    """Return in which share of the cells a pilot's first choice is within a point of the best."""
    return Figure(
        "cells in which the first choice of a pilot is within a point of the best",
        sum(one <= WITHIN for one in lost.values()) / len(lost),
        "of cells",
        ADVISED,
        "higher",
        {
            "rounds": rounds,
            "seeds": PILOT_SEEDS,
            "points below the best": {name: round(one, 1) for name, one in lost.items()},
        },
    )


def without_rate(strategy: str) -> str:
    """Return a strategy without the learning rate that was chosen for it."""
    name, settings = parse_spec("strategy", strategy)
    own = ",".join(f"{key}={value}" for key, value in settings.items() if key != "lr")
    return f"{name}:{own}" if own else name


def rate_of(strategy: str) -> float | None:
    """Return the learning rate among the settings of a strategy."""
    _, settings = parse_spec("strategy", strategy)
    return float(settings["lr"]) if "lr" in settings else None


def markdown(found: Sequence[tuple[Cell, Figure]]) -> str:
    """Return a table of settled accuracies, for the documentation."""
    met = {name for _, figure in found for name in figure.settings["settled"]}
    names = [name for one in STRATEGIES if (name := name_of(one)) in met]
    head = ["cell", *(f"`{name}`" for name in names), f"`{OURS}` − best other"]
    lines = [head, ["---"] * len(head)]
    for cell, figure in found:
        own = figure.settings
        best = max(own["settled"].values())
        lines.append(
            [
                cell.told,
                *(_accuracy(own["settled"].get(name), best) for name in names),
                f"{figure.value:+.1f} ({own['low']:+.1f} … {own['high']:+.1f})",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _accuracy(mean: float | None, best: float) -> str:
    if mean is None:
        return "–"
    return f"**{mean:.1f}**" if mean == best else f"{mean:.1f}"


def main() -> None:
    """Fill the cells that are asked for, and print what came out."""
    arguments = parser(__doc__)
    arguments.add_argument("--storage", required=True, help="database that all is kept in")
    arguments.add_argument("--cells", default="*", help="such as 'digits extreme *'")
    arguments.add_argument("--data", type=Path, help="folder of CIFAR-10's images")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--strategies", default="*", help="such as 'small,nested'")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--quick", action="store_true", help="digits in the extreme fleet")
    arguments.add_argument("--stored", action="store_true", help="train nothing, tell what is kept")
    arguments.add_argument("--markdown", action="store_true", help="a table for documentation")
    arguments.add_argument(
        "--advise", type=int, metavar="ROUNDS", help="hold pilots of so many rounds against it"
    )
    arguments.add_argument("--picture", type=Path, help="folder for atlas.svg")
    asked = arguments.parse_args()
    if asked.stored and asked.advise:
        raise InputError("--advise trains pilots: expected it without --stored")
    torch.set_num_threads(1)
    pattern = "digits extreme * constant" if asked.quick else asked.cells
    cells = [one for one in all_cells() if fnmatch(one.name.removeprefix("atlas "), pattern)]
    if not cells:
        raise InputError(f"--cells '{pattern}': expected cells such as 'digits extreme iid *'")
    wanted = asked.strategies.split(",")
    strategies = [one for one in STRATEGIES if any(fnmatch(name_of(one), name) for name in wanted)]
    engine = open_database(asked.storage)
    found: list[tuple[Cell, Figure]] = []
    filled: list[tuple[Cell, Sequence[Run]]] = []
    times: list[Figure] = []
    lost: dict[str, float] = {}
    for cell in cells:
        began = time.monotonic()
        if asked.stored:
            runs: Sequence[Run] = kept_runs(engine, cell, strategies)
            if not runs:
                continue
        else:
            runs = runs_of(
                engine, asked.storage, cell, asked.data, asked.seeds, strategies, asked.workers
            )
        figure = lead(cell, runs)
        if figure is None:
            print(f"{cell.name}: nothing to compare {OURS} with", file=sys.stderr)
            continue
        found.append((cell, figure))
        filled.append((cell, runs))
        times += [one for one in [faster(cell, runs)] if one is not None]
        if asked.advise:
            lost[cell.name] = regret(engine, cell, runs, asked.data, asked.advise, asked.workers)
        told = f"{cell.name}: {figure.value:+.1f} points, {figure.settings}"
        print(f"{told}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    engine.dispose()
    if lost:
        times.append(good_advice(lost, asked.advise))
    if asked.picture is not None:
        write_images({"atlas": picture(filled, OURS)}, asked.picture, ("svg",))
    if asked.markdown:
        print(markdown(found))
    else:
        report([*(figure for _, figure in found), *times], asked.json)


if __name__ == "__main__":
    main()

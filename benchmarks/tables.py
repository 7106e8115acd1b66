"""What else a table could be, and how else it could be judged; ``optimize --fleet`` does neither.

``own vectors``: from the curve that was fitted, every budget of the fleet gets elasticities of its
own. The default sampler searches them, and the best three are held against the curve in fresh short
runs, paired by replicate, with an interval for all three together.

``stages``: short runs that begin late. Curves are ranked by short runs from the initial network, by
some from a network that one rate trained for a while, and by both together; each ranking is held
against that after a long training (Spearman's rank correlation).
"""

from __future__ import annotations

import copy
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, variance

import numpy as np
import numpy.typing as npt
import optuna
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial

from benchmarks.figures import Figure, parser, report
from distreal_dse.budgets import Budgets
from distreal_dse.convergence import FleetTable, TableRuns
from distreal_dse.cost import MacCost
from distreal_dse.fronts import TABLE
from distreal_dse.search import SearchSettings, search
from distreal_dse.search.proposer import CurveSpace, Problem, make_sampler
from distreal_dse.study import Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator
from fl.compare.paired import simultaneous
from fl.world.fleet import make_fleet

FIT_TRIALS = 30
RANDOM_START, REPLICATES, VERIFIED, FINALISTS = 10, 2, 8, 3
# How far an elasticity of a budget may be from the curve's, as a factor either way.
APART = 4.0
CURVES, LATE, LONG = 16, 1000, 1500

Elasticities = tuple[float, ...]


class Judge:
    """Losses after short runs of tables, each run once.

    Parameters
    ----------
    study
        What is trained.
    budgets
        Of the fleet.
    seed
        Of the short runs.
    """

    def __init__(self, study: Study, budgets: Budgets, seed: int) -> None:
        network, data = prepare(study, seed)
        self.groups = len(network.groups)
        self._budgets, self._macs = budgets, MacCost(network.channels)
        self._space = CurveSpace(network.groups, study.granularity)
        runs = TableRuns(study, data, network, seed)
        # Long runs are done once more where they are asked for again, short ones are not.
        self.loss = cache(lambda table, stream, one: -runs.run(table, stream, one).loss_gain)
        self.state = lambda: copy.deepcopy(network.module.state_dict())

    def curve(self, elasticities: Elasticities) -> FleetTable:
        """Return the table of a curve."""
        vectors = self._space.vectors(elasticities)
        costs = (self._macs.training_many(vectors) / self._macs.full).tolist()
        by_cost = dict(zip(costs, vectors, strict=True))
        rising = sorted(by_cost)
        return FleetTable(self._budgets, tuple(by_cost[cost] for cost in rising), tuple(rising))

    def of_budgets(self, rows: Sequence[Elasticities]) -> FleetTable:
        """Return the table whose vector for each budget lies on a curve of its own."""
        picked = [
            self.curve(row).pick(budget)
            for row, budget in zip(rows, self._budgets.shares, strict=True)
        ]
        costs = (self._macs.training_many(picked) / self._macs.full).tolist()
        return FleetTable(self._budgets, tuple(picked), tuple(costs))


def own_vectors(
    study: Study, budgets: Budgets, fitted: Elasticities, trials: int, seed: int
) -> Figure:
    """Search elasticities of each budget's own, and hold the best against the curve."""
    judge = Judge(study, budgets, seed)
    curve = judge.curve(fitted)
    # The full network is one vector, whatever its elasticities.
    free = [index for index, budget in enumerate(budgets.shares) if budget < 1]
    names = [f"{index} {group}" for index in free for group in range(judge.groups)]
    space: dict[str, BaseDistribution] = {
        name: FloatDistribution(1 / APART, APART, log=True) for name in names
    }

    def table(params: dict[str, float]) -> FleetTable:
        rows = [
            tuple(e * params.get(f"{index} {group}", 1.0) for group, e in enumerate(fitted))
            for index in range(len(budgets.shares))
        ]
        return judge.of_budgets(rows)

    def gains(one: FleetTable, stream: str, replicates: int) -> list[float]:
        runs = range(replicates)
        return [judge.loss(curve, stream, r) - judge.loss(one, stream, r) for r in runs]

    def noise(finished: Sequence[FrozenTrial]) -> npt.NDArray[np.float64] | None:
        runs = [trial.user_attrs["gains"] for trial in finished]
        pooled = fmean(variance(one) for one in runs)
        return np.full(len(runs), pooled / REPLICATES) if pooled > 0 else None

    sampler = make_sampler(
        "cost-aware", seed, RANDOM_START, Problem(noise=noise, names=tuple(names))
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched = optuna.create_study(direction="maximize", sampler=sampler)
    searched.enqueue_trial(dict.fromkeys(names, 1.0))
    for _ in range(trials):
        trial = searched.ask(space)
        found = gains(table(trial.params), "fit", REPLICATES)
        trial.set_user_attr("gains", found)
        searched.tell(trial, fmean(found))
        print(f"own vectors, seed {seed}, {trial.number}: {fmean(found):+.3f}", file=sys.stderr)
    ranked = sorted(searched.trials, key=lambda trial: -trial.values[0])
    best = list(dict.fromkeys(table(trial.params) for trial in ranked))[:FINALISTS]
    estimates = [simultaneous(gains(one, "verification", VERIFIED), len(best)) for one in best]
    one = max(estimates, key=lambda found: found.mean)
    return Figure(
        f"log loss less by vectors of each budget's own than by the curve, seed {seed}",
        one.mean,
        "nats",
        None,
        "higher",
        {
            "low": round(one.low, 3),
            "high": round(one.high, 3),
            "in the search": round(ranked[0].values[0], 3),
            "trials": trials,
            "elasticities": [round(e, 2) for e in fitted],
        },
    )


def stages(study: Study, budgets: Budgets, seed: int) -> list[Figure]:
    """Rank curves by short runs from several stages, and after long ones."""
    from scipy.stats import spearmanr

    early = Judge(study, budgets, seed)
    random = generator(seed, "curves")
    drawn = torch.empty(CURVES - 1, early.groups).uniform_(-1.2, 1.2, generator=random)
    shapes = [(1.0,) * early.groups, *(tuple(map(math.exp, row)) for row in drawn.tolist())]
    curves = [early.curve(tuple(e / geometric(row) for e in row)) for row in shapes]

    def lasting(mini_batches: int) -> Study:
        return replace(study, short_run=replace(study.short_run, table_mini_batches=mini_batches))

    long = Judge(lasting(LONG), budgets, seed)
    warm_up = Judge(lasting(LATE), budgets, seed)
    warm_up.loss(curves[0], "warm-up", 0)
    snapshot = warm_up.state()

    def warm() -> torch.nn.Module:
        module = study.model()
        module.load_state_dict(snapshot)
        return module

    late = Judge(replace(study, model=warm), budgets, seed)

    def losses(judge: Judge, stream: str) -> list[float]:
        means = []
        for number, curve in enumerate(curves):
            means.append(fmean(judge.loss(curve, stream, r) for r in range(REPLICATES)))
            print(f"stages, seed {seed}, {stream} {number}: {means[-1]:.3f}", file=sys.stderr)
        return means

    truth, first, second = losses(long, "long"), losses(early, "early"), losses(late, "late")
    rankings = {
        "the beginning": first,
        f"mini-batch {LATE}": second,
        "both": [a + b for a, b in zip(first, second, strict=True)],
    }
    return [
        Figure(
            f"rank correlation of short runs from {name} with long ones, seed {seed}",
            float(spearmanr(found, truth).statistic),
            "Spearman's ρ",
            None,
            "higher",
            {
                "curves": CURVES,
                "short": study.short_run.table_mini_batches,
                "long": LONG,
                "log loss of the chosen curve above the best": round(
                    truth[int(np.argmin(found))] - min(truth), 3
                ),
            },
        )
        for name, found in rankings.items()
    ]


def geometric(row: Sequence[float]) -> float:
    """Geometric mean."""
    return math.exp(fmean(map(math.log, row)))


def main() -> None:
    """Measure, and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--study", default="digits-cnn")
    arguments.add_argument("--fleet", default="extreme")
    arguments.add_argument("--only", choices=("own-vectors", "stages"))
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--seeds", type=int, default=3)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    source, budgets = StudySource(asked.study), make_fleet(asked.fleet).budgets()
    study = source.load()
    found: list[Figure] = []
    for seed in range(asked.seeds):
        if asked.only != "own-vectors":
            found += stages(study, budgets, seed)
        if asked.only != "stages":
            with tempfile.TemporaryDirectory() as folder:
                front = search(
                    SearchSettings(source, trials=FIT_TRIALS, fleet=budgets, seed=seed),
                    f"sqlite:///{Path(folder) / 'search.db'}",
                )
            fitted = tuple(front.settings[TABLE]["elasticities"])
            found.append(own_vectors(study, budgets, fitted, asked.trials, seed))
        print(found[-1], file=sys.stderr)
    report(found, asked.json)


if __name__ == "__main__":
    main()

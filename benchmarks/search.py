"""What a search finds, what it claims where there is nothing to find, and what it costs.

- ``savings``: how many times as much one rate for all layers spends for the same gain, below half
  of the full cost, by sampler, after equally many short runs; verified with fresh seeds. Geometric
  mean over seeds; the interval is Student's, of its logarithm.
- ``claims``: the share of searches that claim a vector to be better than one rate where gains
  depend on the cost alone, with recorded noise. Short runs are simulated, everything else is real.
- ``suggest``: proposing and storing vectors of fifty groups, with five hundred short runs.
- ``overhead``: wall time of trials less that inside short runs; what workers bring; ``--help``.

Searches of ``savings`` are kept in ``--storage``: what is finished is not done again.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
import optuna

from benchmarks._recorded_noise import MadeUpExecutor, record
from benchmarks.figures import Figure, parser, report
from distreal_dse.cost import MacCost
from distreal_dse.errors import DistrealError, NoGainError
from distreal_dse.fronts import verdict_of
from distreal_dse.search import (
    SAMPLERS,
    CostAwareSampler,
    Problem,
    SearchProgress,
    SearchSettings,
    search,
)
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from fl.compare.summaries import estimate

STUDY = "digits-cnn"
PARTS = ("savings", "claims", "suggest", "overhead")
BOTORCH = "qlognehvi"  # needs `pip install botorch`, so not among those tried by default


def savings(
    source: StudySource, samplers: list[str], seeds: int, runs: int, workers: int, storage: str
) -> list[Figure]:
    """Measure what fronts of several samplers save after so many short runs."""
    figures = []
    for sampler in samplers:
        logs, better, gains = [], [], []
        for seed in range(seeds):
            settings = SearchSettings(
                source, name=f"{sampler}-{runs}-{seed}", trials=10 * runs, runs=runs,
                sampler=sampler, seed=seed, workers=workers, pilot=False,
            )  # fmt: skip
            verdict = verdict_of(search(settings, storage))
            if verdict is None:
                raise DistrealError(f"{sampler}, seed {seed}: expected runs that can be paired")
            logs.append(math.log(verdict.mean.ratio))
            better.append(len(verdict.better))
            gains.append(verdict.gain.difference)
            print(
                f"{sampler}, seed {seed}: {verdict.mean.ratio:.2f} × ({verdict.mean.low:.2f} … "
                f"{verdict.mean.high:.2f}), {better[-1]} vectors certainly better",
                file=sys.stderr,
            )
        settings_told = {"study": source.spec, "short runs": runs, "seeds": seeds}
        mean = estimate(logs)
        figures.append(
            Figure(
                f"MACs saved at equal gain, {sampler}", math.exp(mean.mean), "×",
                2.2 if sampler == "cost-aware" else None, "higher",
                {**settings_told,
                 "low": round(math.exp(mean.low), 2), "high": round(math.exp(mean.high), 2),
                 "each": [round(math.exp(one), 2) for one in logs], "certain": better},
            )
        )  # fmt: skip
        mean = estimate(gains)
        figures.append(
            Figure(
                f"hypervolume over log cost above one rate's, {sampler}", mean.mean, "loss gain",
                None, "higher",
                {**settings_told, "low": round(mean.low, 3), "high": round(mean.high, 3),
                 "each": [round(one, 3) for one in gains]},
            )
        )  # fmt: skip
    return figures


def claims(searches: int, trials: int) -> list[Figure]:
    """Count the searches that claim something where nothing is to be found."""
    recorded = record(STUDY)
    network, _ = prepare(StudySource(STUDY).load(), 0)
    macs = MacCost(network.channels)
    claimed, mattered, stopped = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(searches):
            settings = SearchSettings(StudySource(STUDY), trials=trials, name=f"made-up-{seed}")
            pilots = []

            def listen(progress: SearchProgress, pilots: list[object] = pilots) -> None:
                if progress.pilot is not None:
                    pilots.append(progress.pilot)

            storage = f"sqlite:///{Path(folder) / f'{seed}.db'}"
            try:
                front = search(settings, storage, listen, MadeUpExecutor(recorded, macs, seed))
                verdict = verdict_of(front)
                claimed += bool(verdict and verdict.better)
            except NoGainError:
                pass  # and no claim
            mattered += any(one.shape_matters for one in pilots)  # type: ignore[attr-defined]
            stopped += any(not one.is_worth_a_search for one in pilots)  # type: ignore[attr-defined]
            print(
                f"{seed + 1}/{searches}: {claimed} claims, the pilot of {mattered} says that shape "
                f"matters, that of {stopped} stops",
                file=sys.stderr,
            )
    settings_of = {"noise": f"recorded, {STUDY}", "searches": searches, "trials": trials}
    return [
        Figure("searches that claim a better vector where there is none", claimed / searches,
               "of searches", 0.05, "lower", settings_of),
        Figure("pilots that say that shape matters where it does not", mattered / searches,
               "of searches", 0.05, "lower", settings_of),
        Figure("pilots that stop where nothing is to be found", stopped / searches,
               "of searches", None, "higher", settings_of),
    ]  # fmt: skip


def suggest(groups: int, runs: int) -> list[Figure]:
    """Time proposals and the storing of trials, at one short run each."""
    space = {
        f"keep {group}": optuna.distributions.FloatDistribution(0.15, 1.0, log=True)
        for group in range(groups)
    }

    def price(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logs = np.log(0.15) * (1 - points)
        products = np.exp(logs[:, 1:] + logs[:, :-1])
        return np.log(products.sum(1)), np.zeros(len(points))

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        kept = optuna.create_study(
            storage=f"sqlite:///{Path(folder) / 'suggest.db'}",
            directions=["minimize", "maximize"],
        )
        problem = Problem(price, noise=lambda trials: np.full(len(trials), 1e-3))
        study = optuna.create_study(
            directions=["minimize", "maximize"], sampler=CostAwareSampler(0, 19, problem)
        )
        started = time.perf_counter()
        for _ in range(runs):
            trial = study.ask(space)
            point = np.array(
                [[1 - math.log(one) / math.log(0.15) for one in trial.params.values()]]
            )
            cost = math.exp(float(price(point)[0][0]))
            gain = 0.3 * math.log(cost) + 0.3 * point[0, -1] + 0.03 * random.standard_normal()
            kept.add_trial(study.tell(trial, [cost, float(gain)]))
        seconds = (time.perf_counter() - started) / runs
    return [
        Figure("suggest and store, a trial", seconds, "s", None, "lower",
               {"groups": groups, "short runs": runs}),
        Figure("short run of which that is 5 %", seconds / 0.05, "s", None, "lower",
               {"groups": groups, "short runs": runs}),
    ]  # fmt: skip


class TrialsDone(Exception):
    """Ends a search before its verification."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one search.

    ``whole`` includes loading and warm-up, ``trials`` begins with the first trial, ``steady`` with
    its end; ``evaluating`` are those inside short runs.
    """

    whole: float
    trials: float
    steady: float
    evaluating: float


def timed_search(trials: int, workers: int, seed: int) -> Timing:
    """Run a search in a fresh database and time its trials; verification is left out."""
    finished: list[float] = []

    def listen(progress: SearchProgress) -> None:
        if progress.stage == "search":
            finished.append(time.perf_counter())
        elif progress.stage == "verification":
            raise TrialsDone

    settings = SearchSettings(
        StudySource(STUDY), trials=trials, workers=workers, seed=seed, pilot=False
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder) / 'search.db'}"
        with suppress(TrialsDone):
            search(settings, storage, listen)
        study = optuna.load_study(study_name=STUDY, storage=storage)
        evaluating = sum(trial.user_attrs["seconds"] for trial in study.trials)
    return Timing(
        finished[-1] - started, finished[-1] - finished[0], finished[-1] - finished[1], evaluating
    )


def help_seconds() -> float:
    """Wall time of ``distreal-dse --help``."""
    start = time.perf_counter()
    command = Path(sys.executable).with_name("distreal-dse")
    subprocess.run([command, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def overhead(trials: int, repetitions: int) -> list[Figure]:
    """Time whole searches with one worker and two, in turn."""
    overheads, steady, whole = [], [], []
    for repetition in range(repetitions):
        one = timed_search(trials, 1, repetition)
        two = timed_search(trials, 2, repetition)
        overheads.append((one.trials - one.evaluating) / one.trials)
        steady.append(one.steady / two.steady)
        whole.append(one.whole / two.whole)
    helps = [help_seconds() for _ in range(7)]
    settings = {"study": STUDY, "trials": trials, "repetitions": repetitions}

    def spread(values: list[float]) -> dict[str, object]:
        return {**settings, "min": round(min(values), 4), "max": round(max(values), 4)}

    return [
        Figure("search overhead", median(overheads), "of wall time", 0.05, "lower",
               spread(overheads)),
        Figure("trials per minute, 2 workers over 1, steady", median(steady), "×", 1.7, "higher",
               spread(steady)),
        Figure("trials per minute, 2 workers over 1, whole search", median(whole), "×", None,
               "higher", spread(whole)),
        Figure("distreal-dse --help", median(helps), "s", 0.5, "lower",
               {"runs": len(helps), "min": round(min(helps), 3), "max": round(max(helps), 3)}),
    ]  # fmt: skip


def main() -> None:
    """Measure and report."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = parser(__doc__)
    arguments.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    arguments.add_argument("--study", default=STUDY, help="of savings")
    arguments.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE")
    arguments.add_argument("--samplers", default=",".join(SAMPLERS), help="of savings")
    arguments.add_argument("--seeds", type=int, default=3, help="of savings")
    arguments.add_argument("--runs", type=int, default=240, help="short runs of each search")
    arguments.add_argument("--workers", type=int, default=1, help="of savings")
    arguments.add_argument("--storage", help="database that keeps the searches of savings")
    arguments.add_argument("--searches", type=int, default=200, help="of claims")
    arguments.add_argument("--trials", type=int, default=60, help="of claims and overhead")
    arguments.add_argument("--groups", type=int, default=50, help="of suggest")
    arguments.add_argument("--repetitions", type=int, default=3, help="of overhead")
    given = arguments.parse_args()
    if BOTORCH in given.samplers.split(","):
        from benchmarks._botorch_sampler import QLogNEHVISampler

        cast(dict[str, object], SAMPLERS)[BOTORCH] = QLogNEHVISampler
    parts, figures = given.only or PARTS, list[Figure]()
    if "savings" in parts:
        options = tuple(tuple(one.split("=", 1)) for one in given.option)
        source = StudySource(given.study, options)
        samplers = given.samplers.split(",")
        with tempfile.TemporaryDirectory() as folder:
            storage = given.storage or f"sqlite:///{Path(folder) / 'search.db'}"
            figures += savings(source, samplers, given.seeds, given.runs, given.workers, storage)
    if "claims" in parts:
        figures += claims(given.searches, given.trials)
    if "suggest" in parts:
        figures += suggest(given.groups, 500)
    if "overhead" in parts:
        figures += overhead(given.trials, given.repetitions)
    report(figures, given.json)


if __name__ == "__main__":
    main()
